"""A submission: what is missing, in as few job arrays as it takes, each recorded before and after its sbatch.

One submission at a time in an output folder (a claim on outputs/queue). What another submission has queued or is
running is followed, not queued twice; a job whose number was never recorded is found by its name.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from alpaca import artifacts, claims, jobs
from alpaca.claims import Claim
from alpaca.config import SlurmCluster
from alpaca.dispatch.local import FOREIGN, worker_variables
from alpaca.dispatch.slurm import control, queue, records, resources, states
from alpaca.dispatch.slurm.graph import Array, Place, Stage, arrays, units
from alpaca.dispatch.slurm.queue import Queue
from alpaca.dispatch.slurm.records import FOLDER, Draft, Element, Index, Queued, Submission
from alpaca.dispatch.slurm.resources import Asked
from alpaca.errors import AlpacaError, ArtifactError, UserError

WORKER, PAGE = "alpaca.dispatch.slurm.worker", "alpaca.dispatch.slurm.page"
USUAL_MAX = 1001  # SLURM's default of MaxArraySize; the largest index is one less
UNCLEAR = ("timed out", "unable to contact", "could not make sense")
"""Words, in lower case, after which a job may be queued or not."""


class UnclearError(UserError):
    """sbatch failed in a way that leaves open whether the job is queued."""


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What a submission did."""

    queued: list[tuple[Queued, Array | None, str]] = field(default_factory=list)
    """Arrays with their dependency; None: the page."""
    adopted: int = 0
    """Stages that other jobs do."""
    finished: int = 0
    again: list[str] = field(default_factory=list)
    """Stages that failed before."""
    calls: int = 0
    """Of sbatch."""


@contextmanager
def alone(output: Path, tell: Callable[[str], None]) -> Iterator[Claim]:
    """Holds the queue of an output folder: two commands at once would both queue the same stage."""
    folder = output / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    claim = claims.acquire(
        folder,
        finished=lambda: False,
        on_wait=lambda owner: tell(f"waiting for process {owner.get('pid')} on {owner.get('host')}, which is queueing"),
    )
    if claim is None:  # `finished` never says so
        raise UserError(what="the queue cannot be held", where=str(folder), remedy="try again")
    try:
        yield claim
    finally:
        try:
            claim.check()
        except ArtifactError:  # taken for dead: the queue is another's now
            claim.release()
        else:
            claim.remove()


def submit(
    draft: Draft,
    output: Path,
    claim: Claim,
    *,
    wanted: Callable[[Stage], bool] = lambda _: True,
    freeze: Callable[[Collection[str]], None] = lambda _: None,
) -> Outcome:
    """Queues what is neither finished nor on its way, and the page after all of it.

    claim: of `alone`. wanted: of the unfinished stages, those to queue. freeze: is given the labels of stages that are
    on their way, and freezes the others. Raises UserError with sbatch's words, or with the names of parents that failed
    meanwhile; what was queued until then stays queued.
    """
    index = records.index(output)
    seen = states.observe(index, output, fresh=True, history=False)
    if seen.error:
        raise UserError(what=seen.error, where="cluster", remedy=f"{seen.remedy}; nothing was queued")
    living = states.live(index, seen, draft.stages, output)
    freeze(living.keys())
    unfinished = [stage for stage in draft.stages if not artifacts.is_finished(output / stage.label)]
    todo = _closed([stage for stage in unfinished if stage.label not in living and wanted(stage)], living, output)
    outcome = Outcome(adopted=len(living), finished=len(draft.stages) - len(unfinished))
    outcome.again = [stage.label for stage in todo if artifacts.stopped(output / stage.label)]
    if todo or (living and not _page_waits(index, seen, draft, living)):
        control.discard_doomed(index, seen, {stage.label for stage in todo})
        newest = index.submissions[-1].created if index.submissions else ""
        _queue(records.create(output, draft, newest), todo, living, outcome, claim)
    return outcome


def _page_waits(index: Index, seen: Queue, draft: Draft, living: dict[str, Element]) -> bool:
    """Whether a page of just these stages is queued behind all that are on their way.

    A launch that makes no page is recorded all the same, so that `status` finds it; once is enough.
    """
    if not draft.page:
        open_ones = (item for item in index.submissions if not item.cancelled)
        return any((item.name, item.stages) == (draft.name, draft.stages) for item in open_ones)
    element = index.latest.get(draft.page)
    job = seen.jobs.get(element.job) if element and element.job else None
    if element is None or job is None or not job.live:
        return False
    same = records.load(element.array.submission).report.get("labels") == draft.report.get("labels")
    return same and {str(item.array.job) for item in living.values()} <= set(element.array.follows)


