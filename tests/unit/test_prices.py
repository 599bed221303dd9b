from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from alpaca.config import Spend, Teacher
from alpaca.errors import UserError
from alpaca.footprint.gpus import GPUS
from alpaca.teachers.base import Message, Request, RetryableError
from alpaca.teachers.openai import OpenAI
from alpaca.teachers.prices import GpuPrices, Price, gpu_prices, load_table, price_of
from alpaca.teachers.programmatic import Programmatic
from alpaca.teachers.projection import Projection
from alpaca.teachers.spending import Spending

TABLE = """
date: 2026-01-02
source: a price list
hosts:
  example.org:
    tiers: {flex: 0.5}
    models:
      small: {input: 1.0, cached_input: 0.25, output: 4.0}
"""


def row(prompt: int, completion: int, **more: object) -> dict[str, object]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, **more}


def request(characters: int = 400, max_tokens: int = 1000, id: str = "r") -> Request:
    message = Message(role="user", content="x" * characters)
    return Request(id=id, messages=(message,), temperature=1.0, top_p=1.0, max_tokens=max_tokens)


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "prices.yaml"
    path.write_text(TABLE)
    return str(path)


def test_cached_tokens_and_tiers_are_reckoned(table: str) -> None:
    price = price_of(OpenAI(model="small", base_url="https://example.org/v1"), table)
    assert price is not None
    assert price.usd(row(1_000_000, 0)) == pytest.approx(1.0)
    assert price.usd(row(1_000_000, 500_000)) == pytest.approx(3.0)
    assert price.usd(row(1_000_000, 0, cached_tokens=400_000)) == pytest.approx(0.7)
    assert price.usd(row(1_000_000, 0, service_tier="flex")) == pytest.approx(0.5)
    assert price.date == "2026-01-02"


def test_dated_versions_share_the_price_of_their_stem_and_nothing_else_does(table: str) -> None:
    assert price_of(OpenAI(model="small-2026-03-01", base_url="https://example.org/v1"), table) is not None
    for model, url in (("small-plus", "https://example.org/v1"), ("small", "http://127.0.0.1:8000/v1")):
        assert price_of(OpenAI(model=model, base_url=url), table) is None


def test_own_table_and_programs(table: str) -> None:
    found = price_of(OpenAI(model="gpt-4o-mini-2024-07-18"))
    assert found is not None
    assert found.output > found.input > 0
    free = price_of(Programmatic())
    assert free is not None
    assert free.usd(row(10**6, 10**6)) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "a YAML list"),
        ("date: x", '"source" is missing'),
        (TABLE.replace("output: 4.0", "output: much"), "models.small.output\" is 'much'"),
        (TABLE.replace("input: 1.0, ", ""), 'models.small.input" is None'),
        (TABLE.replace("flex: 0.5", "flex: .nan"), "tiers.flex"),
        ("a: [", "cannot read"),
        (TABLE.replace("{flex: 0.5}", "half"), "tiers\" is no map"),
    ],
)
def test_a_broken_table_names_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_table(str(path))
    assert words in str(caught.value)
    assert "prices.yaml" in str(caught.value)


def test_a_bound_on_money_needs_a_price() -> None:
    with pytest.raises(UserError, match=r"spend\.max_usd"):
        Spending(Spend(max_usd=1.0), None)


def test_the_bound_on_money_counts_what_is_out() -> None:
    price = Price(input=1.0, output=10.0, cached_input=1.0, date="2026-01-02")
    spending = Spending(Spend(max_usd=0.05), price)
    # One request: 100 prompt tokens and at most 1,000 of completion, $0.0101.
    assert spending.most_usd(request()) == pytest.approx(0.0101)
    for number in range(4):
        assert spending.allows(request(id=f"out{number}"))
        spending.reserve(request(id=f"out{number}"))
    assert not spending.allows(request())
    for number in range(4):
        spending.release(request(id=f"out{number}"))
        spending.add(row(100, 1000))
    assert spending.usd == pytest.approx(0.0404)
    assert not spending.allows(request())
    assert "$0.05 is reached: $0.0404 are spent" in str(spending.reached(request(), "3 are kept"))


