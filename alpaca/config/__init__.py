"""The typed configuration: one dataclass per group, each leaf marked identity, execution or content.

identity: it can change the result and enters the keys of the stages that read it.
execution: it must not change the result (where, how parallel, how often saved).
content: the path of an input file; the path is execution, the sha256 of what it holds is identity.

`slots` makes an undeclared key an error instead of a stray attribute; the classes are not frozen because OmegaConf
cannot compose frozen schemas. Variants of a group that live beside their owner (teachers) derive from the bases here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from alpaca.config.cluster import Cluster, Resources, SlurmCluster, StageResources
from alpaca.config.data_gen import (
    AlpacaDataGen,
    AskedDataGen,
    DataGen,
    EvolveDataGen,
    MixtureDataGen,
    ReanswerDataGen,
    ReleasedDataGen,
    SelfInstructDataGen,
    Weighted,
)
from alpaca.config.marks import CONTENT, EXECUTION, IDENTITY, MISSING, content, how, what
from alpaca.config.models import HubModel, Model, TinyModel
from alpaca.config.training import SGD, Adafactor, AdamW, AdamW8bit, Fsdp, Muon, Optimizer, Precision, Train

# Passed on from the modules of this package, so that everybody imports from here.
__all__ = [
    "CONTENT",
    "EXECUTION",
    "IDENTITY",
    "MISSING",
    "SGD",
    "Adafactor",
    "AdamW",
    "AdamW8bit",
    "AlpacaDataGen",
    "AskedDataGen",
    "Cluster",
    "DataGen",
    "EvolveDataGen",
    "Fsdp",
    "HubModel",
    "MixtureDataGen",
    "Model",
    "Muon",
    "Optimizer",
    "Precision",
    "ReanswerDataGen",
    "ReleasedDataGen",
    "Resources",
    "SelfInstructDataGen",
    "SlurmCluster",
    "StageResources",
    "TinyModel",
    "Train",
    "Weighted",
    "content",
    "how",
    "what",
]


@dataclass(kw_only=True, slots=True)
class Seeds:
    """`seed` sets all three; each can be overridden alone."""

    data: int = what(0, least=0)
    """Pool of the teacher's requests and order of the subsets."""
    init: int = what(0, least=0)
    """New weights (added token rows, adapters)."""
    order: int = what(0, least=0)
    """Order of the training examples."""


@dataclass(kw_only=True, slots=True)
class Spend:
    """What a sampling stage may use up before it stops cleanly, keeping everything."""

    max_tokens: int | None = how(None, least=1)
    """Prompt + completion tokens of one stage that asks a teacher; null: no bound."""
    max_usd: float | None = how(None, least=0.0)
    """US dollars of one stage that asks a teacher, by `prices`; null: no bound."""
    prices: str | None = how(None, is_path=True)
    """YAML of dated prices in the form of alpaca/teachers/prices.yaml; null: that one."""


@dataclass(kw_only=True, slots=True)
class Teacher:
    """Base of the teachers; `kind` names the variant."""

    kind: str = what(MISSING)
    in_flight: int = how(16, least=1)
    """Requests waiting for an answer at the same time."""
    max_attempts: int = how(6, least=1)
    """Tries of one request before the stage gives up."""
    timeout: float = how(120.0, least=0.001)
    """Seconds that one try may take."""
    drain: float | None = how(None, least=0.0)
    """Seconds that what is in flight may still take once nothing more is wanted; null: as long as a try."""
    preflight: bool = how(True)
    """Find out with a few tiny requests, before the first real one, what the teacher honours."""


