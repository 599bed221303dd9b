"""Configuration of the base model: one from the hub or a folder, or one that is built here."""

from __future__ import annotations

from dataclasses import dataclass

from alpaca.config.marks import MISSING, content, how, what


@dataclass(kw_only=True, slots=True)
class Model:
    """Base of the base models; `kind` names the variant."""

    kind: str = what(MISSING)
    name: str = how(MISSING)
    """Shown in plans and reports."""
    parameters: float = how(MISSING, least=0)
    """Approximate parameter count, for the forecast in the plan."""


@dataclass(kw_only=True, slots=True)
class HubModel(Model):
    """A pretrained causal language model, loaded by transformers' Auto classes."""

    kind: str = what("hub", choices=("hub",))
    id: str = what(MISSING)
    """Hub id."""
    revision: str = what("main")
    """Commit, tag or branch on the hub; a commit makes the run reproducible."""
    path: str | None = content(takes="folder")
    """A local folder in the transformers format, used instead of the hub id."""
    layers: int | None = how(None, least=1)
    """For the plan's forecast where no config.json is at hand yet, as are the eight keys below; null: not known."""
    width: int | None = how(None, least=1)
    feed_forward: int | None = how(None, least=1)
    """Width inside the feed-forward blocks."""
    heads: int | None = how(None, least=1)
    kv_heads: int | None = how(None, least=1)
    """Heads of keys and values; fewer than `heads` where queries share them."""
    head_size: int | None = how(None, least=1)
    vocabulary: int | None = how(None, least=1)
    """Rows of the embedding."""
    tied: bool | None = how(None)
    """Whether the output head is the embedding."""
    gated: bool | None = how(None)
    """Whether the feed-forward blocks have a gate (SwiGLU), so three matrices instead of two."""


@dataclass(kw_only=True, slots=True)
class TinyModel(Model):
    """A Llama built here: tokenizer and weights come from the `pretrain` stage on the embedded corpus."""

    kind: str = what("tiny", choices=("tiny",))
    layers: int = what(2, least=1)
    width: int = what(96, least=8)
    heads: int = what(2, least=1)
    vocabulary: int = what(700, least=300)
    seed: int = what(0, least=0)
    """Seed of weights and pretraining text; fixed, so that every run of a sweep shares one base."""
    steps: int = what(850, least=1)
    batch: int = what(32, least=1)
    """Lines per pretraining step."""
    muon_lr: float = what(0.01, least=0.0)
    adamw_lr: float = what(0.004, least=0.0)
    checkpoint_seconds: float = how(30.0, least=0.0)
