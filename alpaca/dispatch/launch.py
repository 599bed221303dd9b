"""One command from points to page: plan, table, freeze, run, report."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from alpaca import artifacts, canonical, checks
from alpaca.config import ReportConfig, SlurmCluster
from alpaca.dispatch import asking, bill, briefing, display, garbage, local, pages, prepare, tracked
from alpaca.dispatch.prepare import Session
from alpaca.dispatch.slurm import enqueue, resources
from alpaca.errors import ArtifactError, ConfigurationErrors
from alpaca.runtime import provenance
from alpaca.sweep import Sweep


def launch(sweep: Sweep, overrides: Sequence[str]) -> int:
    """Runs what is missing of the sweep and makes its page; the exit status (1 when a stage failed)."""
    out = display.console()
    graph = sweep.plan
    first = sweep.runs[0]
    session = prepare.open_session(graph, first, sweep.name if sweep.is_sweep else None)
    session.points = tracked.points(session, sweep)
    if first.dry_run:
        return _show_plan(sweep, session, out)
    on_slurm = isinstance(first.cluster, SlurmCluster)
    lacks = {
        problem.text(): problem
        for run, roles in zip(sweep.runs, graph.runs, strict=True)
        for problem in (
            *checks.machine_lacks(run, _unfinished(session, roles), planned=on_slurm),
            *resources.problems(run),
        )
    }
    problems = [*lacks.values(), *bill.over_limit(session, sweep.spend)]
    if problems:
        raise ConfigurationErrors(problems)
    for text in (*_beyond_bounds(session), *without_effect(sweep, session)):
        out.print(f"note: {text}", markup=False)
    with garbage.lock(session.output, alone=False):
        prepare.verify_cached(session)
        found = page_record(sweep, session, overrides)
        if first.until != "sample":  # a raw pool gets no page
            pages.write_plan(session.output, found)
    pages.write_hypothesis(session.output, found)
    freeze = functools.partial(prepare.freeze_stages, session)
    if on_slurm and not _is_done(session):
        status = enqueue.enqueue(session, found, freeze, out)
        if status or not _is_done(session):  # done: the last stage of another sweep ended while this waited its turn
            return status
    freeze()
    outcome = _run_stages(session, out)
    prepare.verify_cached(session)
    if not _has_results(session):
        return _conclude(session, outcome, None, out)
    page, made = _report(found, session, outcome, out)
    if made:
        pages.forget_plan(session.output, found)
    return _conclude(session, outcome, page if made else None, out)


def _beyond_bounds(session: Session) -> list[str]:
    """Stages whose forecast is above a bound: they will stop there."""
    found = []
    for key, node in session.plan.nodes.items():
        asked = asking.asked(node, session.plan, session.output)
        beyond = asked.beyond() if asked is not None and not artifacts.is_finished(session.folders[key]) else None
        if beyond:
            found.append(f"{session.label(key)}: {beyond}: it stops there and keeps everything")
    return found


def without_effect(sweep: Sweep, session: Session) -> list[str]:
    """Settings that ask for something of stages that are all finished, without it, and will not run again."""
    wishes = zip(sweep.runs, session.plan.runs, strict=True)
    keys = {key for run, roles in wishes if run.train.profile for key in roles.values()}
    folders = [session.folders[key] for key in sorted(keys) if session.plan.nodes[key].stage == "train"]
    if not all(artifacts.is_finished(folder) for folder in folders):
        return []
    shown = [str(folder) for folder in folders if not (folder / "profile").is_dir()]
    if not shown:
        return []
    more = f" (and {len(shown) - 1} more)" if len(shown) > 1 else ""
    return [
        "train.profile=true has no effect: the training is finished; for a profile, give another train.budget, or "
        f"delete {shown[0]}{more}"
    ]


def _is_done(session: Session) -> bool:
    return all(artifacts.is_finished(folder) for folder in session.folders.values())


def _unfinished(session: Session, roles: dict[str, str]) -> set[str]:
    """The kinds of stages that a run still has to do."""
    return _kinds(session, (key for key in roles.values() if not artifacts.is_finished(session.folders[key])))


def _kinds(session: Session, keys: Iterable[str]) -> set[str]:
    return {session.plan.nodes[key].stage for key in keys}


def _has_results(session: Session) -> bool:
    """Whether there is anything to show: something of the last kind of stage is done, and it is no raw pool."""
    last = [key for key, node in session.plan.nodes.items() if node.stage == session.run.until != "sample"]
    return any(artifacts.is_finished(session.folders[key]) for key in last)


def _show_plan(sweep: Sweep, session: Session, out: Console) -> int:
    """Starts nothing; status 2 where the launch would be refused for its limit."""
    if sweep.is_sweep:
        out.print(briefing.table(sweep, session), soft_wrap=False)
    states = briefing.states(session)
    out.print(display.plan_table(session, states))
    out.print(f"{len(sweep.runs)} run(s), {briefing.counted(states)}; nothing was started")
    told = [text for text in notes(sweep) if text not in sweep.dragged]  # which stand above already
    for text in (*told, *without_effect(sweep, session)):
        out.print(f"note: {text}", markup=False)
    warnings = {
        problem.text()
        for run, roles in zip(sweep.runs, session.plan.runs, strict=True)
        for problem in (
            *checks.machine_lacks(run, _kinds(session, roles.values()), planned=True),
            *resources.problems(run),
        )
    }
    try:
        prepare.verify_cached(session)
    except ArtifactError as error:
        warnings.add(error.text())
    warnings.update(_beyond_bounds(session))
    found = bill.bill(session)
    for text in found.told():
        out.print(f"cost: {text}", markup=False)
    beyond = [problem.text() for problem in found.beyond(sweep.spend)]
    for text in sorted({*warnings, *beyond}):
        out.print(f"warning: {text}", markup=False)
    return 2 if beyond else 0


def _run_stages(session: Session, out: Console) -> local.Outcome:
    """Everything that is not finished; what is, is counted."""
    missing = [key for key, folder in session.folders.items() if not artifacts.is_finished(folder)]
    cached = len(session.folders) - len(missing)
    if cached:
        out.print(f"{cached} of {len(session.folders)} stages found finished" + ("" if missing else "; nothing to do"))
    tasks = [
        local.Task(
            key=key,
            label=session.label(key),
            folder=session.folders[key],
            parents=set(session.plan.nodes[key].parents.values()) & set(missing),
        )
        for key in missing
    ]
    with display.Display(out, len(tasks)) as shown:
        return local.run(tasks, session.run.cluster, shown)


def _report(found: dict[str, Any], session: Session, outcome: local.Outcome, out: Console) -> tuple[Path, bool]:
    """The page, made anew when anything it shows changed; True when it stands. found: its record."""
    folder = pages.freeze(session.output, found)
    if folder is None:
        return session.output / found["folder"] / "report.html", True
    key = artifacts.read_json(folder / "stage.json")["key"]
    task = local.Task(key=key, label=found["folder"], folder=folder, parents=set())
    with display.Display(out, 1) as shown:
        made = local.run([task], session.run.cluster, shown)
    outcome.failed.update(made.failed)
    return folder / "report.html", not made.failed


def page_record(sweep: Sweep, session: Session, overrides: Sequence[str]) -> dict[str, Any]:
    """What the page of this launch is made from (`pages.record`)."""
    labels = {key: session.label(key) for key in session.folders}
    config = ReportConfig(
        title=sweep.name if sweep.is_sweep else session.points[0].name,
        question=sweep.question,
        command=command(overrides, sweep.is_sweep),
        metric=sweep.metric,
        factors=sweep.factors,
        controls=sweep.controls,
        notes=notes(sweep),
        points=list(session.points),
        hypothesis=sweep.hypothesis,
        directions=sweep.directions,
        baseline=sweep.baseline,
        bundles=sweep.bundles,
        analysis=sweep.analysis,
    )
    folder = _page_folder(sweep, session).relative_to(session.output).as_posix()
    extra = {**prepare.recorded(session), "tracking": tracked.page(session, sweep)}
    return pages.record(config, sweep.name, folder, list(labels.values()), provenance.code_digest(), extra)


def _page_folder(sweep: Sweep, session: Session) -> Path:
    if sweep.is_sweep:
        return session.output / "sweeps" / sweep.name
    roles = session.plan.runs[0]
    last = "".join(key for role, key in sorted(roles.items()) if role.partition(":")[0] == session.run.until)
    digest = canonical.key_of("run", 1, {"scores": last}, {})[: artifacts.KEY_DIGITS]
    name = "data" if session.run.until == "curate" else session.run.model.name
    return session.output / "runs" / f"{name}-{digest}"


def command(overrides: Sequence[str], is_sweep: bool) -> str:
    """The command that makes the page again."""
    flag = ["-m"] if (is_sweep and "-m" in sys.argv) or "--multirun" in sys.argv else []
    shown = [text for text in overrides if not text.startswith("output_dir=")]  # a place of one machine
    return shlex.join(["python", "launch.py", *flag, *shown])


def notes(sweep: Sweep) -> list[str]:
    """What the choices brought along, for the plan and the page."""
    run = sweep.runs[0]
    if run.until in ("sample", "curate"):
        return [f"ends with the stage {run.until} (until={run.until}): nothing is trained", *sweep.dragged]
    chosen = (
        f"{run.model.name}: {run.train.budget}, global batch {run.train.global_batch}, {run.optimizer.kind} at "
        f"{run.optimizer.lr:g} ({run.optimizer.schedule}), precision {run.precision.compute}, "
        f"data from {run.data_gen.kind}, maximum length {run.train.max_length}"
    )
    found = [f"settings of the first point: {chosen}" if sweep.is_sweep else f"settings: {chosen}"]
    found += sweep.dragged
    found += dict.fromkeys(text for each in sweep.runs for text in checks.cautions(each))
    if sweep.promoted:
        found.append(
            "execution settings made factors of this sweep, and so part of its keys: "
            + ", ".join(sorted(sweep.promoted))
        )
    return found


def _conclude(session: Session, outcome: local.Outcome, page: Path | None, out: Console) -> int:
    """The last lines: what failed and why, and where the result is."""
    for key, text in outcome.failed.items():
        out.print(
            f"failed: {session.label(key) if key in session.folders else 'report'}: {text}",
            markup=False,
            soft_wrap=True,
        )
    if outcome.failed or outcome.skipped:
        out.print(
            f"{len(outcome.failed)} stage(s) failed, {len(outcome.skipped)} skipped; "
            "the same command tries them again and keeps what is done",
            markup=False,
        )
    if page is not None:
        shown = page.relative_to(Path.cwd()) if page.is_relative_to(Path.cwd()) else page
        out.print(f"report: {shown}", markup=False, soft_wrap=True)
    return 1 if outcome.failed or outcome.skipped else 0