@dataclass(kw_only=True, slots=True)
class Data:
    """Curation: from raw responses or a released file to the training set."""

    size: int | None = what(1000, least=1)
    """Examples in the training set, a prefix of one hash order per seed; null: all that pass."""
    filters: list[str] = what(factory=list)
    """Names of the filters that drop an example, in order (`alpaca.curation.filters`)."""
    normalise_no_input: bool = what(False)
    """Spellings such as "No input" or "N/A" in the input field become the empty input."""
    dedup_threshold: float | None = what(0.7, least=0.0, below=1.0)
    """Drop an instruction whose ROUGE-L F1 against any kept one is above this; null: no de-duplication."""
    neighbours: bool = what(False)
    """Record each example's ten nearest neighbours and its mean similarity to all, as Alpaca's regen.json does."""
    language: str = what("en")
    """Language that the filter `other_language` keeps (ISO 639-1)."""
    decontaminate_lcs: float | None = what(None, least=0.0, below=1.0)
    """Drop an example whose instruction has a ROUGE-L F1 above this with an item of any evaluation set in use."""
    decontaminate_ngram: int | None = what(None, least=1)
    """Drop an example that shares so many words in a row with an item of any evaluation set in use."""
    moderation: str = what("none", choices=("none", "openai"))
    """Drop what a moderation model flags."""
    moderation_model: str = what("omni-moderation-latest")
    moderation_url: str | None = what(None)
    """Base URL of the moderations endpoint; null: OpenAI's own."""
    selection: str = what("random", choices=("random", "longest", "shortest", "diverse", "judge_score", "indices"))
    """Which examples a smaller size keeps; random is the control of every other."""
    indices: str | None = content()
    """JSON list of positions in the pool (from 0) for selection=indices."""
    input_share: float | None = what(None, least=0.0, below=1.0)
    """Share of the selected examples that have an input, kept at every size; null: as the selection finds them."""
    judge_least: float | None = what(None, least=0.0, below=5.0)
    """Only examples that the judge scores at least so, for selection=judge_score (AlpaGasus: 4.5)."""
    judge_temperature: float = what(0.0, least=0.0)
    """Of the judge, for selection=judge_score; some models take no other value than 1."""
    label_noise: float = what(0.0, least=0.0, below=1.0)
    """Expected share of examples whose output is replaced by that of another of the curated pool, selected or not.
    Which ones depends on id and seed, not on data.size, and is nested in the share."""
    shuffled_outputs: float = what(0.0, least=0.0, below=1.0)
    """Expected share of examples whose outputs are exchanged among each other within the set: no output is lost. At
    another size up to three get another output; where one text is more than half of them, its surplus stays."""
    truncated_outputs: float = what(0.0, least=0.0, below=1.0)
    """Expected share of examples whose output is cut to the first half of its words; one word stays."""


@dataclass(kw_only=True, slots=True)
class Responses:
    """Decoding: greedy at temperature 0."""

    max_new_tokens: int = what(128, least=1)
    temperature: float = what(0.0, least=0.0)
    top_p: float = what(1.0, least=0.0, below=1.0)
    seed: int = what(0, least=0)
    """Of sampling; not read by greedy decoding."""
    batch: int = how(64, least=1)


@dataclass(kw_only=True, slots=True)
class EvalSource:
    """The items of one evaluation."""

    set: str = what(MISSING)
    """Loader of the items (`alpaca.evalsets`)."""
    path: str | None = content()
    """A local file of the set; null: built in, or downloaded from `url` once and kept in the cache."""
    url: str = how("")
    sha256: str = what("")
    size: int | None = what(None, least=1)
    """Only the first so many items; null: all."""
    items: int | None = how(None, least=1)
    """Items in the file with that digest, for the plan's forecast."""


@dataclass(kw_only=True, slots=True)
class RespondConfig(EvalSource):
    """The items of one evaluation and how they are answered: all that its respond stage may read."""

    responses: Responses = field(default_factory=Responses)


@dataclass(kw_only=True, slots=True)
class Evaluation(RespondConfig):
    """One named evaluation: its items, how they are answered, how the answers are scored."""

    metrics: list[str] = what(factory=list)


@dataclass(kw_only=True, slots=True)
class Tracker:
    """Experiment tracking of trainings and scores; never allowed to stop or slow one."""

    kind: str = how("none", choices=("none", "wandb", "trackio"))
    mode: str = how("auto", choices=("auto", "offline"))
    """auto: W&B online where there is a key; offline: files below the output folder, for `python -m alpaca sync`."""
    project: str = how("alpaca")
    entity: str | None = how(None)
    group: str | None = how(None)
    """Group of the runs; null: the sweep's name."""
    patience: float = how(20.0, least=0.0)
    """Seconds that a job which is done waits for its tracker to have written everything."""


@dataclass(kw_only=True, slots=True)
class Run:
    """One point: everything that `launch.py` can be told."""

    sweep: str | None = how(None)
    """Name of a question in sweeps/; read by `alpaca.sweep`, with and without -m."""
    dry_run: bool = how(False)
    output_dir: str = how("outputs")
    until: str = how("score", choices=("sample", "curate", "train", "score"))
    """The last kind of stage to be done; until=curate makes a data set and its card."""
    seed: int = how(0, least=0)
    """Sets seeds.data, seeds.init and seeds.order, which are the identity."""
    seeds: Seeds = field(default_factory=Seeds)
    spend: Spend = field(default_factory=Spend)
    data_gen: DataGen = field(default_factory=DataGen)
    teacher: Teacher = field(default_factory=Teacher)
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    train: Train = field(default_factory=Train)
    optimizer: Optimizer = field(default_factory=Optimizer)
    precision: Precision = field(default_factory=Precision)
    fsdp: Fsdp = field(default_factory=Fsdp)
    eval: dict[str, Evaluation] = field(default_factory=dict)
    cluster: Cluster = field(default_factory=Cluster)
    tracker: Tracker = field(default_factory=Tracker)


