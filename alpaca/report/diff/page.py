"""A comparison as blocks: the same ones are shown in a terminal and as HTML."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from alpaca.report import wording
from alpaca.report.blocks import Block, Facts, Table, Text
from alpaca.report.diff.compare import Comparison, Runs
from alpaca.report.diff.payload import Answers, Data, Loss, Metric
from alpaca.report.diff.settings import ABSENT, Code, Leaf

_MOST_ROWS = 14
_MOST_CHARACTERS = 400
_BARS = "▁▂▃▄▅▆▇█"
_SPARKS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Arms:
    """Texts side by side under a heading; `arms`: label and text of each."""

    title: str
    note: str
    arms: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Patch:
    """A unified difference of one file."""

    name: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Curves:
    """Two loss curves: a figure in HTML, lines of bars in a terminal."""

    loss: Loss


Part = Block | Arms | Patch | Curves


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A heading and what stands under it."""

    title: str
    parts: Sequence[Part]


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """The whole comparison; `lead`: what it says in one sentence."""

    title: str
    lead: str
    sections: Sequence[Section]
    fine: str


def page(found: Comparison, *, patches: bool) -> Page:
    """patches: with the text of every changed source file."""
    sections = [Section(title="What is compared", parts=_heads(found))]
    if len(found.runs) > 1 or any(found.alone):
        sections.append(Section(title="Points", parts=list(_points(found))))
    detailed = next((runs for runs in found.runs if not runs.is_equal), found.runs[0] if found.runs else None)
    equal: list[str] = []
    if detailed:
        for title, make in _SECTIONS.items():
            parts = list(make(detailed)) if title != "Code" else list(_code(detailed, patches=patches))
            equal += [] if parts else [title.lower()]
            sections += [Section(title=title, parts=parts)] if parts else []
    fine = f"Without a difference, or nothing to compare: {', '.join(equal)}." if equal else ""
    return Page(title=" against ".join(found.labels), lead=lead(found), sections=sections, fine=fine)


def lead(found: Comparison) -> str:
    """Whether they are equal, and where they part."""
    if found.is_equal:
        unlike = [name for name, there in _beside(found).items() if there]
        more = f" (made with other {wording.listing(unlike)})" if unlike else ""
        return f"Equal: the same settings, and the same bytes in every stage{more}."
    if found.same_runs:
        return f"Different in {wording.listing(list(_of_pages(found)))}, not in the runs."
    if not found.runs:
        return "Different: no point of one has the factors of a point of the other."
    differing = [runs for runs in found.runs if not runs.is_equal]
    if found.by_level:
        return (
            f"Different: no seed is in both, so the first runs of {wording.plural(len(found.runs), 'level')} are "
            f"compared, of which {len(differing)} differ."
        )
    if len(found.runs) > 1:
        return f"Different: {len(differing)} of {wording.plural(len(found.runs), 'shared point')} differ."
    return f"Different. {_parting(differing[0])}" if differing else "Different in the points of the pages."


def _of_pages(found: Comparison) -> Iterator[str]:
    if found.page:
        yield "what the pages ask"
    if found.files:
        yield "the pages' own files"
    if found.unread:
        yield "whether the pages stand"


def _beside(found: Comparison) -> dict[str, bool]:
    return {
        "code": any(runs.code for runs in found.runs),
        "packages": any(runs.packages for runs in found.runs),
        "machines": any(runs.machines for runs in found.runs),
        "execution settings": any(runs.execution for runs in found.runs),
    }


def _parting(runs: Runs) -> str:
    """ "They part at curate (data.size); train adds optimizer.lr; respond and score inherit it"."""
    if not runs.origins:
        unsure = [f"{row.role}: {row.state}" for row in runs.stages if row.state not in ("same", _INHERITED)]
        return f"{'; '.join(unsure)}." if unsure else "They were made from other folders of equal settings."
    first, *others = [_named(runs, role) for role in runs.origins]
    added = f"; further differences begin at {wording.listing(others)}" if others else ""
    heirs = [row.role for row in runs.stages if row.state == _INHERITED]
    behind = f"; {wording.listing(heirs)} {'differs' if len(heirs) == 1 else 'differ'} because of that" if heirs else ""
    return f"The chains part at {first}{added}{behind}."


_INHERITED = "differs by its parents"


def _named(runs: Runs, role: str) -> str:
    keys = [leaf.key for leaf in runs.identity if role in leaf.roles]
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return f"{role} ({', '.join(keys[:3])}{more})" if keys else f"{role} (other content)"


def _heads(found: Comparison) -> list[Part]:
    parts: list[Part] = [Facts(rows=[("A", found.labels[0]), ("B", found.labels[1])])]
    if found.page:
        parts.append(_leaves("Question", found.page))
    if found.files:
        more = f" and {len(found.files) - _MOST_ROWS} more" if len(found.files) > _MOST_ROWS else ""
        parts.append(Text(text=f"Files of the pages that differ: {', '.join(found.files[:_MOST_ROWS])}{more}."))
    parts += [Text(text=f"The files of the pages are not compared: {why}.") for why in found.unread]
    return parts


