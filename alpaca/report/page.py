"""The page: gathers results, draws, fills the template, writes the files beside it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from alpaca.config import ReportConfig
from alpaca.report import (
    answer,
    answers,
    cards,
    curve,
    datacard,
    drawings,
    effects,
    export,
    families,
    html,
    ledger,
    markdown,
    sensitivity,
    summary,
    wording,
)
from alpaca.report.answers import History
from alpaca.report.blocks import Document
from alpaca.report.effects import Findings
from alpaca.report.failures import Failure, failures
from alpaca.report.folders import Folder, Library
from alpaca.report.foresight import Compared, compared, events
from alpaca.report.material import Material
from alpaca.report.results import Outcome, Results, gather
from alpaca.report.samples import choose
from alpaca.report.sensitivity import Other
from alpaca.report.sentence import sentence

if TYPE_CHECKING:
    from alpaca.artifacts import Context


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """One row of the table below the loss curves."""

    runs: str
    folder: Folder
    training: dict[str, Any]
    truncated: str
    compared: list[Compared]
    """Forecast and measurement."""
    events: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What a page is about: the runs, what they scored and what failed, and their data sets.

    `title` and `sentence` head it; `history`: what its folder said before.
    """

    config: ReportConfig
    results: Results
    findings: Findings
    others: list[Other]
    """The comparisons by other methods, of the metric that decides."""
    data_sets: list[Material]
    failures: list[Failure]
    title: str
    sentence: str
    history: History

    @property
    def is_data_only(self) -> bool:
        """Whether no evaluation was asked for and nothing was trained, so that the data sets are the whole result."""
        roles = {role.partition(":")[0] for point in self.config.points for role in point.stages}
        return "curate" in roles and not roles & {"train", "score"}


def write_report(config: ReportConfig, context: Context) -> None:
    """Writes the page, the files beside it and the cards below data/; each appears whole or not at all."""
    library = Library(parents=context.parents, home=context.folder)
    subject = _subject(config, library)
    context.check()
    history = _history(subject, library)
    history = replace(history, foretold=_foretold(history, library.of_points(config.points)))
    subject = replace(subject, history=history)
    html.write(context.folder / "results.json", json.dumps(_as_json(subject), indent=1, ensure_ascii=False) + "\n")
    html.write(context.folder / "results.csv", export.long_form(subject.results))
    html.write(context.folder / "report.md", markdown.written(_summary(subject)))
    cards.write_pages(subject.data_sets, context.folder, context.parents)
    html.write(context.folder / "report.html", render(subject, library))
    context.log(subject.sentence)


def _history(subject: Subject, library: Library) -> History:
    """Adds what the page says now to what it said before, where it is about a question."""
    config, results = subject.config, subject.results
    if not (config.question or config.factors):
        return subject.history
    done = sum(not outcome.missing for outcome in results.outcomes)
    last = ledger.keep(library.of_points(config.points)).ended
    answered = bool(results.measured)
    if answered or config.hypothesis:
        row = answers.Row(
            recorded=max(last, *_recorded(library, config)) if answered else last,
            hypothesis=config.hypothesis,
            answer=subject.sentence if answered else "",
            runs=f"{done:,} of {wording.plural(len(results.outcomes), 'run')}",
            design=_design(config),
        )
        answers.add(library.home, row)
    return replace(answers.history(library.home, subject.sentence), design=_design(config))


def _recorded(library: Library, config: ReportConfig) -> list[str]:
    """When the hypothesis that holds now was written down: an answer under it cannot be older."""
    rows = answers.read(library.home)
    return [row.recorded for row in rows if not row.answer and row.hypothesis == config.hypothesis][-1:] or [""]


def _design(config: ReportConfig) -> str:
    """What must be equal for an earlier answer to be one to the same question; more seeds and values change nothing."""
    settings = [text for text in config.notes if text.startswith("settings")]
    asked = [config.metric, list(config.directions), config.factors, config.controls, settings, config.baseline]
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _subject(config: ReportConfig, library: Library) -> Subject:
    results = gather(config, library)
    data_sets = cards.materials(results.outcomes, question=config.question, command=config.command)
    findings = effects.find(config, results)
    main = findings.contrasts.get(results.main)
    made = Subject(
        config=config,
        results=results,
        findings=findings,
        others=sensitivity.other_methods(main) if main else [],
        data_sets=data_sets,
        failures=failures(results.outcomes, library),
        title=config.title,
        sentence=sentence(results, findings),
        history=History(hypothesis=None, changed=[], earlier=[]),
    )
    if not made.is_data_only:
        return made
    planned = {outcome.point.stages["curate"] for outcome in results.outcomes}
    alone = len(data_sets) == 1 and not config.factors
    return replace(
        made,
        title=f"Data set {data_sets[0].name}" if alone else f"{config.title}: data sets",
        sentence=cards.in_one_sentence(data_sets, len(planned) - len(data_sets)),
    )


