"""A tiny random Llama with tokenizer, a small data set and configurations, shared by the tests of the torch rooms.

Run as a program it is one rank of a distributed test: `training_world.py FOLDER MODE...`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

from alpaca import config
from alpaca.artifacts import Context
from alpaca.errors import PreemptedError
from alpaca.prompts import prompt
from alpaca.records import Example, as_row, write_jsonl

WORDS = (
    "red",
    "green",
    "blue",
    "one",
    "two",
    "three",
    "four",
    "five",
    "cat",
    "dog",
    "bird",
    "fish",
    "sun",
    "moon",
    "star",
    "sea",
)


def examples(count: int) -> list[Example]:
    """Repeat-the-words tasks of various lengths, every third with an input."""
    made = []
    for index in range(count):
        words = [WORDS[(index * 7 + 3 * place) % len(WORDS)] for place in range(1 + index % 5)]
        text = " ".join(words)
        made.append(
            Example(id=f"e{index}", instruction=f"Repeat {text}", input=text if index % 3 == 0 else "", output=text)
        )
    return made


def make_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    names = special or {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=sorted(set(names.values())),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    raw.train_from_iterator([" ".join(WORDS)] * 20 + ["### Response:", "### Instruction:"] * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, **names)


LLAMA_3_LIKE = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""How tokenizers of this kind cut text before merging: a mark may stand with the word or the marks after it."""


def make_merging_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE that has learnt ":-", ':"' and ":The" as tokens."""
    raw = Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(Regex(LLAMA_3_LIKE), "isolated")
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    raw.decoder = decoders.ByteLevel()
    return _trained(raw, [":- a", ':"a"', ":The", "Response"])


def make_spacing_tokenizer() -> PreTrainedTokenizerFast:
    """BPE in the manner of sentencepiece, with a space before every text, that has learnt ":)" as a token."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    raw.decoder = decoders.Metaspace(prepend_scheme="first")
    return _trained(raw, [":)", "\n", prompt("x"), "red sun"])


def _trained(raw: Tokenizer, lines: list[str]) -> PreTrainedTokenizerFast:
    names = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(names.values()),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    raw.train_from_iterator(lines * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, **names)


def make_opt_base(folder: Path, dropout: float) -> Path:
    """folder/model: a tiny OPT, which keeps its dropout rates as plain numbers; returns folder."""
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    shape = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        dropout=dropout,
        attention_dropout=dropout,
        layerdrop=dropout,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    OPTForCausalLM(shape).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder


def make_base(folder: Path, width: int = 32, **special: str) -> Path:
    """folder/model in the transformers format; returns folder."""
    tokenizer = make_tokenizer(**special)
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(shape).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder


def make_gemma_base(folder: Path) -> Path:
    """folder/model: a tiny Gemma 2, whose capped scores and logits the packed form does not have; returns folder."""
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    shape = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    Gemma2ForCausalLM(shape).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder


def make_data(folder: Path, rows: list[Example]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "examples.jsonl", [as_row(row) for row in rows])
    return folder


def make_context(folder: Path, **parents: Path) -> Context:
    (folder / "work").mkdir(parents=True, exist_ok=True)
    return Context(folder=folder, work=folder / "work", parents=parents)


def train_config(
    *,
    budget: str = "5 steps",
    compute: str = "fp32",
    optimizer: config.Optimizer | None = None,
    fsdp: config.Fsdp | None = None,
    precision: config.Precision | None = None,
    **train: Any,
) -> config.TrainConfig:
    settings = {"global_batch": 8, "micro_batch": 3, "max_length": 200, "checkpoint_seconds": 1e9, **train}
    return config.TrainConfig(
        model=config.TinyModel(name="tiny", parameters=1e4),
        train=config.Train(budget=budget, **settings),
        optimizer=optimizer or config.AdamW(lr=1e-2, warmup_ratio=0.2),
        precision=precision or config.Precision(compute=compute),
        fsdp=fsdp or config.Fsdp(),
        seeds=config.TrainSeeds(),
    )


