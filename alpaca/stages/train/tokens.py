"""Examples as token ids: prompt (no loss), response and end of sequence (loss)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from alpaca.errors import UserError
from alpaca.prompts import prompt
from alpaca.records import Example

ENCODE_AT_ONCE = 1000
OPENING = "\n"


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
    """Kept examples longer than max_length: cut at the end, so without their end of sequence."""
    unsupervised: int = 0
    """Examples whose prompt alone fills max_length: left out, since they have nothing to learn."""
    repaired: int = 0
    """Kept examples whose response the tokenizer would have merged into the end of the prompt (see `joined`)."""


def encode(examples: Iterable[Example], tokenizer: Any, max_length: int) -> Encoded:
    """Encodes all examples; a UserError when there is none, or none keeps a token that bears loss.

    As in the released recipe (stanford_alpaca, train.py `preprocess`) the source is tokenized alone to count the masked
    tokens; unlike there, every row begins with exactly those tokens. The end of sequence is appended as an id, not as
    text: some tokenizers split its text into pieces.
    """
    encoded, examples = Encoded(rows=[]), list(examples)
    for start in range(0, len(examples), ENCODE_AT_ONCE):
        for source, ids, repaired in _joints(examples[start : start + ENCODE_AT_ONCE], tokenizer):
            cut = [*ids, tokenizer.eos_token_id][:max_length]
            row = Row(cut, min(len(source), len(cut)))
            if not row.supervised:
                encoded.unsupervised += 1
                continue
            encoded.rows.append(row)
            encoded.truncated += len(ids) >= max_length
            encoded.repaired += repaired
    _refuse_empty(encoded, len(examples), max_length)
    return encoded


def _joints(examples: list[Example], tokenizer: Any) -> Iterator[tuple[list[int], list[int], bool]]:
    """Per example the ids of its prompt, those of prompt and response, and whether the boundary had to be repaired."""
    sources = [prompt(example.instruction, example.input) for example in examples]
    texts = [source + example.output for source, example in zip(sources, examples, strict=True)]
    encoded = zip(token_ids(sources, tokenizer), token_ids(texts, tokenizer), examples, strict=True)
    for source, together, example in encoded:
        ids = joined(source, together, example.output, tokenizer)
        yield source, ids, ids is not together


def joined(source: list[int], together: list[int], response: str, tokenizer: Any) -> list[int]:
    """The ids of a prompt (source) followed by its response; `together` (both as one text) where that begins so.

    Many pre-tokenizers merge the ":" that ends the prompt with the start of some responses (":-", ":The"). Such a token
    would hide the first character from the loss, and at inference, where the prompt stands alone, it never occurs.
    """
    if together[: len(source)] == source:
        return together
    return [*source, *continuation(source, response, tokenizer)]


def continuation(source: list[int], response: str, tokenizer: Any) -> list[int]:
    """Ids of a response within a text: no BOS, and no space before it that it does not have.

    Encoded alone where that reads back as the response. Where the tokenizer puts a space before every text, it is
    encoded after a line break, which does not merge with what follows, and the break's tokens are dropped.
    """
    alone = _without_end(tokenizer(response, add_special_tokens=False).input_ids, tokenizer.eos_token_id)
    if _reads(source[-1:], alone, response, tokenizer):
        return alone
    opening, opened = token_ids([OPENING, OPENING + response], tokenizer)
    ids = opened[len(opening) :]
    return ids if opened[: len(opening)] == opening and _reads(source[-1:], ids, response, tokenizer) else alone


def _reads(before: list[int], ids: list[int], text: str, tokenizer: Any) -> bool:
    """Whether `ids` after `before` add exactly `text` to what is read."""

    def read(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    return read([*before, *ids]) == read(before) + text


def token_ids(texts: list[str], tokenizer: Any) -> list[list[int]]:
    """Ids with what the tokenizer puts before a text (BOS), and without an end of sequence after it."""
    return [_without_end(ids, tokenizer.eos_token_id) for ids in tokenizer(texts).input_ids]


def _without_end(ids: list[int], eos: int) -> list[int]:
    return ids[:-1] if ids and ids[-1] == eos else ids


def _refuse_empty(encoded: Encoded, examples: int, max_length: int) -> None:
    if not examples:
        raise UserError(what="the training set is empty", where="data", remedy="loosen the filters or ask for more")
    if not encoded.rows:
        raise UserError(
            what=f"all {examples} examples have prompts of {max_length} tokens or more: nothing to learn",
            where="train.max_length",
            remedy="a larger train.max_length",
        )


def refuse_endless(encoded: Encoded, max_length: int) -> None:
    """Refuses a training set in which no example keeps its end of sequence."""
    if encoded.truncated == len(encoded.rows):
        raise UserError(
            what=f"all {len(encoded.rows)} examples are longer than {max_length} tokens: none keeps its end of "
            "sequence, and a model trained on them would never stop",
            where="train.max_length",
            remedy="a larger train.max_length",
        )
