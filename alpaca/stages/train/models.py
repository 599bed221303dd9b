"""Loading base model and tokenizer, and making them fit each other."""

from __future__ import annotations

import copy
import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from alpaca.config import HubModel, Model
from alpaca.errors import UserError
from alpaca.runtime.seeding import seed_torch

PAD = "[PAD]"
SHOWN = 3
"""Weights that one error names."""
SPARE_ROWS = 0.1
"""Share of embeddings without a token up to which they are taken for padding; published models stay below 0.03."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a base model comes from; `key` is the configuration key that named it."""

    name: str
    key: str
    revision: str | None = None


def source(model: Model, base: Path | None) -> Source:
    """The folder or hub id to load. base: the finished pretrain stage, for models built here."""
    if isinstance(model, HubModel):
        if model.path is None:
            return Source(name=model.id, key="model.id", revision=model.revision)
        return _folder(Path(model.path).expanduser(), "model.path")
    if base is None:
        raise UserError(what=f"model {model.name!r} is built here, but there is no pretrained base", where="model.kind")
    return _folder(base / "model", "model")


def _folder(path: Path, key: str) -> Source:
    if not (path / "config.json").is_file():
        problem = "there is no config.json in" if path.is_dir() else "there is no folder"
        raise UserError(
            what=f"{problem} {path}",
            where=key,
            remedy="a folder in the transformers format: config.json, *.safetensors and the tokenizer's files",
        )
    return Source(name=str(path), key=key)


def load_tokenizer(source: Source) -> Any:
    """The tokenizer; a UserError when it cannot be loaded or has no end of sequence."""
    tokenizer = _load(AutoTokenizer.from_pretrained, source, "tokenizer")
    if not tokenizer.eos_token or tokenizer.eos_token_id is None:
        raise UserError(
            what=f"the tokenizer of {source.name} has no end of sequence (eos_token is "
            f"{tokenizer.eos_token!r}): a model trained with it would never stop",
            where=source.key,
            remedy="set eos_token in its tokenizer_config.json and use the folder as model.path",
        )
    return tokenizer


def load_model(source: Source, dtype: torch.dtype = torch.float32, *, quantised: bool = False) -> Any:
    """The model on the CPU, its weights in `dtype`; quantised: its linear layers in 4 bits (bitsandbytes' NF4)."""
    options: dict[str, Any] = {"quantization_config": _four_bits(dtype)} if quantised else {}
    # Sizes that differ are told by us: transformers refers to a report in the log.
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": not quantised}
    model, found = _load(AutoModelForCausalLM.from_pretrained, source, "model", dtype=dtype, **options)
    _refuse_half_loaded(source, found)
    return model


def _refuse_half_loaded(source: Source, found: dict[str, Any]) -> None:
    """Weights that config.json asks for and the files lack would be random, and look like a model that learns badly."""
    problems = [
        f"{name} is {list(has)} in the files and {list(wants)} by config.json"
        for name, has, wants in sorted(found.get("mismatched_keys", ()))
    ]
    problems += [f"{name} is in no file" for name in sorted(found.get("missing_keys", ()))]
    problems += [f"{name} is in the files and not in the model" for name in sorted(found.get("unexpected_keys", ()))]
    if problems:
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UserError(
            what=f"the weights of {source.name} do not fit its config.json: {'; '.join(problems[:SHOWN])}{more}",
            where=source.key,
            remedy="take config.json and weights from one source",
        )


def _four_bits(dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            what="train.adapter=qlora needs the package bitsandbytes, which is not installed",
            where="train.adapter",
            remedy="pip install bitsandbytes, or train.adapter=lora",
        )
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def disable_dropout(model: Any) -> int:
    """Sets every dropout rate of the model and its configuration to zero; returns how many were not.

    What is dropped would depend on the cut into passes and processes, which must not change a result; the released
    recipe's LLaMA has no dropout. Rates are found by name, since many models keep them as plain numbers.
    """
    holders = {id(each): each for child in model.modules() for each in (child, getattr(child, "config", None))}
    changed = 0
    for holder in holders.values():
        rates = {} if holder is None else dict(vars(holder))
        for name, rate in rates.items():
            if isinstance(rate, float) and rate > 0 and _is_dropout(holder, name):
                setattr(holder, name, 0.0)
                changed += 1
    return changed


