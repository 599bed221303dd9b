"""Writing the trained model in the transformers format, and reading it back before it counts."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from alpaca.artifacts import Context
from alpaca.errors import UserError
from alpaca.prompts import chat_template, prompt
from alpaca.stages.train.tokens import token_ids

SHARD = "5GB"
"""Largest file of weights."""
NAMED = 3
"""Names of weights that an error lists."""


def export(
    context: Context, config: Any, tokenizer: Any, weights: dict[str, torch.Tensor], *, chat: bool = True
) -> None:
    """Writes `model/`: weights, configuration, tokenizer and the tokens at which generation starts and stops.

    chat: the tokenizer gets Alpaca's template for chats, in place of one that the base model had.
    The folder appears whole or not at all; what was written is compared with memory first, since a model that was
    damaged in saving looks like one that learnt nothing.
    """
    temporary, final = context.work / "model.part", context.folder / "model"
    shutil.rmtree(temporary, ignore_errors=True)
    # Sharded parameters cannot be saved by the model itself; the shell only lends its class and its ties.
    with init_empty_weights(include_buffers=True):
        shell = AutoModelForCausalLM.from_config(config, dtype=_dtype(weights))
    weights = _without_ties(weights, shell.all_tied_weights_keys)
    if chat:
        tokenizer.chat_template = chat_of(tokenizer, context)
    _write(temporary, shell, tokenizer, weights)
    compare(temporary, weights)
    shutil.rmtree(final, ignore_errors=True)
    temporary.replace(final)


def _dtype(weights: dict[str, torch.Tensor]) -> torch.dtype:
    """The format that most numbers are in."""
    return max(weights.values(), key=torch.Tensor.numel).dtype


def _write(folder: Path, shell: Any, tokenizer: Any, weights: dict[str, torch.Tensor]) -> None:
    # A fresh one: base models ship sampling settings which transformers then refuses to save without do_sample.
    shell.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id
    )
    shell.save_pretrained(folder, state_dict=dict(weights), max_shard_size=SHARD)
    tokenizer.save_pretrained(folder)


def _without_ties(weights: dict[str, torch.Tensor], ties: dict[str, str]) -> dict[str, torch.Tensor]:
    """Drops what is stored under another name already; gathered shards no longer show that by their address."""
    return {
        name: weight
        for name, weight in weights.items()
        if name not in ties or not torch.equal(weight, weights[ties[name]])
    }


def chat_of(tokenizer: Any, context: Context) -> str | None:
    """Alpaca's chat template for this tokenizer; None, and a warning, where its text would become other ids.

    Chats are encoded without special tokens, so what the tokenizer puts before a text is part of the template. After
    its BOS some no longer add the space that begins every text: then the template adds it.
    """
    text = prompt("Count to three.")
    wanted, bare = token_ids([text], tokenizer)[0], tokenizer(text, add_special_tokens=False).input_ids
    before = "".join(tokenizer.convert_ids_to_tokens(wanted[: len(wanted) - len(bare)]))
    for opening in (before, f"{before} "):
        if tokenizer(opening + text, add_special_tokens=False).input_ids == wanted:
            return chat_template(opening, tokenizer.eos_token)
    context.log("warning: the tokenizer encodes chats unlike single prompts; it is saved without a chat template")
    return None


def compare(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Raises a UserError unless the files hold exactly these weights and transformers finds all of them there.

    Some architectures are stored under the names of their first release: then only all tensors' bytes must be the same.
    Some are also split or merged for it (mixtures of experts): then the model is loaded, one more copy in memory.
    """
    try:
        _refuse_incomplete(folder)
        left, renamed = dict(weights), list[torch.Tensor]()
        for name, tensor in _stored(folder):
            if name in left and _same(tensor, left[name]):
                del left[name]
            else:
                renamed.append(tensor)  # mapped from the file: takes no memory
        if not _permuted(renamed, list(left.values())):
            _compare_loaded(folder, weights)
    # What reading raises for files that are missing, cut off, or not those of this model.
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _damaged(folder, " ".join(str(error).split())[:300]) from error


def _refuse_incomplete(folder: Path) -> None:
    """Loads the model without its numbers: configuration, index and names must lead to every weight."""
    _, found = AutoModelForCausalLM.from_pretrained(folder, device_map="meta", output_loading_info=True)
    _refuse(folder, {*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])})


def _stored(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors of the files that loading reads."""
    index, files = folder / SAFE_WEIGHTS_INDEX_NAME, {SAFE_WEIGHTS_NAME}
    if index.is_file():
        files = set(json.loads(index.read_text())["weight_map"].values())
    for file in sorted(files):
        with safe_open(folder / file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - safe_open is no mapping
                yield name, opened.get_tensor(name)


def _same(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Equal to the bit, so that NaN equals itself."""
    return _kind(left) == _kind(right) and torch.equal(_bytes(left), _bytes(right))


def _kind(tensor: torch.Tensor) -> tuple[torch.dtype, torch.Size]:
    return tensor.dtype, tensor.shape


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _permuted(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    """Whether both are the same tensors in some order."""

    def contents(tensors: Iterable[torch.Tensor]) -> Counter[Any]:
        return Counter((_kind(each), hashlib.sha256(_bytes(each).numpy().data).digest()) for each in tensors)

    # Kinds first: bytes need not be read where they differ already.
    return Counter(map(_kind, left)) == Counter(map(_kind, right)) and contents(left) == contents(right)


def _compare_loaded(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=_dtype(weights)).state_dict()
    same = (name for name in weights if name in loaded and _same(loaded[name], weights[name].to(loaded[name].dtype)))
    _refuse(folder, weights.keys() - set(same))


def _refuse(folder: Path, names: set[str]) -> None:
    if names:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        raise _damaged(folder, ", ".join(sorted(names)[:NAMED]) + more)


def _damaged(path: Path, what: str) -> UserError:
    return UserError(
        what=f"reading back what was written gives other weights: {what}",
        where=str(path),
        remedy="the disk may be full or faulty: free space and run the same command again; if it says the same again, "
        "this version of transformers does not save this architecture so that it loads: install another one",
    )
