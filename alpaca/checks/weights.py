"""What is wrong with a local folder of weights (`model.path`), by its file names and headers; imports no torch."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alpaca.config import HubModel, Run
from alpaca.errors import UserError
from alpaca.footprint.shape import sizes_in

WHERE = "model.path"
FOLDER = "a folder in the transformers format: config.json, *.safetensors and the tokenizer's files"
ONE_SOURCE = "take config.json, weights and tokenizer from one source"
INDEX = ".index.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""In the order in which transformers looks for them; it takes the first that is there."""
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "tokenizer_config.json",
)
"""One of them is in every folder that holds a tokenizer."""
LARGEST_HEADER = 10**8
"""Bytes; safetensors itself refuses more."""
POINTER = b"version https://git-lfs"
EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|wte|embed_in|word_embeddings|tok_embeddings)\.weight$")
LAYER = re.compile(r"^(?:(?:model|transformer|gpt_neox|decoder|language_model)\.)*(?:layers|h)\.(\d+)\.")
"""Of the decoder alone: layers of an encoder of images have its name before theirs."""
NARROWED = ("word_embed_proj_dim", "embedding_size")
"""Keys of config.json of models whose embeddings may be narrower than their layers."""
PLAIN = ("F64", "F32", "F16", "BF16")
"""Numbers that are stored one by one: only then shapes are those of the model."""


@dataclass(slots=True)
class Facts:
    """What the headers tell of a model; None: nothing."""

    rows: int | None = None
    width: int | None = None
    """Of the embedding."""
    layers: set[int] = field(default_factory=set)

    def note(self, name: str, entry: dict[str, Any]) -> None:
        """Takes in one tensor of a header."""
        layer = LAYER.match(name)
        if layer:
            self.layers.add(int(layer[1]))
        shape = entry.get("shape", [])
        if self.rows is None and EMBEDDING.search(name) and len(shape) == 2 and entry.get("dtype") in PLAIN:
            self.rows, self.width = shape


def problems(run: Run) -> Iterator[UserError]:
    """All that would keep this folder from being loaded; nothing where none is given, or it is no folder."""
    if not isinstance(run.model, HubModel) or not run.model.path:
        return
    folder = Path(run.model.path).expanduser()
    if folder.is_dir():
        stamp = tuple((each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in sorted(folder.iterdir()))
        for what, remedy in _looked_at(folder, stamp):
            yield UserError(what=f"{what} ({run.model.path})", where=WHERE, remedy=remedy)


@functools.lru_cache(maxsize=16)
def _looked_at(folder: Path, stamp: tuple[tuple[str, int, int], ...]) -> tuple[tuple[str, str], ...]:
    """What is wrong and how it is mended; once for all points of a sweep. stamp: of the files, which may change."""
    found: list[tuple[str, str]] = []
    facts = Facts()
    config = _config(folder, found)
    for file in _files(folder, config, found):
        _read(file, facts, found)
    if config is not None:
        found += [(text, ONE_SOURCE) for text in _differences(config, facts)]
    if not any((folder / name).is_file() for name in TOKENIZERS):
        found.append(("no tokenizer: none of " + ", ".join(TOKENIZERS[:4]) + ", ...", FOLDER))
    found += [(text, ONE_SOURCE) for text in _tokens(folder / "tokenizer.json", facts)]
    return tuple(found)


def _config(folder: Path, found: list[tuple[str, str]]) -> dict[str, Any] | None:
    if not (folder / "config.json").is_file():
        found.append(("no config.json", FOLDER))
        return None
    config = _json(folder / "config.json")
    if config is None:
        found.append(("config.json is no JSON object", "take the whole file from the model's source"))
    return config


def _json(file: Path) -> dict[str, Any] | None:
    """The object in a file; None where there is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _files(folder: Path, config: dict[str, Any] | None, found: list[tuple[str, str]]) -> list[Path]:
    """The files that transformers would load the weights from, as far as they are safetensors and there."""
    named = (config or {}).get("transformers_weights")
    first = next((name for name in ([named] if named else WEIGHTS) if (folder / name).is_file()), None)
    if first is None:
        found.append((f"no weights: none of {', '.join([named] if named else WEIGHTS)}", FOLDER))
        return []
    names = _indexed(folder / first, found) if first.endswith(INDEX) else [first]
    return [folder / name for name in names if name.endswith(".safetensors") and (folder / name).is_file()]


def _indexed(index: Path, found: list[tuple[str, str]]) -> list[str]:
    """The names in an index of several files."""
    places = (_json(index) or {}).get("weight_map")
    if not isinstance(places, dict) or not places:
        found.append((f"{index.name} tells no files", "take the whole file from the model's source"))
        return []
    names = sorted({str(name) for name in places.values()})
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        found.append((f"{index.name} names files that are not there: {shown}", "copy or download them too"))
    return names


def _read(file: Path, facts: Facts, found: list[tuple[str, str]]) -> None:
    """Takes in the header of a safetensors file: its length in 8 bytes, then JSON, then the numbers."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
        length = int.from_bytes(start, "little")
        text = opened.read(length) if length <= min(LARGEST_HEADER, size) else b""
    again = "copy or download it again"
    if start == POINTER[:8] and size < 1000:
        found.append((f"{file.name} is a pointer of git-lfs, not the weights", "git lfs pull, or download it"))
        return
    header = _header(text)
    if header is None:
        found.append((f"{file.name} is no whole safetensors file: it has no header", again))
        return
    end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if size != end:
        found.append((f"{file.name} is torn: {size:,} bytes where its header tells of {end:,}", again))
    for name, entry in header.items():
        facts.note(name, entry)


def _header(text: bytes) -> dict[str, dict[str, Any]] | None:
    """The tensors of a header by name; None for what is none."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    entries = {name: entry for name, entry in found.items() if name != "__metadata__"}
    whole = all(isinstance(entry, dict) and len(entry.get("data_offsets", ())) == 2 for entry in entries.values())
    return entries if whole else None


def _differences(config: dict[str, Any], facts: Facts) -> Iterator[str]:
    """Where config.json and the weights speak of different models."""
    told = sizes_in(config)
    layers, extra = told["layers"], config.get("num_nextn_predict_layers") or 0
    held = max(facts.layers, default=-1) + 1
    # Layers that predict further tokens lie behind the others and are not loaded.
    if held and isinstance(layers, int) and not layers <= held <= layers + extra:
        yield f"config.json says {layers} layers, the weights hold {held}"
    rows, width = told["vocabulary"], told["width"]
    if facts.rows is not None and isinstance(rows, int) and rows != facts.rows:
        yield f"config.json says {rows:,} tokens, the weights hold {facts.rows:,}"
    narrowed = any(config.get(key) for key in NARROWED)
    if facts.width is not None and isinstance(width, int) and width != facts.width and not narrowed:
        yield f"config.json says a width of {width:,}, the embedding in the weights has {facts.width:,}"


def _tokens(file: Path, facts: Facts) -> Iterator[str]:
    """A tokenizer that cannot be read, or has tokens without an embedding."""
    if not file.is_file():
        return
    tokenizer = _json(file)
    if tokenizer is None:
        yield "tokenizer.json is no JSON object"
        return
    vocabulary = (tokenizer.get("model") or {}).get("vocab") or {}
    known = set(vocabulary) if isinstance(vocabulary, dict) else {entry[0] for entry in vocabulary}
    known |= {each["content"] for each in tokenizer.get("added_tokens") or ()}
    if facts.rows is not None and len(known) > facts.rows:
        yield f"tokenizer.json has {len(known):,} tokens, the weights embed {facts.rows:,}"
