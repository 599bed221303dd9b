"""The ways to get instruction data."""

from __future__ import annotations

from dataclasses import dataclass, field

from alpaca.config.marks import MISSING, content, how, what


@dataclass(kw_only=True, slots=True)
class DataGen:
    """Base of the ways to get instruction data; `kind` names the variant."""

    kind: str = what(MISSING)


@dataclass(kw_only=True, slots=True)
class AskedDataGen(DataGen):
    """Base of the ways that ask a teacher until exactly `num_examples` are kept."""

    temperature: float = what(1.0, least=0.0)
    top_p: float = what(1.0, least=0.0, below=1.0)
    max_tokens: int = what(3072, least=1)
    """Completion tokens allowed per request."""
    stall_requests: int = how(200, least=1)
    """Sampling stops when this many requests in a row keep fewer than `stall_keep_rate` of their tasks."""
    stall_keep_rate: float = how(0.05, least=0.0)
    nonsense_requests: int = how(50, least=1)
    """Sampling stops when the first so many answers hold not one task that can be read."""
    seed: int = what(0, least=0)
    """Draws the request plan; follows `seeds.data`, pin it to pay for one pool under several seeds."""


@dataclass(kw_only=True, slots=True)
class AlpacaDataGen(AskedDataGen):
    """Alpaca's one-step form (its generate_instruction.py): seeds are shown, the teacher continues the list."""

    kind: str = what("alpaca", choices=("alpaca",))
    num_examples: int = what(4000, least=1)
    """The pool: sampling goes on until so many examples pass the released rules."""
    seeds: str | None = content()
    """JSONL of seed tasks in self-instruct's form; null: the 175 of this project."""
    prompt: str | None = content()
    """Text of the generation prompt, `{count}` for the number of tasks; null: this project's."""
    form: str = what("text", choices=("text", "json_schema"))
    """text: the numbered list is continued; json_schema: a JSON object with a list of tasks (structured outputs)."""
    tasks_per_request: int = what(20, least=2)
    """Length of the list that the teacher continues, the shown seeds included (Alpaca: 20)."""
    seeds_per_prompt: int = what(3, least=1)
    """Tasks shown in one prompt (Alpaca 3, self-instruct 8)."""
    machine_share: float = what(0.0, least=0.0, below=1.0)
    """Share of the tasks shown that the teacher wrote itself (Alpaca 0, self-instruct 2 of 8)."""
    machine_lag: int = what(32, least=1)
    """Requests after which kept tasks may be shown; so many are in flight at most, and the data set stays the same."""
    input_share: float | None = what(None, least=0.0, below=1.0)
    """Share of tasks with an input that the prompt asks for; null: nothing is said about it."""
    language: str | None = what(None)
    """Language that the prompt asks for, by its English name; null: that of the prompt's text."""
    topics: str | None = content()
    """Text file with a topic per line, one drawn for each request; null: none."""
    stop: list[str] = what(factory=list)
    """Strings at which the completion ends (Alpaca 2023: "\\n20", "20.", "20.", which cut answers with "20.")."""
    logit_bias: dict[str, float] = what(factory=dict)
    """Token id -> bias (Alpaca 2023: "50256" -> -100)."""


@dataclass(kw_only=True, slots=True)
class SelfInstructDataGen(AskedDataGen):
    """Self-Instruct (Wang et al., arXiv 2212.10560): instructions, whether each is a classification, instances.

    num_examples counts instances. Temperature, top_p, max_tokens and presence_penalty are those of the instructions;
    the two later steps have their own.
    """

    kind: str = what("self_instruct", choices=("self_instruct",))
    num_examples: int = what(4000, least=1)
    """The pool: sampling goes on until so many examples pass the released rules, counted by instance."""
    seeds: str | None = content()
    """JSONL of seed tasks in self-instruct's form; null: the 175 of this project."""
    seeds_per_prompt: int = what(8, least=1)
    machine_share: float = what(0.25, least=0.0, below=1.0)
    machine_lag: int = what(32, least=1)
    """As for data_gen=alpaca."""
    temperature: float = what(0.7, least=0.0)
    top_p: float = what(0.5, least=0.0, below=1.0)
    max_tokens: int = what(1024, least=1)
    presence_penalty: float = what(2.0)
    tasks_per_request: int = what(16, least=2)
    """Length of the list of instructions, the shown ones included."""
    instances: int = what(5, least=1)
    """Instances of one instruction at most."""
    instance_tokens: int = what(350, least=1)
    """Completion tokens of a request for instances."""
    step_temperature: float = what(0.0, least=0.0)
    """Of the two later steps, which self-instruct decodes greedily; some models take no other value than 1."""
    step_presence_penalty: float = what(1.5)
    """Of the requests for instances."""