def _closed(todo: list[Stage], living: dict[str, Element], output: Path) -> list[Stage]:
    """Those whose parents are finished, on their way or among them: the others would only be refused."""
    kept: dict[str, Stage] = {}
    for stage in todo:
        if all(
            parent in kept or parent in living or artifacts.is_finished(output / parent) for parent in stage.parents
        ):
            kept[stage.label] = stage
    return list(kept.values())


def _queue(
    submission: Submission, todo: list[Stage], living: dict[str, Element], outcome: Outcome, claim: Claim
) -> None:
    live = {label: Place(array=str(item.array.job), index=item.index) for label, item in living.items()}
    try:
        numbers = _queue_stages(submission, todo, live, outcome, claim) if todo else {}
        claim.check()
        _queue_page(submission, {*numbers.values(), *(place.array for place in live.values())}, outcome)
    except (AlpacaError, OSError, KeyboardInterrupt, SystemExit) as error:
        raise _half_way(error, submission, outcome, todo) from error
    finally:
        queue.forget(submission.output)


def _queue_stages(
    submission: Submission, todo: list[Stage], live: dict[str, Place], outcome: Outcome, claim: Claim
) -> dict[str, str]:
    """All arrays, each behind those it follows; "#3" -> the number that SLURM gave the third."""

    def ask(stage: Stage) -> Asked:
        return resources.asked(submission.cluster, stage.kind, stage.processes)

    found = arrays(units(todo, submission.cluster.together, live), live, ask, _max_size(submission))
    for stage in todo:  # what it said before is history
        (submission.output / stage.label / artifacts.STOPPED).unlink(missing_ok=True)
    numbers: dict[str, str] = {}
    for array in found:
        _refuse_failed(submission, array)
        claim.check()
        record = records.write_array(submission, array)
        dependency = _dependency(array, numbers)
        _call(submission, record, array.asked, dependency, WORKER, outcome)
        numbers[f"#{array.number}"] = str(record.job)
        outcome.queued.append((record, array, dependency))
    return numbers


def _half_way(error: BaseException, submission: Submission, outcome: Outcome, todo: list[Stage]) -> BaseException:
    """What is queued already, added to what stopped the rest; a submission without a job leaves no trace."""
    count = sum(len(labels) for record, _, _ in outcome.queued for labels in record.units.values())
    told = "nothing was queued"
    if outcome.queued:
        told = (
            f"{count} of {len(todo)} stages are queued in {len(outcome.queued)} job array(s) and go on; the same "
            f"command queues the rest, `python -m alpaca cancel {submission.name}` takes them back"
        )
    elif not any(records.arrays_of(submission.folder)):
        shutil.rmtree(submission.folder, ignore_errors=True)
    known = (jobs.explain(error, submission.folder) or error) if isinstance(error, OSError) else error
    if isinstance(known, UserError):
        return type(known)(what=known.what, where=known.where, remedy=f"{known.remedy}\n    {told}")
    if isinstance(known, OSError):
        return known
    print(f"interrupted: {told}", file=sys.stderr, flush=True)
    return SystemExit(130) if isinstance(known, KeyboardInterrupt) else known


def _refuse_failed(submission: Submission, array: Array) -> None:
    """A parent that failed while its children were being queued would leave them waiting for ever."""
    parents = {label for unit in array.units.values() for label in unit.parents}
    failed = sorted(label for label in parents if artifacts.stopped(submission.output / label))
    if failed:
        raise UserError(
            what=f"failed while the stages after them were being queued: {', '.join(failed)}",
            where="cluster",
            remedy=f"see `python -m alpaca logs {failed[0]}`",
        )


def _max_size(submission: Submission) -> int:
    limit = submission.cluster.max_array_size
    if limit is not None:
        return limit
    told = queue.setting("MaxArraySize") or ""
    return max(1, (int(told) if told.isdecimal() else USUAL_MAX) - 1)


def _dependency(array: Array, numbers: dict[str, str]) -> str:
    parts = [f"aftercorr:{numbers.get(name, name)}" for name in array.corresponding]
    if array.after:
        after = [f"{numbers.get(place.array, place.array)}_{place.index}" for place in array.after]
        parts.append("afterok:" + ":".join(after))
    return ",".join(parts)