@dataclass(kw_only=True, slots=True)
class DataSeed:
    """The part of `Seeds` that curation reads."""

    data: int = what(0, least=0)


@dataclass(kw_only=True, slots=True)
class TrainSeeds:
    """The part of `Seeds` that training reads."""

    init: int = what(0, least=0)
    order: int = what(0, least=0)


@dataclass(kw_only=True, slots=True)
class SampleConfig:
    """All that the sample stage may read; no teacher where released data is used."""

    data_gen: DataGen
    teacher: Teacher | None = None
    spend: Spend = field(default_factory=Spend)


@dataclass(kw_only=True, slots=True)
class CurateConfig:
    """All that the curate stage may read."""

    data: Data
    seeds: DataSeed
    evaluations: dict[str, EvalSource] = field(default_factory=dict)
    """What the data is decontaminated against; empty where it is not, so that other data does not change with them."""


@dataclass(kw_only=True, slots=True)
class RateConfig:
    """All that the rate stage may read: the teacher as judge of every example of a pool."""

    teacher: Teacher
    temperature: float = what(0.0, least=0.0)
    """`data.judge_temperature`."""
    spend: Spend = field(default_factory=Spend)


@dataclass(kw_only=True, slots=True)
class ModerateConfig:
    """All that the moderate stage may read."""

    kind: str = what(MISSING)
    model: str = what(MISSING)
    base_url: str | None = what(None)
    in_flight: int = how(8, least=1)
    timeout: float = how(60.0, least=0.001)


@dataclass(kw_only=True, slots=True)
class PretrainConfig:
    """All that the pretrain stage may read."""

    model: TinyModel


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """All that the train stage may read."""

    model: Model
    train: Train
    optimizer: Optimizer
    precision: Precision
    fsdp: Fsdp
    seeds: TrainSeeds


@dataclass(kw_only=True, slots=True)
class ScoreConfig:
    """All that the score stage of one evaluation may read."""

    metrics: list[str] = what(factory=list)


@dataclass(kw_only=True, slots=True)
class Point:
    """One run as a report sees it."""

    name: str
    factors: dict[str, Any]
    """Dotted key -> value of each declared factor; empty for a single run."""
    seeds: dict[str, int]
    """data, init, order."""
    stages: dict[str, str]
    """Role ("sample", "curate", "pretrain", "train", "respond:NAME", "score:NAME") -> folder in the output folder."""


@dataclass(kw_only=True, slots=True)
class Analysis:
    """How the points of a question are looked at."""

    curve: str = ""
    """Factor of numbers on the horizontal axis; "": none."""
    fit: str = "power"
    """Of the curve. power: a power law a + b * x^-c with its interval; none: the points alone."""
    contrasts: bool = False
    """Each value against the baseline, corrected for their number."""
    interaction: list[str] = field(default_factory=list)
    """Two factors: whether the effect of one depends on the other."""


@dataclass(kw_only=True, slots=True)
class ReportConfig:
    """What a report page is made from: the question and its points; all numbers come from the points' folders."""

    title: str
    question: str = ""
    command: str = ""
    """The command that makes this page again."""
    metric: str = ""
    """"EVALUATION.METRIC" that the figure shows; empty: the first evaluation's first metric."""
    factors: list[str] = field(default_factory=list)
    controls: list[str] = field(default_factory=list)
    """What is held equal, in words."""
    notes: list[str] = field(default_factory=list)
    """What the choices brought along, warnings, caveats."""
    points: list[Point] = field(default_factory=list)
    hypothesis: str = ""
    """What was expected, written down before there was a result."""
    directions: dict[str, str] = field(default_factory=dict)
    """"EVALUATION.METRIC" -> the direction that is better, higher or lower, for the metrics that the question names."""
    baseline: dict[str, Any] = field(default_factory=dict)
    """Factor -> value of the point that the others are compared with; empty: the first."""
    bundles: dict[str, list[str]] = field(default_factory=dict)
    """Name -> factors that move together and are one factor of that name."""
    analysis: Analysis = field(default_factory=Analysis)
