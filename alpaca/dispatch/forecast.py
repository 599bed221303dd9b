"""What a stage will cost, in words for the plan: amounts where they are known, guesses marked as such."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from alpaca.config import (
    AskedDataGen,
    CurateConfig,
    MixtureDataGen,
    ModerateConfig,
    PretrainConfig,
    ReleasedDataGen,
    RespondConfig,
    SampleConfig,
)
from alpaca.dispatch import asking, expectation, training
from alpaca.dispatch.earlier import Earlier
from alpaca.plan import Node, Plan


def cost(node: Node, plan: Plan, earlier: Earlier, threads: int = 1) -> str:
    """One line: amounts, then how long such a stage took there before, if any did. threads: of a stage on a CPU."""
    output = earlier.output
    describe = _DESCRIBE.get(node.stage)
    amount = describe(node, plan, output) if describe else ""
    if node.stage == "train":
        amount = training.line(node, plan, output, threads)
    return "; ".join(part for part in (amount, _time(node, plan, earlier, threads)) if part) or "seconds"


def _time(node: Node, plan: Plan, earlier: Earlier, threads: int) -> str:
    """As before, else the guess of what answers on a GPU; that of training is told by its own line."""
    seconds = earlier.seconds(node, plan)
    if seconds is not None:
        return f"about {seconds:.0f} s, as before"
    expected = expectation.expect(node, plan, earlier, threads) if node.stage == "respond" else None
    if expected is None or expected.seconds is None:
        return ""
    return f"about {training.clock(expected.seconds)} on a GPU {expected.gpu} (a guess)"


def _sample(node: Node, plan: Plan, output: Path) -> str:
    config: SampleConfig = node.config
    source = config.data_gen
    if isinstance(source, ReleasedDataGen):
        return f"reads {source.path or source.hub}" if source.path or source.hub else "one download, kept in the cache"
    if isinstance(source, MixtureDataGen):
        return f"reads {len(source.sources)} data sets"
    if not isinstance(source, AskedDataGen) or config.teacher is None:
        return ""
    return _asked(node, plan, output, otherwise="one request per instruction")


def _rate(node: Node, plan: Plan, output: Path) -> str:
    return _asked(node, plan, output, otherwise="one request per example of the pool")


def _asked(node: Node, plan: Plan, output: Path, otherwise: str) -> str:
    """otherwise: what is told where the number of requests is not known."""
    asked = asking.asked(node, plan, output)
    return otherwise if asked is None or asked.requests is None else asked.told()


def _moderate(node: Node, plan: Plan, output: Path) -> str:
    config: ModerateConfig = node.config
    examples = asking.pool_size(plan.nodes[node.parents["pool"]], output)
    return f"{'one request per example' if examples is None else f'{examples:,} requests'} to {config.model}"


def _curate(node: Node, plan: Plan, output: Path) -> str:
    config: CurateConfig = node.config
    return f"selects {config.data.size:,}" if config.data.size else "keeps all that pass"


def _pretrain(node: Node, plan: Plan, output: Path) -> str:
    config: PretrainConfig = node.config
    return f"{config.model.steps:,} steps x {config.model.batch} lines"


def _respond(node: Node, plan: Plan, output: Path) -> str:
    config: RespondConfig = node.config
    count = expectation.items_of(config)
    items = "all items" if count is None else f"{count:,} items"
    return f"{items}, up to {config.responses.max_new_tokens} new tokens each"


_DESCRIBE: dict[str, Callable[[Node, Plan, Path], str]] = {
    "sample": _sample,
    "rate": _rate,
    "moderate": _moderate,
    "curate": _curate,
    "pretrain": _pretrain,
    "respond": _respond,
}