def _points(found: Comparison) -> Iterator[Part]:
    for label, names in zip(found.labels, found.alone, strict=True):
        if names:
            yield Text(text=f"Only in {label}: {'; '.join(names[:6])}{' …' if len(names) > 6 else ''}.")
    if len(found.runs) < 2:
        return
    rows = [
        (runs.name, "equal" if runs.is_equal else runs.origins[0] if runs.origins else "?", *_first(runs.metrics))
        for runs in found.runs
    ]
    head = ("point", "parts at", "metric", "A", "B", "difference", "")
    yield Table(label="Points", head=head, rows=rows[:_MOST_ROWS], right=frozenset({3, 4, 5}))
    hidden = f" {len(rows) - _MOST_ROWS} further points are not shown." if len(rows) > _MOST_ROWS else ""
    yield Text(text=f"Below: the first point that differs.{hidden}", kind="fine")


def _first(metrics: Sequence[Metric]) -> tuple[str, ...]:
    return _measured(metrics[0]) if metrics else ("",) * 5


def _stages(runs: Runs) -> Iterator[Part]:
    rows = [(row.role, row.state, *(name.partition("/")[2] or ABSENT for name in row.folders)) for row in runs.stages]
    yield Table(label="Stages", head=("stage", "state", "A", "B"), rows=rows)
    for damage in dict.fromkeys(text for row in runs.stages for text in row.damage):
        yield Text(text=f"Not compared: {damage}.")


def _configuration(runs: Runs) -> Iterator[Part]:
    if runs.identity:
        yield _leaves("Settings that can change the result", runs.identity)
    if runs.execution:
        yield Text(text="Execution, which must not change a result:", kind="fine")
        yield _leaves("Execution settings", runs.execution)


def _leaves(label: str, leaves: Sequence[Leaf]) -> Table:
    rows = [(leaf.key, *(_value(value) for value in leaf.values), ", ".join(leaf.roles)) for leaf in leaves]
    more = [(f"and {len(rows) - _MOST_ROWS} more (--json has all)", "", "", "")] if len(rows) > _MOST_ROWS else []
    return Table(label=label, head=("key", "A", "B", "stage"), rows=[*rows[:_MOST_ROWS], *more])