def losses(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "loss.jsonl").read_text().splitlines()]


class Interrupted(Exception):
    """What a test interrupts a stage with."""


def interrupt_at(context: Context, step: int, how: Callable[[], None] | None = None) -> Context:
    """The context's check raises (or calls `how`) before step `step` of the loop."""
    calls = iter(range(step))

    def check() -> None:
        if next(calls, None) is None:
            (how or _raise)()

    context.check = check
    return context


def _raise() -> None:
    raise Interrupted


def marked(marks: list[str]) -> dict[str, Any]:
    """Precision and optimizer of a run with these marks."""
    rounded = config.Precision(compute="bf16", parameters="bf16", states="bf16", rounding="stochastic")
    return {
        "compute": "bf16" if "bf16" in marks else "fp32",
        "precision": rounded if "sr" in marks else None,
        "optimizer": config.Muon() if "muon" in marks else None,
        **({"adapter": "lora"} if "lora" in marks else {}),
        **({"batching": "padded"} if "padded" in marks else {}),
    }


def rank(folder: Path, runs: list[str]) -> None:
    """Trains once per run into folder/RUN, in one process group; a run is MODE and its marks, such as ddp+resume.

    +resume: interrupts itself before the fourth step and starts again; +warned: rank 1 alone gets a signal there.
    +begun: ends there. +lora, +bf16, +sr, +muon, +padded: what it says.
    """
    from alpaca.runtime.distributed import setup
    from alpaca.stages.train import parallel

    torch.set_num_threads(1)
    ranks = setup()
    for name in runs:
        mode, *marks = name.split("+")
        fsdp = config.Fsdp(mode=mode, world_size=ranks.world_size)
        parallel.check(fsdp, ranks.device)
        settings = train_config(fsdp=fsdp, checkpoint_seconds=0.0, **marked(marks))
        base = "gemma" if "gemma" in marks else "base"
        context = make_context(folder / name, base=folder / base, data=folder / "data")
        if "resume" in marks or "begun" in marks:
            with contextlib.suppress(Interrupted):
                tune(settings, interrupt_at(context, 3), ranks)
            context.check = lambda: None
        if "warned" in marks:
            with contextlib.suppress(PreemptedError):
                tune(settings, interrupt_at(context, 3, partial(warn, ranks.rank)), ranks)
                raise AssertionError("the signal was not heard")
            context.check = lambda: None
        if "begun" not in marks:
            tune(settings, context, ranks)
    ranks.close()


def tune(settings: config.TrainConfig, context: Context, ranks: Any) -> None:
    """The stage's body, as it hears signals."""
    from alpaca.runtime.signals import Warnings
    from alpaca.stages.train.stage import fine_tune

    with Warnings() as warnings:
        fine_tune(settings, context, ranks, warnings)


def warn(rank: int) -> None:
    """SLURM's warning, to rank 1 alone."""
    if rank == 1:
        os.kill(os.getpid(), signal.SIGUSR2)


def be_killed(folder: Path) -> None:
    """Trains into folder/killed and dies without warning before the fourth step."""
    from alpaca.runtime.distributed import Ranks

    torch.set_num_threads(1)
    context = make_context(folder / "killed", base=folder / "base", data=folder / "data")
    interrupt_at(context, 3, lambda: os.kill(os.getpid(), signal.SIGKILL))
    alone = Ranks(rank=0, world_size=1, device=torch.device("cpu"), grouped=False)
    tune(train_config(checkpoint_seconds=0.0), context, alone)


if __name__ == "__main__":
    if sys.argv[2] == "kill":
        be_killed(Path(sys.argv[1]))
    else:
        rank(Path(sys.argv[1]), sys.argv[2:])
        from alpaca.runtime.distributed import leave

        leave()
