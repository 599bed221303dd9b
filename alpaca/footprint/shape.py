"""The shape of a base model: what its memory and its operations are counted from."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpaca.config import HubModel, Model, TinyModel

FACTS = ("layers", "width", "feed_forward", "heads", "kv_heads", "head_size", "vocabulary", "tied", "gated")
TINY_FEED_FORWARD = 3
"""Width of the feed-forward blocks of models built here, in widths of the model."""
UNGATED = ("opt", "gpt2", "gpt_neo", "gpt_neox", "gptj", "gpt_bigcode", "bloom", "falcon", "phi", "mpt", "starcoder2")
"""Model types of transformers whose feed-forward blocks are two matrices."""
TIED = ("opt", "gpt2", "gpt_neo", "gpt_bigcode", "bloom", "mpt", "gemma", "gemma2", "gemma3_text")
"""Model types whose head is the embedding unless config.json says otherwise."""
_SPELLINGS = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "width": ("hidden_size", "n_embd", "d_model"),
    "feed_forward": ("intermediate_size", "ffn_dim", "n_inner"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "vocabulary": ("vocab_size",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A decoder of equal layers: attention and feed-forward block, each with a norm before it."""

    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied: bool
    gated: bool

    @property
    def layer_matrices(self) -> int:
        """Numbers in the weight matrices of one layer."""
        attention = 2 * self.width * self.head_size * (self.heads + self.kv_heads)
        return attention + (3 if self.gated else 2) * self.width * self.feed_forward

    @property
    def embedding(self) -> int:
        """Numbers in the embedding, and in the output head."""
        return self.vocabulary * self.width

    @property
    def ends(self) -> int:
        """Numbers in embedding and head together."""
        return self.embedding * (1 if self.tied else 2)

    @property
    def matrices(self) -> int:
        """Numbers that a token is multiplied with: the layers and the head, not the embedding (which is looked up)."""
        return self.layers * self.layer_matrices + self.embedding

    @property
    def parameters(self) -> int:
        """All of them; biases and learnt positions, where a model has them, are left out (below 0.3 %)."""
        norms = (2 * self.layers + 1) * self.width
        return self.layers * self.layer_matrices + norms + self.ends


def shape_of(model: Model) -> Shape | None:
    """From config.json of the folder or the hub cache, else from the facts in conf/model; None where neither says."""
    if isinstance(model, TinyModel):
        return _tiny(model)
    if not isinstance(model, HubModel):
        return None
    file = config_file(model)
    if file is not None:
        return from_config_json(file)
    facts = {name: getattr(model, name) for name in FACTS}
    return None if None in facts.values() else Shape(**facts)


def _tiny(model: TinyModel) -> Shape:
    return Shape(
        layers=model.layers,
        width=model.width,
        feed_forward=TINY_FEED_FORWARD * model.width,
        heads=model.heads,
        kv_heads=model.heads,
        head_size=model.width // model.heads,
        vocabulary=model.vocabulary,
        tied=True,
        gated=True,
    )


def config_file(model: HubModel) -> Path | None:
    """config.json of `model.path`, or of the newest snapshot of the revision in the hub cache; None: not here."""
    if model.path is not None:
        file = Path(model.path).expanduser() / "config.json"
        return file if file.is_file() else None
    snapshots = hub_cache() / f"models--{model.id.replace('/', '--')}" / "snapshots"
    reference = snapshots.parent / "refs" / model.revision
    commit = reference.read_text().strip() if reference.is_file() else model.revision
    file = snapshots / commit / "config.json"
    return file if file.is_file() else None


def hub_cache() -> Path:
    """Where huggingface_hub keeps what it downloaded."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface"))
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()


def from_config_json(file: Path) -> Shape | None:
    """The shape that a config.json of transformers tells; None for what is no decoder of equal, dense layers."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return None  # said by `alpaca.checks.weights`
    if not isinstance(found, dict):
        return None
    sizes, found = sizes_in(found), found.get("text_config") or found
    if any(found.get(name) for name in ("num_local_experts", "num_experts", "n_routed_experts")):
        return None
    sizes["feed_forward"] = sizes["feed_forward"] or 4 * (sizes["width"] or 0)
    return Shape(**_whole(found, sizes)) if all(isinstance(size, int) and size > 0 for size in sizes.values()) else None


def sizes_in(config: dict[str, Any]) -> dict[str, Any]:
    """layers, width, feed_forward, heads, vocabulary of a config.json, however it spells them; None where it does not
    tell."""
    text = config.get("text_config") or config
    return {name: _first(text, spellings) for name, spellings in _SPELLINGS.items()}


def _first(found: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((found[name] for name in names if found.get(name) is not None), None)


def _whole(found: dict[str, Any], sizes: dict[str, int]) -> dict[str, Any]:
    kind, heads = found.get("model_type", ""), sizes["heads"]
    tied = found.get("tie_word_embeddings")
    return {
        **sizes,
        "kv_heads": found.get("num_key_value_heads") or heads,
        "head_size": found.get("head_dim") or max(1, sizes["width"] // heads),
        "tied": kind in TIED if tied is None else bool(tied),
        "gated": kind not in UNGATED,
    }
