"""`reproduce`: what made an artifact, and whether it comes out the same once more, by itself or with all above it."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from alpaca.cli import terminal, view
from alpaca.cli.place import place
from alpaca.dispatch import display, reproduce
from alpaca.dispatch.reproduce import Recipe, Verdict
from alpaca.errors import UserError

_MAIN = ("torch", "transformers", "tokenizers", "numpy", "scipy", "safetensors", "peft", "openai", "rouge-score")
_MOST_FILES = 30


def run(given: argparse.Namespace) -> int:
    """0 where the second making of everything is bit-equal, 1 otherwise."""
    out = display.console()
    where = place(given.output_dir, given.artifact, given.command)
    recipes = reproduce.chain(*where) if given.chain else [reproduce.recipe(*where)]
    _tell_recipe(recipes[-1], given.packages, out)
    if len(recipes) > 1:
        out.print(f"made again, in this order: {', '.join(made.label for made in recipes)}", markup=False)
    if given.dry_run:
        out.print("nothing was run (--dry-run)")
        return 0
    paid = [made.label for made in recipes if made.paid]
    if paid and not given.paid:
        raise UserError(
            what=f"{'their' if len(paid) > 1 else 'its'} answers would be asked and paid for again",
            where=", ".join(paid),
            remedy="--paid does so, within the frozen bounds of spend; --dry-run only tells how",
        )
    return _again(recipes, keep=given.keep, out=out)


def _again(recipes: Sequence[Recipe], *, keep: bool, out: Console) -> int:
    """The folder of the second making stays where it differs or failed, so that one can look."""
    with reproduce.prepared(recipes) as fresh:
        try:
            with display.Display(out, len(recipes)) as shown:
                for made in recipes:
                    reproduce.make(made, fresh, shown)
            found = {made.label: reproduce.verdict(made, fresh) for made in recipes}
        except KeyboardInterrupt:
            reproduce.remove(fresh)
            raise
    for label, verdict in found.items():
        _tell_verdict(verdict, label if len(recipes) > 1 else "", out)
    differing = [label for label, verdict in found.items() if not verdict.bit_equal]
    if not differing and not keep:
        reproduce.remove(fresh)
    else:
        _tell_kept(recipes[-1].output, fresh, differing or [recipes[-1].label], out)
    if len(recipes) > 1:
        out.print(f"{len(recipes) - len(differing)} of {len(recipes)} stages are bit-equal")
    return 1 if differing else 0


def _tell_kept(output: Path, fresh: Path, labels: Sequence[str], out: Console) -> None:
    """And how to compare the first stage that differs: those after it were made from another parent."""
    here, there = (view.short(each / labels[0]) for each in (output, fresh))
    out.print(f"kept: {there}", markup=False, soft_wrap=True)
    both = shlex.join(["python", "-m", "alpaca", "diff", here, there])
    out.print(f"compare: {both}", markup=False, soft_wrap=True)


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


def _tell_verdict(found: Verdict, label: str, out: Console) -> None:
    """label: of a stage of several; then files are listed only where one differs."""
    counted, name = [file for file in found.files if file.counts], f"{label}: " if label else ""
    if not (label and found.bit_equal):
        _tell_files(found, out)
    for text in _distances(found):
        out.print(text, markup=False)
    if found.bit_equal:
        out.print(f"{name}[green]bit-equal[/]: all {len(counted)} files of the result have the same sha256")
    else:
        told = f"{len(found.differing)} of {len(counted)} files of the result differ"
        out.print(f"{name}[red]not bit-equal[/]: {told}")


def _tell_files(found: Verdict, out: Console) -> None:
    told = [file for file in found.files if file.state != reproduce.EQUAL] or found.files
    rows = [[file.name, file.state, "" if file.counts else "differs in every execution"] for file in told]
    out.print(terminal.table(["file", "", ""], rows[:_MOST_FILES]))
    if len(rows) > _MOST_FILES:
        out.print(f"and {len(rows) - _MOST_FILES} more")


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
