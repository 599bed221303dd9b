"""The page in Chromium, wide and on a phone: no sideways scrolling, no request, no error, legible figures.

Needs playwright and /usr/bin/chromium; without them the tests are skipped, or fail where REQUIRE_BROWSER=1.
"""

from __future__ import annotations

import itertools
import os
import warnings
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from alpaca.config import ReportConfig
from tests.unit.report_folders import (
    HOSTILE,
    World,
    arms_sweep,
    data_only,
    data_size_sweep,
    grid_sweep,
    interaction_sweep,
    named_sweep,
    properties_sweep,
    single_run,
)

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
]
WIDTHS = (1280, 390)


def unavailable(reason: str) -> None:
    if os.environ.get("REQUIRE_BROWSER") == "1":
        pytest.fail(f"REQUIRE_BROWSER=1, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        unavailable("playwright is not installed")
    if not CHROMIUM.exists():
        unavailable(f"there is no {CHROMIUM}")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Name -> page: a run, a 3 x 3 sweep, a grid, named levels, a missing arm with hostile responses; data sets alone.

    properties: one factor at a time, with a failure, a hypothesis that changed and an earlier answer; arms and
    interaction: of those designs; sizes: enough of them to test the fitted law; long curve, long dots: of long labels.
    card, hostile card: the page of one data set below the report's.
    """
    output = tmp_path_factory.mktemp("pages")
    foreign = {"embedded": "embedded", "user_oriented_252": "user_oriented"}
    made = {
        "run": single_run(output / "run", histograms=True),
        "sweep": data_size_sweep(output / "sweep"),
        "grid": grid_sweep(output / "grid"),
        "named": named_sweep(output / "named"),
        "torn": data_size_sweep(output / "torn", seeds=2, evaluations=foreign, response=HOSTILE + "x" * 300),
    }
    made |= {
        "properties": properties_sweep(output / "properties"),
        "arms": arms_sweep(output / "arms"),
        "interaction": interaction_sweep(output / "interaction", 0.3),
        "sizes": data_size_sweep(output / "sizes", sizes={250: 0.1, 1000: 0.5, 4000: 0.68, 16000: 0.78}),
    }
    made |= {f"long {form}": long_labels(output / form, form == "curve") for form in ("curve", "dots")}
    update(*made["properties"])
    made["data set"] = data_only(output / "data-set", sizes=(1000,), histograms=True, card=MANY_VERBS)
    made["data sets"] = data_only(output / "data-sets", sizes=(250, 1000, 4000))
    made["hostile data"] = data_only(
        output / "hostile",
        sizes=(250,),
        way="reanswer",
        data_gen={"path": "p" * 120},
        pool={"source_sha256": "1" * 64, "multi_turn": 30},
        raw=[{"id": "r", "prompt_tokens": 10**9, "completion_tokens": 10**9, "adopted": True}],
        card=hostile_card(),
        looked_at=LOOKED_AT,
    )
    made["hostile data"][1].command = f"python launch.py {'c' * 200}"
    torn = made["torn"][0]
    torn.lose(*[name for name in torn.parents if "size4000-s1" in name])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="constrained_layout not applied")
        found = {name: world.run(config) / "report.html" for name, (world, config) in made.items()}
    cards = {"card": "data set", "hostile card": "hostile data"}
    return found | {name: next(found[of].parent.glob("data/*.html")) for name, of in cards.items()}


def update(world, config):
    """Makes the page once without its last level, then changes the hypothesis and lets a stage fail in long words."""
    world.run(replace(config, points=config.points[:-3]))
    config.hypothesis = f"Changed: {HOSTILE}{'h' * 120}"
    lost = config.points[-1].stages["train"]
    (world.output / lost / "log.txt").write_text(f"error: {'e' * 200} {HOSTILE}", encoding="utf-8")
    world.lose(lost)


OTHERS = {"data.selection": "nearest", "optimizer.lr_schedule": "cosine", "model.pretrained_on": "w" * 30}


def long_labels(output, over_sizes):
    """Levels of five factors, three seeds each: as a curve with a legend, or one below the other."""
    world = World(output=output)
    start = {"data.size": 250, "data.label_noise": 0.0} if over_sizes else {"arm_of_the_data.named_by": "random words"}
    changes = (
        [
            {key: size, "data.label_noise": noise}
            for key in ["data.size"]
            for size in (250, 4000)
            for noise in (0.0, 0.1, 0.2, 0.4)
        ]
        if over_sizes
        else [{"arm_of_the_data.named_by": name} for name in ("random words", "rare_words_" * 9, "none")]
    )
    levels = [{**OTHERS, **start, **change} for change in changes]
    points = [world.point(level, seed, 0.5) for level in levels for seed in range(2)]
    return world, ReportConfig(title="long labels", question="?", factors=list(levels[0]), points=points)


OBJECTS = [["sentence", 90], ["characterisation", 40], ["list", 20], ["story", 10]]
MANY_VERBS = {
    "verbs": {
        "method": "rules", "instructions": 1000, "with_verb": 900, "with_object": 800, "questions": 60, "other": 40,
        "effective_verbs": 12.3, "different_verbs": 31, "question_words": [["what", 60]],
        "top": [{"verb": f"summarize{at}", "count": 210 - 10 * at, "objects": OBJECTS} for at in range(20)],
    }
}  # fmt: skip
LOOKED_AT = {
    "requested": {"temperature": 1.0, "stop": ["\n20" * 40]}, "honoured": {"temperature": "accepted"},
    "model": "m" * 90, "checked": "2026-11-22",
}  # fmt: skip


def hostile_card():
    """Long words, markup and every optional section."""
    text = HOSTILE + "x" * 300
    row = {"id": "y" * 120, "instruction": text, "input": text, "output": f"{text}\n\n{text}", "provenance": {}}
    return {
        "source": text,
        "teacher": "z" * 150,
        "examples": [row] * 20,
        "contamination": {
            "user_oriented_252": {"items": 252, "lcs": 7, "ngram": None, "dropped": 7, "unsearchable": 9}
        },
        "nearest": {"p10": 0.1, "p25": 0.2, "p50": 0.3, "p75": 0.4, "p90": 0.5, "p99": 0.6},
        "moderation": {"model": "omni", "flagged": 3, "categories": {"hate/threatening": 2}},
        "ratings": {"rated": 5000, "unreadable": 2, "mean": 3.9, "scores": [[3.0, 100], [4.5, 200]]},
        "damage": {"label_noise": {"share": 0.2, "examples": 200}},
        "parts": {text: {"examples": 10, "kept": 9}, "b": {"examples": 1, "kept": 1}},
        "verbs": {**MANY_VERBS["verbs"], "top": [{"verb": text, "count": 9, "objects": [[text, 4]]}]},
    }


@pytest.fixture(
    params=[
        *("run", "sweep", "grid", "named", "torn", "properties", "arms", "interaction", "sizes"),
        *("long curve", "long dots"),
        *("data set", "data sets", "hostile data", "card", "hostile card"),
    ]
)
def report(request, pages):
    return pages[request.param]


@pytest.fixture(params=WIDTHS)
def opened(request, browser, report):
    """The page at one width with every fold open, and what it asked for and complained of."""
    context = browser.new_context(viewport={"width": request.param, "height": 900})
    page = context.new_page()
    heard: dict[str, list[str]] = {"requests": [], "errors": []}
    page.on("request", lambda asked: heard["requests"].append(asked.url))
    page.on("console", lambda message: heard["errors"].append(message.text))
    page.on("pageerror", lambda error: heard["errors"].append(str(error)))
    page.on("requestfailed", lambda asked: heard["errors"].append(asked.url))
    page.goto(report.as_uri(), wait_until="load")
    page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    yield page, heard
    context.close()


def test_the_page_never_scrolls_sideways_asks_for_nothing_and_has_no_errors(opened, report):
    page, heard = opened
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert [url for url in heard["requests"] if not url.startswith("data:")] == [report.as_uri()]
    assert heard["errors"] == []


def test_every_link_leads_to_something_that_exists(opened):
    page, _ = opened
    links = page.evaluate("[...document.querySelectorAll('a')].map(link => link.href)")
    assert len(links) > 5
    assert [link for link in links if not Path(unquote(urlparse(link).path)).exists()] == []
    places = page.evaluate("[...document.querySelectorAll('[id]')].map(place => place.id)")
    assert {urlparse(link).fragment for link in links} - {""} <= set(places)


def test_one_form_of_each_figure_is_shown_and_its_text_is_legible(opened, report, pages):
    page, _ = opened
    is_table = report == pages["data sets"]  # a comparison of data sets has no figure
    shown = page.evaluate("""[...document.querySelectorAll('figure')].map(figure =>
        [...figure.querySelectorAll('svg')].filter(drawing => drawing.getBoundingClientRect().width > 0).length)""")
    assert set(shown) == (set() if is_table else {1})
    sizes = page.evaluate("""[...document.querySelectorAll('figure svg')].flatMap(drawing => {
        const scale = drawing.getBoundingClientRect().width / drawing.viewBox.baseVal.width;
        const texts = scale > 0 ? [...drawing.querySelectorAll('text')] : [];
        return texts.map(text => parseFloat(getComputedStyle(text).fontSize) * scale)})""")
    assert min(sizes, default=11.0) >= 11.0


def test_no_text_of_a_figure_is_cut_off(opened):
    page, _ = opened
    outside = page.evaluate("""[...document.querySelectorAll('figure svg')].flatMap(drawing => {
        const frame = drawing.getBoundingClientRect();
        return [...drawing.querySelectorAll('text')].filter(text => {
            const box = text.getBoundingClientRect();
            return frame.width > 0 && (box.left < frame.left - 1 || box.right > frame.right + 1
                || box.top < frame.top - 1 || box.bottom > frame.bottom + 1);
        }).map(text => text.textContent)})""")
    assert outside == []


def test_labels_of_rows_do_not_cover_each_other(browser, pages):
    for name in ("interaction", "properties", "named", "long dots"):
        page = browser.new_page(viewport={"width": 390, "height": 900})
        page.goto(pages[name].as_uri())
        boxes = page.evaluate("""[...[...document.querySelectorAll('figure svg')].find(drawing =>
            drawing.getBoundingClientRect().width > 0).querySelectorAll('g[id*="ytick_"]')].map(row => {
            const boxes = [...row.querySelectorAll('text')].map(text => text.getBoundingClientRect());
            return [Math.min(...boxes.map(box => box.top)), Math.max(...boxes.map(box => box.bottom))]})""")
        assert len(boxes) >= 3
        assert all(below[0] > above[1] for above, below in itertools.pairwise(sorted(boxes)))
        page.close()


def test_text_stays_readable_on_light_and_dark_paper(browser, pages):
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)
        page = context.new_page()
        page.goto(pages["sweep"].as_uri())
        for selector in ("body", ".fine", ".bounds", "figcaption", "a", "thead th", ".caveat strong"):
            assert contrast(page, selector) >= 4.5, (scheme, selector)
        context.close()


def test_text_of_a_card_stays_readable_on_light_and_dark_paper(browser, pages):
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)
        page = context.new_page()
        page.goto(pages["card"].as_uri())
        for selector in ("body", ".fine", "figcaption", "a", "thead th", ".facts dt", ".sample dt", "summary"):
            assert contrast(page, selector) >= 4.5, (scheme, selector)
        # Labels inside the rings stand on a wedge of their own colour, which is the same on both papers.
        wedges = page.evaluate("""[...document.querySelectorAll('figure svg')].filter(drawing =>
            drawing.getBoundingClientRect().width > 0).flatMap(drawing =>
            [...drawing.querySelectorAll('path[fill^="#"]')].map(path => getComputedStyle(path).fill))""")
        assert min(ratio("rgb(28, 30, 33)", colour) for colour in wedges if colour.startswith("rgb")) >= 4.5
        context.close()


def test_labels_of_the_rings_do_not_cover_each_other(browser, pages):
    for width in WIDTHS:
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.goto(pages["card"].as_uri())
        angles = page.evaluate("""[...document.querySelectorAll('figure svg')].filter(drawing =>
            drawing.querySelector('title') && drawing.getBoundingClientRect().width > 0).flatMap(drawing =>
            [...drawing.querySelectorAll('text')].map(text => [
                text.style.fill.startsWith('rgb'), parseFloat(text.getAttribute('transform').slice(7)),
                Math.abs(parseFloat(text.getAttribute('x'))), parseFloat(text.getAttribute('x')) < 0]))""")
        assert len(angles) > 12
        for inside in (True, False):
            turns = sorted((angle + (180 if left else 0)) % 360 for kind, angle, _, left in angles if kind is inside)
            radius = next(radius for kind, _, radius, _ in angles if kind is inside)
            gaps = [(after - before) * 3.14159 / 180 * radius for before, after in itertools.pairwise(turns)]
            assert min(gaps, default=99) >= 10.5
        page.close()


def test_closed_folds_are_open_on_paper(browser, pages, tmp_path):
    page = browser.new_page()
    page.goto(pages["sweep"].as_uri())
    page.emulate_media(media="print")
    # What stands in the last fold takes room although nobody opened it.
    assert page.evaluate("[...document.querySelectorAll('details .key')].pop().getBoundingClientRect().height") > 0
    page.close()


def test_paper_shows_what_is_folded_and_cuts_no_table(browser, pages):
    for name in ("properties", "long curve", "long dots"):
        page = browser.new_page(viewport={"width": 680, "height": 900})  # A4 between its margins
        page.goto(pages[name].as_uri())
        assert "sign flips" not in page.inner_text("main")
        page.emulate_media(media="print", color_scheme="dark")
        folded = page.evaluate("""[...document.querySelectorAll('details table')].map(table =>
            [table.innerText.includes('sign flips'), table.getBoundingClientRect().height])""")
        assert any(is_it for is_it, _ in folded)
        assert min(height for _, height in folded) > 20
        assert "sign flips" in page.inner_text("main")
        over = page.evaluate("""[...document.querySelectorAll('table')].filter(table =>
            table.getBoundingClientRect().right > innerWidth + 1).map(table => table.parentElement.ariaLabel)""")
        assert over == []
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        page.close()


def test_series_are_told_apart_without_colour(browser, pages):
    page = browser.new_page()
    page.goto(pages["long curve"].as_uri())
    dashes = page.evaluate("""[...document.querySelectorAll('figure svg g[id*="-legend_"] path')].map(path =>
        getComputedStyle(path).strokeDasharray)""")
    assert len(set(dashes)) == 3
    page.close()


def ratio(one: str, other: str) -> float:
    """WCAG 2 contrast of two colours of the form rgb(r, g, b)."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def contrast(page, selector: str) -> float:
    """WCAG 2 contrast of an element's text with the background that is painted behind it."""
    return page.evaluate(
        """selector => {
        const numbers = colour => (colour.match(/[0-9.]+/g) || []).map(Number);
        const luminance = colour => numbers(colour).slice(0, 3).map(part => part / 255)
            .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
            .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
        const element = document.querySelector(selector);
        let behind = element;
        while (numbers(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
        const [high, low] = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor]
            .map(luminance).sort((a, b) => b - a);
        return (high + 0.05) / (low + 0.05);
    }""",
        selector,
    )
