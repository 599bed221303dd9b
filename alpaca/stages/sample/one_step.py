"""Alpaca's loop: ask the teacher for lists of tasks until exactly enough of them pass the released rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from alpaca.artifacts import write_json
from alpaca.config import AlpacaDataGen, SampleConfig
from alpaca.curation.parsing import ParsedTask
from alpaca.errors import UserError
from alpaca.records import SeedTask, write_jsonl
from alpaca.stages.sample.judge import Judge
from alpaca.stages.sample.plan import RequestPlan
from alpaca.teachers.asking import REFUSED, Desk, Phase, Planned, Verdict, at_desk

if TYPE_CHECKING:
    from alpaca.artifacts import Context

RESPONSES, POOL = "responses.jsonl", "pool.json"
PAYLOAD_FIELDS = ("finish_reason", "model", "prompt_tokens", "completion_tokens")


def run_alpaca(config: SampleConfig, context: Context) -> None:
    """Fills raw.jsonl, then writes responses.jsonl and pool.json.

    Raises UserError when the teacher repeats itself, answers nonsense or a bound of `spend` is reached, TeacherError
    when it cannot answer; all answers stay in raw.jsonl and the next start goes on from them.
    """
    options, teacher = config.data_gen, config.teacher
    if not isinstance(options, AlpacaDataGen) or teacher is None:
        raise needs_teacher(config)
    phase = TaskLists(RequestPlan(options))

    async def flow(desk: Desk) -> None:
        await desk.fill(phase, options)

    at_desk(teacher, config.spend, context, flow)
    write_jsonl(context.folder / RESPONSES, phase.responses())
    # Curation de-duplicates against the seeds too and reads nothing but this folder.
    seeds = [task.instruction for task in phase.plan.seed_tasks]
    write_json(context.folder / POOL, {**phase.judge_.summary(), "seed_instructions": seeds})
    judge = phase.judge_
    context.log(f"{judge.kept:,} of {judge.candidates:,} tasks kept, from {judge.requests:,} requests")


def needs_teacher(config: SampleConfig) -> UserError:
    """The error for a way that asks, given none to ask."""
    return UserError(
        what=f"data_gen={config.data_gen.kind} needs a teacher", where="teacher", remedy="as teacher=programmatic"
    )


class TaskLists(Phase):
    """The phase (`alpaca.teachers.asking.Phase`) of Alpaca's requests: judged answers and the tasks kept of them."""

    def __init__(self, plan: RequestPlan) -> None:
        self.plan = plan
        self.judge_ = Judge([task.instruction for task in plan.seed_tasks], plan.options.form, self.target)
        self._answered: list[tuple[Planned, dict[str, Any]]] = []
        self._machine: list[SeedTask] = []
        self._kept_after: list[int] = []  # by judged request: kept tasks up to and with it

    @property
    def target(self) -> int:
        return self.plan.options.num_examples

    @property
    def first_yield(self) -> float:
        return float(self.plan.options.tasks_per_request - self.plan.options.seeds_per_prompt)

    def planned(self, index: int) -> Planned | None:
        """Needs the answers of all requests `machine_lag` before it where machine-written tasks are shown."""
        if not self.plan.machine_tasks:
            return self.plan.request(index)
        last = index - self.plan.options.machine_lag
        if last >= len(self._kept_after):
            return None
        return self.plan.request(index, self._machine[: self._kept_after[last]] if last >= 0 else ())

    def judge(self, planned: Planned, row: dict[str, Any]) -> Verdict:
        before = self.judge_.duplicates
        candidates, kept = self.judge_.judge(
            row["text"], row["finish_reason"], planned.about["first_number"], planned.about["last_number"]
        )
        if row["finish_reason"] != REFUSED:
            self._answered.append((planned, row))
        if self.plan.machine_tasks:
            self._machine += [_shown(planned, task) for task in kept]
            self._kept_after.append(len(self._machine))
        return Verdict(candidates=candidates, kept=len(kept), duplicates=self.judge_.duplicates - before)

    def responses(self) -> Iterator[dict[str, Any]]:
        """The rows of responses.jsonl: the judged requests in order, without what depends on this execution.

        The last list ends with the task that filled the pool: it holds exactly as many as were wanted.
        """
        for index, (planned, row) in enumerate(self._answered, 1):
            record = planned.record
            if index == len(self._answered) and self.judge_.last_number is not None:
                record = {**record, "last_number": self.judge_.last_number}
            fields = {name: row[name] for name in PAYLOAD_FIELDS}
            yield {"id": row["id"], "request": record, "text": row["text"], **fields}


def _shown(planned: Planned, task: ParsedTask) -> SeedTask:
    return SeedTask(
        id=f"{planned.request.id}_{task.number:02d}",
        name="",
        instruction=task.instruction,
        input=task.input,
        output=task.output,
        is_classification=False,
    )
