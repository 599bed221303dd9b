"""Examples as token ids: prompt (no loss), response and end of sequence (loss)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from alpaca.errors import UserError
from alpaca.prompts import prompt
from alpaca.records import Example

ENCODE_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids of one example; the first `masked` of them bear no loss."""

    ids: list[int]
    masked: int

    @property
    def supervised(self) -> int:
        """Tokens that bear loss. The very first token is never predicted."""
        return max(0, len(self.ids) - max(self.masked, 1))

    def silent(self) -> Row:
        """The same tokens without loss: what a process computes when it has no examples left in a step."""
        return Row(self.ids, len(self.ids))


@dataclass(kw_only=True, slots=True)
class Encoded:
    """The training set in tokens, and what was lost on the way."""

    rows: list[Row]
    truncated: int = 0
    """Examples longer than max_length: cut at the end, so without their end of sequence."""
    unsupervised: int = 0
    """Examples whose prompt alone fills max_length: left out, since they have nothing to learn."""


def encode(examples: Iterable[Example], tokenizer: Any, max_length: int) -> Encoded:
    """Encodes all examples; a UserError when there is none, or none keeps a token that bears loss.

    As in the released recipe (stanford_alpaca, train.py `preprocess`) the source is tokenized alone to count the masked
    tokens. The end of sequence is appended as an id, not as text: some tokenizers split its text into pieces.
    """
    encoded, examples = Encoded(rows=[]), list(examples)
    for start in range(0, len(examples), ENCODE_AT_ONCE):
        for row, whole in _rows(examples[start : start + ENCODE_AT_ONCE], tokenizer, max_length):
            encoded.truncated += not whole
            if row.supervised:
                encoded.rows.append(row)
            else:
                encoded.unsupervised += 1
    _refuse_empty(encoded, len(examples), max_length)
    return encoded


def _rows(examples: list[Example], tokenizer: Any, max_length: int) -> list[tuple[Row, bool]]:
    """Per example its row, and whether it is whole."""
    sources = [prompt(example.instruction, example.input) for example in examples]
    texts = [source + example.output for source, example in zip(sources, examples, strict=True)]
    eos = tokenizer.eos_token_id
    rows = []
    for source, ids in zip(token_ids(sources, tokenizer), token_ids(texts, tokenizer), strict=True):
        cut = [*ids, eos][:max_length]
        rows.append((Row(cut, min(len(source), len(cut))), len(ids) < max_length))
    return rows


def token_ids(texts: list[str], tokenizer: Any) -> list[list[int]]:
    """Ids with what the tokenizer puts before a text (BOS), and without an end of sequence after it."""
    eos = tokenizer.eos_token_id
    return [ids[:-1] if ids and ids[-1] == eos else ids for ids in tokenizer(texts).input_ids]


def _refuse_empty(encoded: Encoded, examples: int, max_length: int) -> None:
    if not examples:
        raise UserError(what="the training set is empty", where="data", remedy="loosen the filters or ask for more")
    if not encoded.rows:
        raise UserError(
            what=f"all {examples} examples have prompts of {max_length} tokens or more: nothing to learn",
            where="train.max_length",
            remedy="a larger train.max_length",
        )