def _queue_page(submission: Submission, after: set[str], outcome: Outcome) -> None:
    """The report follows everything, whatever becomes of it."""
    if not submission.page:
        return
    asked = resources.asked(submission.cluster, "report")
    record = records.write_units(submission, len(outcome.queued) + 1, "report", {0: [submission.page]}, after)
    dependency = "afterany:" + ":".join(sorted(after)) if after else ""
    _call(submission, record, asked, dependency, PAGE, outcome)
    outcome.queued.append((record, None, dependency))


def _call(
    submission: Submission, record: Queued, asked: Asked, dependency: str, module: str, outcome: Outcome
) -> None:
    """One sbatch. The record is removed again when sbatch refused; it stays when nobody knows what became of it."""
    outcome.calls += 1
    argument = submission.folder if module == PAGE else record.path
    command = f"{module} {shlex.quote(str(argument))}"
    try:
        records.write_job(record, sbatch(submission, record, asked, dependency, command))
    except UnclearError:
        raise
    except UserError:
        record.path.unlink(missing_ok=True)
        raise
    except OSError as error:  # of the batch script, or of the number that SLURM gave
        raise UnclearError(
            what=f"the jobs of kind {record.kind} may be queued or not: {error}",
            where=str(submission.folder),
            remedy="mend that, then give the same command again: it finds them by their name, or queues them",
        ) from error


def sbatch(submission: Submission, record: Queued, asked: Asked, dependency: str, command: str) -> str:
    """Queues one array by submitit's executor; returns its number. command: what Python runs, after -m."""
    # Its own configuration of logging would close the handlers of every other library in this process.
    os.environ.setdefault("SUBMITIT_LOG_LEVEL", "NOCONFIG")
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    cluster, code = submission.cluster, submission.output / submission.code
    with _place_of_nobody():
        try:
            executor = SlurmExecutor(folder=submission.folder / "logs")
            executor.update_parameters(
                **resources.parameters(asked, cluster, record.kind),
                job_name=record.name,
                setup=[*asked.setup, *_environment(code, cluster.threads)],
                additional_parameters=_additional(submission, record, asked, dependency),
            )
            executor.parameters["map_count"] = len(record.units)  # logs named by element
            python = cluster.python or shlex.quote(sys.executable)
            return str(executor._submit_command(f"{python} -u -m {command}").job_id)
        except (FailedJobError, FailedSubmissionError) as error:
            raise _refusal(_words(error), cluster, record.kind, asked) from error
        except (RuntimeError, FileNotFoundError) as error:
            raise UserError(
                what=f"no sbatch and srun on this machine's path ({error})",
                where="cluster",
                remedy="run this on a login node of the cluster, or choose cluster=local",
            ) from error


@contextmanager
def _place_of_nobody() -> Iterator[None]:
    """A submission from inside a job must not inherit that job's place; SBATCH_* of a login shell are wanted."""
    from submitit.helpers import clean_env

    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    conf = os.environ.get("SLURM_CONF")
    with clean_env():
        os.environ.update({"SLURM_CONF": conf} if conf else {})
        yield


def _refusal(words: str, cluster: SlurmCluster, kind: str, asked: Asked) -> UserError:
    if not any(told in words.lower() for told in UNCLEAR):
        return resources.refusal(words, cluster, kind, asked)
    return UnclearError(
        what=f"sbatch did not say whether it took the jobs of kind {kind}: {words}",
        where="cluster",
        remedy="give the same command again when SLURM answers: it finds them by their name, or queues them",
    )


def _words(error: Exception) -> str:
    """sbatch's own lines of submitit's error."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in lines if line.startswith("sbatch:")]
    return "; ".join(told) or " ".join(lines)[-500:]


def _additional(submission: Submission, record: Queued, asked: Asked, dependency: str) -> dict[str, object]:
    found: dict[str, object] = {
        "array": f"{ranges(sorted(record.units))}%{submission.cluster.parallel}",
        "requeue": True,
        **resources.options(asked),
    }
    if dependency:
        kill = submission.cluster.kill_on_invalid_dep
        found |= {"dependency": dependency, **({"kill-on-invalid-dep": "yes"} if kill else {})}
    return found


def _environment(code: Path, threads: int) -> list[str]:
    lines = [f"export {name}={shlex.quote(value)}" for name, value in worker_variables(code, threads).items()]
    return [f"unset {' '.join(FOREIGN)}", f"cd {shlex.quote(str(code))}", *lines]


def ranges(numbers: list[int]) -> str:
    """"0-3,7" of 0, 1, 2, 3, 7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)