def render(subject: Subject, library: Library) -> str:
    """The page's HTML; every text of a run is escaped by the template."""
    config, results, data_sets = subject.config, subject.results, subject.data_sets
    findings = subject.findings
    folders = library.of_points(config.points)
    book = ledger.keep(folders)
    # One data set and nothing else: its card is the page.
    alone = subject.is_data_only and len(data_sets) == 1
    of_data = datacard.caveats(data_sets[0]) if alone else []
    return html.rendered(
        "page.html",
        config=config,
        title=subject.title,
        data_only=subject.is_data_only,
        whole=datacard.document(data_sets[0], alone=False) if alone else None,
        results=results,
        sentence=subject.sentence,
        method=answer.method(results),
        contrasts=findings.contrasts,
        interaction=findings.interaction,
        difference_method={metric: answer.difference_method(one) for metric, one in findings.contrasts.items()},
        others=sensitivity.table(findings.contrasts[results.main], subject.others) if subject.others else None,
        other_note=sensitivity.NOTE,
        caveats=[*of_data, *answer.caveats(results, findings, folders), *_shrunk(subject)],
        main=drawings.main_drawing(config, results, findings),
        laws=[(label, curve.told(law, results)) for label, law in findings.laws.items()],
        samples=choose(results),
        trainings=_trainings(results.outcomes),
        losses=drawings.loss_drawing(results),
        pretraining=drawings.pretraining_drawing(folders),
        cards=cards.data_cards(results.outcomes),
        compared=cards.comparison(cards.compared(data_sets, results.outcomes)),
        ledger=book,
        cost=ledger.by_stage(book),
        money=ledger.money(book),
        failures=subject.failures,
        history=subject.history,
        foretold=subject.history.foretold,
        by_family=families.table(results),
        families_left_out=families.left_out(results),
        seeds=answer.seeds_in_words(results),
        cut=_cut_responses(results.outcomes),
    )


def _foretold(history: History, folders: list[Folder]) -> str:
    """When the hypothesis was written down, and whether that was before there was a result."""
    if history.hypothesis is None:
        return ""
    scored = [folder.document("provenance.json").get("ended") for folder in folders if folder.stage == "score"]
    first = min((str(ended) for ended in scored if ended), default="")
    recorded = history.hypothesis.recorded
    when = wording.moment(recorded)
    if history.answered_before:
        return f"written down {when or 'later'}, after an earlier answer of this question"
    if not first or (recorded and recorded < first):
        return f"written down {when or 'before'}, before the first result"
    return f"found with the results of {when}: nothing shows that it was written down before them"


def _shrunk(subject: Subject) -> list[str]:
    done = sum(not outcome.missing for outcome in subject.results.outcomes)
    before = subject.history.fewer(done)
    told = f"An earlier answer of this page rests on {before:,} runs, this one on {done:,}: fewer are asked for now."
    return [told] if before else []


def _summary(subject: Subject) -> Document:
    return summary.document(
        subject.config, subject.results, subject.findings, subject.failures, subject.history, subject.sentence
    )


def _trainings(outcomes: list[Outcome]) -> list[Training]:
    rows: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.folders.get("train") and outcome.folders["train"].document("training.json"):
            rows.setdefault(outcome.folders["train"].name, []).append(outcome)
    return [_training(group) for group in rows.values()]


def _training(group: list[Outcome]) -> Training:
    folder = group[0].folders["train"]
    training = folder.document("training.json")
    return Training(
        runs="; ".join(dict.fromkeys(outcome.label for outcome in group)),
        folder=folder,
        training=training,
        truncated=wording.percent(training.get("truncated_examples", 0), training.get("examples", 0)),
        compared=compared(folder),
        events=events(training),
    )


def _cut_responses(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    """For each evaluation the share of all responses that reached the token limit."""
    folders = {
        folder.name: (role.partition(":")[2], folder)
        for outcome in outcomes
        for role, folder in outcome.folders.items()
        if role.startswith("respond:")
    }
    ends: dict[str, list[bool]] = {}
    for name, folder in folders.values():
        ends.setdefault(name, []).extend(row.get("finish_reason") == "length" for row in folder.rows("responses.jsonl"))
    return [(name, f"{wording.percent(sum(cut), len(cut))} of {len(cut):,}") for name, cut in ends.items() if cut]


def _as_json(subject: Subject) -> dict[str, Any]:
    results, findings = subject.results, subject.findings
    return {
        "title": subject.config.title,
        "question": subject.config.question,
        "metric": results.main,
        "answer": subject.sentence,
        "hypothesis": subject.history.hypothesis.hypothesis if subject.history.hypothesis else "",
        "hypothesis_recorded": subject.history.foretold,
        "earlier_answers": [asdict(row) for row in subject.history.earlier],
        "data_sets": [asdict(one) for one in cards.compared(subject.data_sets, results.outcomes)],
        "levels": export.levels(results),
        "differences": export.differences(results, findings),
        "effects": export.effects(findings, results.main, subject.others),
        "points": export.points(results.outcomes),
    }