def test_what_is_out_counts_with_its_own_size() -> None:
    spending = Spending(Spend(max_tokens=10_000), None)
    spending.reserve(request(characters=32_000, id="long"))  # 8,000 tokens and 1,000 of completion
    assert not spending.allows(request(characters=4))
    assert spending.allows(request(characters=4, max_tokens=500))
    # Once an answer has shown that a character is worth more tokens, so is every prompt.
    spending.release(request(characters=32_000, id="long"))
    spending.add(row(300, 0), request(characters=300))
    assert spending.most(request(characters=900)) == 900 + 1000


def test_a_tier_without_a_price_makes_no_money_up(table: str) -> None:
    price = price_of(OpenAI(model="small", base_url="https://example.org/v1"), table)
    assert price is not None
    assert price.usd(row(10, 10, service_tier="priority")) is None
    spending = Spending(Spend(), price)
    spending.add(row(10, 10, service_tier="priority"))
    assert spending.usd is None
    assert "$" not in spending.told()
    with pytest.raises(UserError, match="at the service tier 'priority'"):
        Spending(Spend(max_usd=1.0), price, tier="priority")


def test_the_tier_asked_for_is_reserved() -> None:
    price = Price(input=1.0, output=10.0, cached_input=1.0, date="2026-01-02", tiers={"fast": 2.0})
    slow, fast = (Spending(Spend(max_usd=1.0), price, tier=tier).most_usd(request()) for tier in (None, "fast"))
    assert fast == pytest.approx(2 * slow)


def test_a_failed_try_of_unknown_bill_counts_as_the_most() -> None:
    spending = Spending(Spend(), None)
    lost = spending.bill(request(), RetryableError("cut", may_be_billed=True))
    assert lost is not None
    assert (lost.prompt_tokens, lost.completion_tokens) == (100, 1000)
    assert spending.bill(request(), RetryableError("429")) is None


# --- the projection


def test_without_duplicates_the_yield_stays() -> None:
    projection = Projection()
    assert projection.total(100) is None
    projection.add(10, 0)
    assert projection.total(100) == pytest.approx(10)
    assert projection.total(5) == 1


def test_duplicates_make_the_rest_dearer() -> None:
    # Words drawn from 1,000 equally likely ones: kept when new. 10 a request, exact by simulation below.
    import random

    rng = random.Random(0)
    projection, kept, requests = Projection(), set[int](), 0
    early = None
    while len(kept) < 600:
        drawn = [rng.randrange(1000) for _ in range(10)]
        before = len(kept)
        kept |= set(drawn)
        projection.add(len(kept) - before, 10 - (len(kept) - before))
        requests += 1
        if requests == 15:
            early = projection.total(600)
    assert early is not None
    assert abs(early / requests - 1) < 0.25 < abs(600 / 9.3 / requests - 1)


def test_what_never_fills_up_is_infinite_and_not_an_overflow() -> None:
    projection = Projection()
    projection.add(1, 9)
    projection.add(0, 10)
    assert projection.total(10**6) == float("inf")


def test_teachers_without_a_price_field_have_none() -> None:
    assert price_of(Teacher(kind="parrot")) is None


def test_gpu_hours_have_dated_prices_and_a_file_may_have_its_own(tmp_path: Path) -> None:
    shipped = gpu_prices()
    assert shipped.usd_per_hour.keys() <= {gpu.name for gpu in GPUS}
    own = {"date": "2026-01-02", "source": "mine", "hosts": {}}
    path = tmp_path / "prices.yaml"
    path.write_text(yaml.safe_dump(own))
    assert gpu_prices(str(path)) == shipped
    path.write_text(yaml.safe_dump(own | {"gpus": {"date": "2026-01-03", "usd_per_hour": {"H200": 2}}}))
    assert gpu_prices(str(path)) == GpuPrices(date="2026-01-03", usd_per_hour={"H200": 2.0})
    path.write_text(yaml.safe_dump(own | {"gpus": {"date": "2026-01-03", "usd_per_hour": {"H200": "much"}}}))
    with pytest.raises(UserError, match=r"gpus\.usd_per_hour\.H200.*'much'"):
        gpu_prices(str(path))