def _value(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else wording.value(value)
    return wording.shortened(text, 120)


def _code(runs: Runs, *, patches: bool) -> Iterator[Part]:
    for code in runs.code:
        yield Text(text=_snapshots(code))
        if code.files:
            rows = [(file.name, file.change, f"+{file.plus}", f"−{file.minus}") for file in code.files[:_MOST_ROWS]]
            yield Table(label="Files", head=("file", "", "lines", ""), rows=rows, right=frozenset({2, 3}))
            yield Text(text=_counted(code, patches), kind="fine")
        for file in code.files if patches else []:
            yield Patch(name=f"{file.name} (+{file.plus} −{file.minus})", text=file.patch)


def _snapshots(code: Code) -> str:
    names = [
        f"{name.rpartition('/')[2] or 'not recorded'}{f' (commit {commit})' if commit else ''}"
        for name, commit in zip(code.snapshots, code.commits, strict=True)
    ]
    gone = f" No longer there, so not compared: {', '.join(name or 'unnamed' for name in code.missing)}."
    return f"{', '.join(code.roles)}: {' against '.join(names)}.{gone if code.missing else ''}"


def _counted(code: Code, patches: bool) -> str:
    plus, minus = sum(file.plus for file in code.files), sum(file.minus for file in code.files)
    hidden = f", {len(code.files) - _MOST_ROWS} of them not listed" if len(code.files) > _MOST_ROWS else ""
    told = f"{wording.plural(len(code.files), 'file')}{hidden}, lines: +{plus} −{minus}."
    return told if patches else f"{told} --code shows them."


def _packages(runs: Runs) -> Iterator[Part]:
    if runs.packages:
        yield _leaves("Packages", runs.packages)
    if runs.machines:
        yield _leaves("Machines", runs.machines)


def _data(runs: Runs) -> Iterator[Part]:
    if runs.data is None or runs.data.is_equal:
        return
    yield Text(text=_data_counts(runs.data))
    for name, rows in (("only in A", runs.data.removed), ("only in B", runs.data.added)):
        for row in rows:
            yield Arms(title=_instruction(row), note="", arms=[(name, _short(row.get("output")))])
    for before, after in runs.data.changed:
        arms = [("A", _short(before.get("output"))), ("B", _short(after.get("output")))]
        renamed = "" if _instruction(before) == _instruction(after) else f"; in B: {_instruction(after)}"
        yield Arms(title=_instruction(before), note=f"changed{renamed}", arms=arms)


def _data_counts(data: Data) -> str:
    if data.reordered:
        return f"The same {data.same:,} examples in another order."
    counts = ", ".join(f"{count:,} {name}" for name, count in data.counts.items())
    return f"{data.sizes[0]:,} examples against {data.sizes[1]:,}: {data.same:,} the same, {counts} (from A to B)."


def _instruction(row: dict[str, Any]) -> str:
    return _short("\n".join(part for part in (row.get("instruction"), row.get("input")) if part))


def _short(text: Any) -> str:
    return wording.shortened(str(text or ""), _MOST_CHARACTERS)


def _losses(runs: Runs) -> Iterator[Part]:
    curves = [loss for loss in runs.losses if not loss.is_equal]
    if not curves:
        return
    head = ("stage", "final A", "final B", "differ from step", "largest difference")
    yield Table(label="Losses", head=head, rows=[_loss(loss) for loss in curves], right=frozenset({1, 2, 3, 4}))
    for loss in curves:
        yield Curves(loss=loss)


def _loss(loss: Loss) -> tuple[str, ...]:
    ends = [f"{values[-1]:.4f} at {steps[-1]:,}" for values, steps in zip(loss.losses, loss.steps, strict=True)]
    if loss.first is None or loss.largest is None:
        return (loss.role, *ends, "equal where both have one" if loss.largest else "none in common", ABSENT)
    return (loss.role, *ends, f"{loss.first:,}", f"{loss.largest[0]:.3g} at {loss.largest[1]:,}")


def sparks(loss: Loss) -> tuple[str, str]:
    """Both curves as lines of bars, on one scale."""
    low, high = min(map(min, loss.losses)), max(map(max, loss.losses))
    most = max(map(len, loss.losses))
    one, other = (spark(values, low, high, most) for values in loss.losses)
    return one, other


def spark(values: Sequence[float], low: float, high: float, most: int) -> str:
    """A curve as one line of bars; most: the steps of the longer of two curves, which has the whole width."""
    count = max(1, min(len(values), round(_SPARKS * len(values) / most)))
    shown = [values[(at * (len(values) - 1)) // max(1, count - 1)] for at in range(count)]
    span = high - low or 1.0
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in shown)


def _metrics(runs: Runs) -> Iterator[Part]:
    if not runs.metrics or runs.is_equal:
        return
    head = ("metric", "A", "B", "difference", "p", "items up : down", "")
    rows = [_tested(one) for one in runs.metrics]
    yield Table(label="Metrics", head=head, rows=rows, right=frozenset({1, 2, 3, 4, 5}))
    methods = " and ".join(dict.fromkeys(one.test.method for one in runs.metrics if one.test))
    yield Text(
        text="Differences B minus A over the items that both answered, with their paired 95 % interval, which covers "
        f"these items, not what another seed would give{f'; p, uncorrected, by {methods}' if methods else ''}.",
        kind="fine",
    )


def _tested(metric: Metric) -> tuple[str, ...]:
    *told, verdict = _measured(metric)
    p_value = wording.p_value(metric.test.p_value) if metric.test else ABSENT
    return (*told, p_value, f"{metric.moved[0]} : {metric.moved[1]}", verdict)


def _measured(metric: Metric) -> tuple[str, ...]:
    means = [f"{mean:.3f}" for mean in metric.means]
    if metric.change is None:
        return (metric.name, *means, ABSENT, metric.verdict)
    bounds = f"{wording.signed(metric.change)} ({wording.bounds(metric.change)}), n = {metric.change.n:,}"
    odd = "" if set(metric.items) == {metric.change.n} else f"; {metric.items[0]:,} and {metric.items[1]:,} items"
    return (metric.name, *means, bounds, metric.verdict + odd)


def _answers(runs: Runs) -> Iterator[Part]:
    for answers in (answers for answers in runs.answers if answers.differing):
        yield Text(text=_answered(answers))
        for (before, after), scores in zip(answers.pairs, answers.scores, strict=True):
            arms = [("A", _short(before["response"])), ("B", _short(after["response"]))]
            reference = [("reference", _short(before["reference"]))] if before.get("reference") else []
            yield Arms(title=_instruction(before), note=scores, arms=[*reference, *arms])


def _answered(answers: Answers) -> str:
    name = answers.role.partition(":")[2]
    return f"{answers.differing:,} of {answers.shared:,} answers on {name} differ; those that differ most:"


_SECTIONS: dict[str, Callable[[Runs], Iterator[Part]]] = {
    "Stages": _stages,
    "Configuration": _configuration,
    "Code": lambda runs: _code(runs, patches=False),
    "Packages": _packages,
    "Data": _data,
    "Loss": _losses,
    "Metrics": _metrics,
    "Answers": _answers,
}
