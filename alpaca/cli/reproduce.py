"""`reproduce`: what made an artifact, and whether it comes out the same once more."""

from __future__ import annotations

import argparse
import shlex

from rich.console import Console

from alpaca.cli import terminal, view
from alpaca.cli.place import place
from alpaca.dispatch import display, reproduce
from alpaca.dispatch.reproduce import Recipe, Verdict
from alpaca.errors import UserError

_MAIN = ("torch", "transformers", "tokenizers", "numpy", "scipy", "safetensors", "peft", "openai", "rouge-score")
_MOST_FILES = 30


def run(given: argparse.Namespace) -> int:
    """0 where the second making is bit-equal, 1 otherwise."""
    out = display.console()
    made = reproduce.recipe(*place(given.output_dir, given.artifact, given.command))
    _tell_recipe(made, given.packages, out)
    if given.dry_run:
        out.print("nothing was run (--dry-run)")
        return 0
    if made.paid and not given.paid:
        raise UserError(
            what="its answers would be asked and paid for again",
            where=made.label,
            remedy="--paid does so, within the frozen bounds of spend; --dry-run only tells how",
        )
    return _again(made, keep=given.keep, out=out)


def _again(made: Recipe, *, keep: bool, out: Console) -> int:
    """The folder of the second making stays where it differs or failed, so that one can look."""
    folder = reproduce.prepare(made)
    try:
        with display.Display(out, 1) as shown:
            reproduce.make(made, folder, shown)
        found = reproduce.verdict(made, folder)
    except KeyboardInterrupt:
        reproduce.remove(folder)
        raise
    _tell_verdict(found, out)
    if found.bit_equal and not keep:
        reproduce.remove(folder)
    else:
        shown_at = view.short(folder)
        out.print(f"kept: {shown_at}", markup=False, soft_wrap=True)
        both = shlex.join(["python", "-m", "alpaca", "diff", view.short(made.folder), shown_at])
        out.print(f"compare: {both}", markup=False, soft_wrap=True)
    return 0 if found.bit_equal else 1


def _tell_recipe(made: Recipe, every: bool, out: Console) -> None:
    """The way back: checkout, difference, packages, command."""
    git = made.record.get("git") or {}
    rows = [["command", made.command], ["commit", str(git.get("sha") or "not recorded")]]
    if git.get("dirty"):
        told = f"git apply {view.short(made.patch)}" if made.patch else "was not kept"
        rows.append(["uncommitted", told])
    gone = "removed: the code that is here now runs instead"
    rows.append(["snapshot", view.short(made.code) if made.code else gone])
    rows.append(["parents", ", ".join(dict.fromkeys(made.frozen["parents"].values())) or "none"])
    rows.append(["packages", _packages(made, every)])
    out.print(terminal.table(["", ""], rows, titled=False))
    _tell_differing("packages here differ", reproduce.differing_packages(made), out)
    _tell_differing("this machine differs", reproduce.differing_machine(made), out)


def _packages(made: Recipe, every: bool) -> str:
    known = made.record.get("packages") or {}
    shown = [f"{name}=={version}" for name, version in known.items() if every or name in _MAIN]
    more = len(known) - len(shown)
    return " ".join(shown) + (f" and {more} more (--packages lists them)" if more else "") or "not recorded"


def _tell_differing(title: str, found: dict[str, tuple[str, str]], out: Console) -> None:
    if found:
        out.print(f"{title}:", style="yellow")
        out.print(terminal.table(["", "then", "now"], [[name, *pair] for name, pair in found.items()]))


def _tell_verdict(found: Verdict, out: Console) -> None:
    told = [file for file in found.files if file.state != reproduce.EQUAL] or found.files
    rows = [[file.name, file.state, "" if file.counts else "differs in every execution"] for file in told]
    out.print(terminal.table(["file", "", ""], rows[:_MOST_FILES]))
    if len(rows) > _MOST_FILES:
        out.print(f"and {len(rows) - _MOST_FILES} more")
    for text in _distances(found):
        out.print(text, markup=False)
    counted = [file for file in found.files if file.counts]
    if found.bit_equal:
        out.print(f"[green]bit-equal[/]: all {len(counted)} files of the result have the same sha256")
    else:
        out.print(f"[red]not bit-equal[/]: {len(found.differing)} of {len(counted)} files of the result differ")


def _distances(found: Verdict) -> list[str]:
    """How far off the numbers are."""
    told = []
    if found.loss is not None and found.loss.first is not None and found.loss.largest is not None:
        gap, step = found.loss.largest
        told.append(f"loss: differs from step {found.loss.first} on, by at most {gap:.3g} (at step {step})")
    elif found.loss is not None:
        told.append("loss: equal at every step that both have")
    for name, (then, now) in found.scores.items():
        told.append(f"{name}: {then:.6g} then, {now:.6g} now ({now - then:+.3g})")
    return told
