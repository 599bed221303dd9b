"""The other ways to train on the same examples: transformers' Trainer as stanford_alpaca sets it up, and TRL."""

from __future__ import annotations

import logging
import math
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from _train_data import EOS, IGNORED, PAD, labels
from transformers import PreTrainedTokenizerFast, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from alpaca.stages.train.tokens import Row

LR = 2e-5


def synchronise() -> None:
    """Waits for the GPU, where there is one: its work is only queued when a call returns."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Watch:
    """Seconds of optimizer steps: on the wall, and of this process's processor time, which neighbours disturb less."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self._began = (0.0, 0.0)

    def start(self) -> None:
        synchronise()
        self._began = (time.perf_counter(), time.process_time())

    def stop(self) -> None:
        synchronise()
        self.wall.append(time.perf_counter() - self._began[0])
        self.cpu.append(time.process_time() - self._began[1])


class StepClock(TrainerCallback):  # type: ignore[misc]
    """Watches each optimizer step from its first forward pass to its end: the trainers' start is left out."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.watch.start()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.watch.stop()


class Peer:
    """A trainer that is made once and asked for steps on the same examples."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.watch = trainer, Watch()
        trainer.add_callback(StepClock(self.watch))
        trainer.remove_callback(PrinterCallback)

    def steps(self, count: int = 1) -> Watch:
        """Takes `count` optimizer steps, each on all examples; returns the watch of all steps so far."""
        self.trainer.args.max_steps = count
        self.trainer.args.data_seed = (self.trainer.args.data_seed or 0) + 1  # other neighbours, other padding
        self.trainer.train()
        return self.watch


def arguments(**more: Any) -> dict[str, Any]:
    """What both trainers are told: stanford_alpaca's settings, and neither files nor reports."""
    device = {} if torch.cuda.is_available() else {"use_cpu": True}
    return {
        "output_dir": str(Path(tempfile.gettempdir()) / "alpaca-benchmark"),
        "learning_rate": LR,
        "weight_decay": 0.0,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0,
        "optim": "adamw_torch",
        "max_steps": 1,
        "logging_strategy": "no",
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "data_seed": 0,
        "gradient_checkpointing": False,
        **device,
        **more,
    }


def original(model: Any, rows: list[Row], *, micro_batch: int = 4, **more: Any) -> Peer:
    """stanford_alpaca's train.py: random batches padded to their longest row, accumulated to the global batch."""
    settings = arguments(
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=math.ceil(len(rows) / micro_batch),
        remove_unused_columns=False,
        **more,
    )
    data = [{"input_ids": row.ids, "labels": labels(row)} for row in rows]
    with quiet():
        return Peer(Trainer(model=model, args=TrainingArguments(**settings), train_dataset=data, data_collator=pad))


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings about arguments that have new names: the old ones are known to more versions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def pad(examples: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Pads ids and labels on the right; the mask is where the ids are not padding."""
    longest = max(len(example["input_ids"]) for example in examples)

    def filled(name: str, filler: int) -> torch.Tensor:
        return torch.tensor([example[name] + [filler] * (longest - len(example[name])) for example in examples])

    ids = filled("input_ids", PAD)
    return {"input_ids": ids, "labels": filled("labels", IGNORED), "attention_mask": ids.ne(PAD)}


TRL_WAYS: dict[str, dict[str, Any]] = {
    "bfd 512": {"packing": True, "packing_strategy": "bfd", "max_length": 512, "micro_batch": 1},
    "bfd 1024": {"packing": True, "packing_strategy": "bfd", "max_length": 1024, "micro_batch": 1},
    "padding_free 4": {"padding_free": True, "max_length": None, "micro_batch": 4},
    "grouped 4": {"train_sampling_strategy": "group_by_length", "max_length": None, "micro_batch": 4},
}
"""Of which the quickest on the device stands for TRL: packs of two sizes, whole examples end to end, and padded rows of
similar length. On a CPU attention is sdpa: flash attention needs a GPU, flex attention has no backward pass there."""
GPU_TRL_WAYS: dict[str, dict[str, Any]] = {
    "bfd 512 sdpa": {"packing": True, "packing_strategy": "bfd", "max_length": 512, "micro_batch": 1},
    "bfd 2048 sdpa": {"packing": True, "packing_strategy": "bfd", "max_length": 2048, "micro_batch": 1},
    "bfd 4096 flex": {
        "packing": True,
        "packing_strategy": "bfd",
        "max_length": 4096,
        "micro_batch": 1,
        "attention": "flex_attention",
    },
    "grouped 8 sdpa": {"train_sampling_strategy": "group_by_length", "max_length": None, "micro_batch": 8},
}
"""The same on a GPU, without kernels that must be fetched or built."""


def trl(model: Any, rows: list[Row], way: dict[str, Any], **more: Any) -> Peer:
    """TRL's SFTTrainer on the same ids, with loss on the answers alone. Raises ImportError without trl."""
    from datasets import Dataset, disable_progress_bars
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    disable_progress_bars()
    logging.getLogger("trl").setLevel(logging.ERROR)
    micro_batch = way["micro_batch"]
    model.set_attn_implementation(way.get("attention", "sdpa"))
    batching = {key: value for key, value in way.items() if key not in ("micro_batch", "attention")}
    data = Dataset.from_list([{"input_ids": row.ids, "labels": labels(row)} for row in rows])
    settings = arguments(per_device_train_batch_size=micro_batch, bf16=False, **batching, **more)
    with quiet():
        trainer = SFTTrainer(model=model, args=SFTConfig(**settings), train_dataset=data, processing_class=tokenizer())
    # Known only now: one optimizer step is all packs.
    trainer.args.gradient_accumulation_steps = math.ceil(len(trainer.train_dataset) / micro_batch)
    trainer.accelerator.gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    return Peer(trainer)


def tokenizer() -> PreTrainedTokenizerFast:
    """TRL wants one for the ids of padding and end; the examples are ids already."""
    from tokenizers import Tokenizer, models

    names = {"<pad>": PAD, "<bos>": 1, "<eos>": EOS}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(names, unk_token="<pad>")),
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
    )