def _is_dropout(holder: Any, name: str) -> bool:
    layer = name == "p" and "dropout" in type(holder).__name__.lower()
    return layer or any(word in name for word in ("dropout", "pdrop", "layerdrop"))


def shape_of(config: Any, dtype: torch.dtype = torch.float32) -> Any:
    """A model of this configuration with uninitialised weights: what every rank but the first starts from.

    The memory is only touched where a shard is filled in, so that one machine does not hold as many whole copies as it
    has processes.
    """
    with init_empty_weights(include_buffers=True):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.to_empty(device="cpu")
    model.tie_weights()
    return model


def _load(loader: Callable[..., Any], source: Source, thing: str, **options: Any) -> Any:
    if source.revision is not None:
        options["revision"] = source.revision
    try:
        return loader(source.name, **options)
    # What transformers raises for files that are missing, unknown, torn or of other sizes than config.json says.
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            what=f"cannot load the {thing} of {source.name}: {reason}", where=source.key, remedy=_remedy(source)
        ) from error


def _remedy(source: Source) -> str:
    if source.key != "model.id":
        return "the folder must hold config.json, *.safetensors and the tokenizer's files, whole"
    return (
        "without access to the hub, download it elsewhere (`hf download "
        f"{source.name} --local-dir FOLDER`, with HF_TOKEN set if it is gated) and give model.path=FOLDER"
    )


def add_padding(tokenizer: Any) -> int:
    """Gives the tokenizer a padding token other than its end of sequence; returns how many tokens were added (0 or 1).

    Where both are one token, code that masks the padding also masks the end, and the model never learns to stop.
    """
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        return 0
    return int(tokenizer.add_special_tokens({"pad_token": PAD}))


def check_fit(tokenizer: Any, model: Any, source: Source) -> None:
    """Refuses a tokenizer of another model, before any token is added: more tokens than embeddings, or far fewer."""
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows or len(tokenizer) < (1 - SPARE_ROWS) * rows:
        raise UserError(
            what=f"the tokenizer of {source.name} has {len(tokenizer)} tokens, the model embeds {rows}",
            where=source.key,
            remedy="they do not belong together; take both from one source",
        )


def other_specials(tokenizer: Any, model: Any) -> list[str]:
    """Special tokens that model and tokenizer know under other ids, in words: often a tokenizer of another model."""
    found = []
    for name in ("bos_token_id", "eos_token_id"):
        known, used = getattr(model.config, name, None), getattr(tokenizer, name)
        if known is not None and used is not None and used not in (known if isinstance(known, list) else [known]):
            found.append(f"{name} is {used} in the tokenizer and {known} in config.json; the tokenizer's is used")
    return found


def embed_added(model: Any, tokenizer: Any, added: int, seed: int, multiple: int = 1) -> None:
    """Gives added tokens the mean of the old embeddings, in and out, as the released recipe does.

    The matrices only grow where they have no spare rows, then to a multiple of `multiple` with rows at the same mean;
    they never shrink.
    """
    rows, old = model.get_input_embeddings().weight.shape[0], len(tokenizer) - added
    wanted = math.ceil(max(rows, len(tokenizer)) / multiple) * multiple
    if wanted > rows:
        seed_torch(seed, "added tokens")
        model.resize_token_embeddings(wanted, mean_resizing=False)
    new = [*range(old, len(tokenizer)), *range(max(rows, len(tokenizer)), wanted)]
    if not new:
        return
    with torch.no_grad():
        for head in (model.get_input_embeddings(), model.get_output_embeddings()):
            if head is not None:
                head.weight[new] = head.weight[:old].mean(dim=0)


def plain_config(model: Any) -> Any:
    """The model's configuration without what says that its weights are in 4 bits: those that are exported are not."""
    found = copy.deepcopy(model.config)
    if getattr(found, "quantization_config", None) is not None:
        del found.quantization_config
    return found


def align_config(model: Any, tokenizer: Any) -> None:
    """Makes the model's special tokens those of the tokenizer, so that generation stops at the trained end."""
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.config, name, getattr(tokenizer, name))
