"""The tiny base's tokenizer: byte-level BPE, which encodes any text, with Alpaca's templates as single tokens."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from alpaca.prompts import INPUT_MARK, PREAMBLE_WITH_INPUT, PREAMBLE_WITHOUT_INPUT, RESPONSE_MARK

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
PHRASES = (PREAMBLE_WITH_INPUT, PREAMBLE_WITHOUT_INPUT, INPUT_MARK, RESPONSE_MARK)
"""One token each: the exact templates at the price of four tokens instead of hundreds of bytes."""


def build_tokenizer(lines: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Trains on `lines`; at most `vocabulary` tokens (a small text gives fewer merges than asked for)."""
    raw = Tokenizer(models.BPE())
    # The prefix space makes the first word after a mark the same token as anywhere else.
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(PHRASES),
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(lines, trainer)
    raw.add_tokens([AddedToken(phrase, normalized=False) for phrase in PHRASES])
    raw.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, raw.token_to_id(BOS))])
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token=PAD, bos_token=BOS, eos_token=EOS)
