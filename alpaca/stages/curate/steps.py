"""The steps of curation: each leaves fewer examples, or the same with something changed or known of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from alpaca import evalsets
from alpaca.config import CurateConfig
from alpaca.curation import contamination, damage, selection
from alpaca.curation.dedup import RougeIndex
from alpaca.curation.filters import dropped_by, filters_named, normalise_no_input
from alpaca.curation.novelty import Neighbours, nearest_other, neighbours
from alpaca.records import Example
from alpaca.stages.curate.card import Contamination, Damage, Details, Moderation
from alpaca.stages.curate.orders import ORDERS
from alpaca.stages.pool import Pool, Step
from alpaca.stages.verdicts import Moderated

if TYPE_CHECKING:
    from alpaca.artifacts import Context


WITHIN = 2000
"""Examples of a larger data set whose nearest other one is looked up for the card."""


@dataclass(kw_only=True, slots=True)
class Curation:
    """The examples on their way through the steps, in pool order up to the selection, and what was found out."""

    config: CurateConfig
    context: Context
    pool: Pool
    ratings: dict[str, float | None] | None = None
    """The judge's scores by id, where there is a judge."""
    examples: list[Example] = field(init=False)
    steps: list[Step] = field(init=False)
    passed: list[str] = field(default_factory=list)
    """Names of what every example that is left has passed."""
    repaired: int = 0
    contamination: dict[str, contamination.Found] = field(default_factory=dict)
    moderation: Moderation | None = None
    neighbours: dict[str, Neighbours] = field(default_factory=dict)
    """By id, of all examples that were left after de-duplication; only where data.neighbours asks for them."""
    known_texts: list[str] = field(default_factory=list)
    """The texts that neighbours' indices mean: the seeds, then the instructions of `known_ids`."""
    known_ids: list[str] = field(default_factory=list)
    choice: list[Example] = field(default_factory=list)
    """What selection chose from."""
    damaged: dict[str, list[str]] = field(default_factory=dict)
    """By id, the names of the damage done."""
    damage: dict[str, Damage] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.examples, self.steps = self.pool.examples, list(self.pool.steps)

    def repair(self) -> None:
        """ "No input" spellings become the empty input."""
        if self.config.data.normalise_no_input:
            before = self.examples
            self.examples = [replace(example, input=normalise_no_input(example.input)) for example in before]
            self.repaired = sum(old.input != new.input for old, new in zip(before, self.examples, strict=True))

    def filter(self) -> None:
        """Each filter in the given order; an example counts for the first that drops it."""
        data = self.config.data
        filters = filters_named(data.filters, language=data.language)
        reasons = [dropped_by(example, filters) for example in self.examples]
        counts = Counter(reasons)
        left = len(self.examples)
        for each in filters:
            left -= counts[each.name]
            self.steps.append(Step(name=each.name, dropped=counts[each.name], kept=left))
        self.passed += [each.name for each in filters]
        self.examples = [example for example, reason in zip(self.examples, reasons, strict=True) if reason is None]

    def decontaminate(self) -> None:
        """Against every evaluation; an example counts for the first that it is too close to."""
        data = self.config.data
        if not self.config.evaluations or (data.decontaminate_lcs is None and data.decontaminate_ngram is None):
            return
        self.contamination = contamination.find(
            self.examples,
            {name: evalsets.load(source) for name, source in self.config.evaluations.items()},
            lcs=data.decontaminate_lcs,
            ngram=data.decontaminate_ngram,
            tell=lambda done, total: self.context.progress(done, total, "decontamination"),
        )
        self.passed.append("decontamination")
        for name, found in self.contamination.items():
            self._drop(found.examples(), f"decontamination: {name}")

    def moderate(self, verdicts: dict[str, Moderated]) -> None:
        """Drops what was flagged; categories are counted among the examples that came so far."""
        flagged = [example.id for example in self.examples if verdicts[example.id].flagged]
        categories = Counter(category for id in flagged for category in verdicts[id].categories)
        self.moderation = Moderation(
            model=self.config.data.moderation_model, flagged=len(flagged), categories=dict(sorted(categories.items()))
        )
        self.passed.append("moderation")
        self._drop(flagged, "moderation")

    def deduplicate(self) -> None:
        """Exact ROUGE-L against the seeds and every example kept before, in pool order."""
        if self.config.data.dedup_threshold is None:
            return
        index = RougeIndex(self.config.data.dedup_threshold)
        for text in self.pool.seed_instructions:
            index.add(text)
        doubles = set[str]()
        for number, example in enumerate(self.examples):
            kept = number - len(doubles)
            self.context.progress(number, len(self.examples), f"{kept:,} kept")
            if index.offer(example.instruction) is not None:
                doubles.add(example.id)
        self.passed.append("deduplication")
        self._drop(doubles, "deduplication")

    def find_neighbours(self) -> None:
        """Of each example among the seeds and the examples kept before it, as in stanford_alpaca's regen.json."""
        if self.config.data.neighbours:
            self.context.progress(0, 1, "nearest neighbours")
            texts = [example.instruction for example in self.examples]
            self.known_ids = [example.id for example in self.examples]
            self.known_texts = [*self.pool.seed_instructions, *texts]
            found = neighbours(texts, self.pool.seed_instructions)
            self.neighbours = dict(zip(self.known_ids, found, strict=True))

    def select(self) -> None:
        """The first `data.size` of the order that `data.selection` means."""
        data, self.choice = self.config.data, self.examples
        order = ORDERS[data.selection](self)
        if data.input_share is not None:
            order = selection.with_share(order, [bool(each.input) for each in self.examples], data.input_share)
        size = len(order) if data.size is None else data.size
        chosen = [self.examples[index] for index in selection.take(order, size)]
        self.steps.append(Step(name="selection", dropped=len(self.examples) - len(chosen), kept=len(chosen)))
        self.examples = chosen

    def do_damage(self) -> None:
        """Last, on the selected examples, kind after kind; the card counts what was really changed."""
        ids, pool = [example.id for example in self.examples], {each.id: each.output for each in self.choice}
        for kind, harm in damage.KINDS.items():
            share = float(getattr(self.config.data, kind))
            if share > 0:
                outputs = [example.output for example in self.examples]
                selected = damage.Selected(ids=ids, outputs=outputs, pool=pool)
                done = harm(selected, share, self.config.seeds.data)
                self.examples = [
                    replace(example, output=output) for example, output in zip(self.examples, done.outputs, strict=True)
                ]
                for index in done.changed:
                    self.damaged.setdefault(ids[index], []).append(kind)
                self.damage[kind] = Damage(share=share, examples=len(done.changed))

    def tell_provenance(self) -> None:
        """Each example's record of where it comes from grows by what curation knows of it."""
        self.examples = [
            replace(example, provenance={**example.provenance, **self._known_of(example.id)})
            for example in self.examples
        ]

    def details(self) -> Details:
        """What the card is told besides steps and examples."""
        methods = (contamination.LCS, contamination.NGRAM)
        found = {
            name: Contamination(
                items=one.items,
                unsearchable=one.unsearchable,
                exact=len(one.examples(contamination.EXACT)),
                dropped=len(one.examples()),
                **{method: len(one.examples(method)) if method in one.hits else None for method in methods},
            )
            for name, one in self.contamination.items()
        }
        nearest = [self.neighbours[example.id].scores for example in self.examples] if self.neighbours else []
        within = self._nearest_within()
        return Details(
            seed=self.config.seeds.data,
            language=self.config.data.language,
            selection=self._selection(),
            nearest_within=within,
            nearest_sampled=len(within),
            nearest=[scores[0] for scores in nearest if scores] if self.neighbours else None,
            ratings=None if self.ratings is None else [self.ratings[example.id] for example in self.pool.examples],
            contamination=found,
            moderation=self.moderation,
            damage=self.damage,
        )

    def _nearest_within(self) -> list[float]:
        """Of the selected examples: a property of the data set, whatever pool and order it came from."""
        self.context.progress(0, 1, "nearest within the data set")
        ids = [example.id for example in self.examples]
        sample = selection.hash_order(ids, self.config.seeds.data)[:WITHIN]
        return nearest_other([example.instruction for example in self.examples], sample)

    def _drop(self, ids: Iterable[str], name: str) -> None:
        gone, before = frozenset(ids), len(self.examples)
        self.examples = [example for example in self.examples if example.id not in gone]
        self.steps.append(Step(name=name, dropped=before - len(self.examples), kept=len(self.examples)))

    def _known_of(self, id: str) -> dict[str, Any]:
        known: dict[str, Any] = {"filters": self.passed}
        if id in self.neighbours and self.neighbours[id].indices:
            seeds, found = len(self.pool.seed_instructions), self.neighbours[id]
            index = found.indices[0]
            name = f"seed_{index}" if index < seeds else self.known_ids[index - seeds]
            known["nearest"] = {"id": name, "score": found.scores[0]}
        if self.ratings is not None:
            known["judge_score"] = self.ratings[id]
        if id in self.damaged:
            known["damage"] = self.damaged[id]
        return known

    def _selection(self) -> dict[str, Any]:
        data = self.config.data
        least = {"judge_least": data.judge_least} if data.selection == "judge_score" else {}
        share = {} if data.input_share is None else {"input_share": data.input_share}
        return {"rule": data.selection, "size": data.size, **least, **share}
