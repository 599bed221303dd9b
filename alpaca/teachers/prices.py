"""What a teacher's tokens cost, by a dated table; what is not in the table has no price, and no money is made up.

The table says what a provider lists. Taxes, discounts, cache writes and rounding by the provider are not in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from alpaca.config import Teacher
from alpaca.errors import UserError

TABLE = Path(__file__).with_name("prices.yaml")
KEY = "spend.prices"
OPENAI_HOST = "api.openai.com"
MILLION = 1e6
STANDARD = (None, "", "default", "standard", "auto")
"""Service tiers at the listed price; "auto" only asks, and what was used is in the answer."""
FORM = "date, source, and hosts: {HOST: {models: {MODEL: {input: USD, output: USD}}}}, per million tokens"
FREE = "free"
FREE_KINDS = ("programmatic", "replay", FREE)
"""Kinds of teachers that cost nothing: a program of this project, answers paid for before, moderation endpoints."""
OWN_KINDS = ("local", "vllm")
"""Kinds that run on the user's own machine: their price is not known here."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Price:
    """US dollars per million tokens; `tiers` multiplies them by the service tier that the provider says it used."""

    input: float
    output: float
    cached_input: float
    date: str
    tiers: dict[str, float] = field(default_factory=dict)
    tier: str | None = None
    """The tier of every answer where it is known before (batch)."""

    def usd(self, row: dict[str, Any]) -> float | None:
        """The cost of one answer or failed try with its token counts; reasoning tokens are completion tokens.

        None where it was served at a tier that the table does not list.
        """
        cached = min(row.get("cached_tokens") or 0, row["prompt_tokens"])
        full = (row["prompt_tokens"] - cached) * self.input + cached * self.cached_input
        both: float = full + row["completion_tokens"] * self.output
        # Looking at a batch teacher goes to the endpoint that answers at once, at the full price.
        factor = 1.0 if row.get("online") else self.factor(row.get("service_tier"))
        return None if factor is None else both / MILLION * factor

    def factor(self, tier: str | None) -> float | None:
        """What a tier multiplies the standard price by; that of every answer where it is known before (batch)."""
        tier = self.tier or tier
        return 1.0 if tier in STANDARD else self.tiers.get(str(tier))


@dataclass(kw_only=True, slots=True, frozen=True)
class GpuPrices:
    """US dollars of one GPU for an hour, by the names of `alpaca.footprint.gpus`."""

    date: str
    usd_per_hour: dict[str, float]


def gpu_prices(path: str | None = None) -> GpuPrices:
    """The prices of GPU-hours. path: as for `price_of`; a file without `gpus` leaves those of this project."""
    found = load_table(path).get("gpus") or load_table(None)["gpus"]
    hours = {name: float(value) for name, value in found["usd_per_hour"].items()}
    return GpuPrices(date=str(found["date"]), usd_per_hour=hours)


def price_of(teacher: Teacher, path: str | None = None) -> Price | None:
    """The price of this teacher's tokens, None where the table does not know it.

    path: a YAML file in the form of prices.yaml; None: that one. Raises UserError for a file that does not fit.
    """
    table = load_table(path)
    if teacher.kind in FREE_KINDS:
        return Price(input=0.0, output=0.0, cached_input=0.0, date=str(table["date"]))
    model = getattr(teacher, "model", None)
    if teacher.kind in OWN_KINDS or not isinstance(model, str):
        return None
    host = table["hosts"].get(_host(teacher))
    found = _entry(host["models"], model) if host else None
    if host is None or found is None:
        return None
    tier = "batch" if teacher.kind == "openai_batch" else None
    return Price(
        input=float(found["input"]),
        output=float(found["output"]),
        cached_input=float(found.get("cached_input", found["input"])),
        date=str(table["date"]),
        tiers={name: float(share) for name, share in (host.get("tiers") or {}).items()},
        tier=tier,
    )


def load_table(path: str | None) -> dict[str, Any]:
    """The checked table. Raises one UserError with every problem of the file."""
    place = Path(path).expanduser() if path else TABLE
    try:
        table = yaml.safe_load(place.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(what=f"cannot read {place}: {reason}", where=KEY, remedy=f"a YAML file with {FORM}") from error
    if problems := _problems(table):
        raise UserError(what="\n    ".join(problems), where=f"{KEY}={place}", remedy=FORM)
    return dict(table)


def _problems(table: Any) -> list[str]:
    if not isinstance(table, dict):
        return [f"a YAML {type(table).__name__}, expected a map"]
    problems = [f'"{name}" is missing' for name in ("date", "source", "hosts") if name not in table]
    problems += _gpu_problems(table.get("gpus"))
    hosts = table.get("hosts", {})
    if not isinstance(hosts, dict):
        return [*problems, '"hosts" is no map']
    for host, entry in hosts.items():
        models = entry.get("models") if isinstance(entry, dict) else None
        if not isinstance(models, dict):
            problems.append(f'"hosts.{host}.models" is no map')
            continue
        given = entry.get("tiers")
        if given is not None and not isinstance(given, dict):
            problems.append(f'"hosts.{host}.tiers" is no map')
            continue
        tiers = {f"tiers.{name}": value for name, value in (given or {}).items()}
        numbers = {f"models.{model}.{name}": value for model, prices in models.items()
                   for name, value in _numbers(prices)}  # fmt: skip
        problems += [
            f'"hosts.{host}.{name}" is {value!r}, expected a number from 0'
            for name, value in {**tiers, **numbers}.items()
            if not _is_price(value)
        ]
    return problems


def _gpu_problems(gpus: Any) -> list[str]:
    if gpus is None:
        return []
    hours = gpus.get("usd_per_hour") if isinstance(gpus, dict) else None
    if not isinstance(hours, dict) or "date" not in gpus:
        return ['"gpus" needs date and usd_per_hour: {NAME: USD}']
    return [
        f'"gpus.usd_per_hour.{name}" is {value!r}, expected a number from 0'
        for name, value in hours.items()
        if not _is_price(value)
    ]


def _numbers(prices: Any) -> list[tuple[str, Any]]:
    if not isinstance(prices, dict):
        return [("input", prices)]
    return [(name, prices.get(name)) for name in ("input", "output")] + [
        (name, value) for name, value in prices.items() if name not in ("input", "output")
    ]


def _is_price(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _host(teacher: Teacher) -> str:
    base_url = getattr(teacher, "base_url", None)
    return (urlsplit(base_url).hostname or "") if base_url else OPENAI_HOST


def _entry(models: dict[str, Any], model: str) -> Any:
    """The model itself, else the stem that it is a dated version of ("gpt-4o-mini-2024-07-18")."""
    if model in models:
        return models[model]
    stem, _, version = model.partition("-20")
    return models.get(stem) if version[:2].isdigit() else None