@dataclass(kw_only=True, slots=True)
class ReanswerDataGen(AskedDataGen):
    """The instructions of a frozen data set, each answered anew: two teachers then differ in nothing but answers."""

    kind: str = what("reanswer", choices=("reanswer",))
    path: str | None = content()
    """Data set whose instructions and inputs are asked (any form that `data_gen=released` reads)."""
    num_examples: int | None = what(None, least=1)
    """The first so many instructions; null: all. Answers that are cut or empty are left out, and counted."""
    max_tokens: int = what(1024, least=1)


@dataclass(kw_only=True, slots=True)
class EvolveDataGen(AskedDataGen):
    """Evol-Instruct (Xu et al., arXiv 2304.12244): instructions rewritten in depth and breadth, each then answered."""

    kind: str = what("evolve", choices=("evolve",))
    num_examples: int = what(4000, least=1)
    """The pool: sampling goes on until so many examples pass the rules of elimination."""
    path: str | None = content()
    """Data set to start from (any form that `data_gen=released` reads); null: the seed tasks of this project."""
    rounds: int = what(4, least=1)
    """Rewritings of one instruction, each starting from the one before."""
    breadth_share: float = what(0.2, least=0.0, below=1.0)
    """Share of rewritings in breadth (a new task of the same domain); the rest go in depth."""
    max_tokens: int = what(2048, least=1)


@dataclass(kw_only=True, slots=True)
class ReleasedDataGen(DataGen):
    """A published data set; no teacher is asked."""

    kind: str = what("released", choices=("released",))
    path: str | None = content()
    """A local JSON, JSONL or Parquet file; null: from `hub` or `url`."""
    hub: str | None = what(None)
    """Id of a data set on the hub, loaded by `datasets`; used where `path` is null."""
    revision: str = what("main")
    """Commit, tag or branch on the hub; a commit makes the run reproducible."""
    subset: str | None = what(None)
    """Configuration of a data set on the hub that has several; null: its default."""
    split: str = what("train")
    """Split of a data set on the hub."""
    url: str = how("")
    """Downloaded once and kept in the cache, where neither `path` nor `hub` is given."""
    sha256: str = what("")
    """The digest that the downloaded file must have; not read where `path` is given."""
    format: str = what("auto", choices=("auto", "alpaca", "dolly", "lima"))
    """Names of the fields; auto: recognised by the first record."""
    examples: int | None = how(None)
    """Records in the file with that digest, for the plan's forecast."""


@dataclass(kw_only=True, slots=True)
class Weighted(ReleasedDataGen):
    """One part of a mixture."""

    weight: float = what(1.0, least=0.0)
    """Share of the mixture, relative to the other parts' weights."""


@dataclass(kw_only=True, slots=True)
class MixtureDataGen(DataGen):
    """Several published data sets mixed by weight, without repeating a record."""

    kind: str = what("mixture", choices=("mixture",))
    sources: dict[str, Weighted] = field(default_factory=dict)
    """Name -> data set."""
    num_examples: int | None = what(None, least=1)
    """Records of the mixture; null: as many as the weights allow."""
    seed: int = what(0, least=0)
    """Draws the records of each part (a prefix of one hash order, so that sizes are nested)."""
