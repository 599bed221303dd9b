"""The page in Chromium, wide and on a phone: no sideways scrolling, no request, no error, legible figures.

Needs playwright and /usr/bin/chromium; without them the tests are skipped, or fail where REQUIRE_BROWSER=1.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from tests.unit.report_folders import HOSTILE, data_size_sweep, grid_sweep, named_sweep, single_run

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
    """Name -> report.html: a run, a 3 x 3 sweep, a grid, named levels, a missing arm with hostile responses."""
    output = tmp_path_factory.mktemp("pages")
    foreign = {"embedded": "embedded", "user_oriented_252": "user_oriented"}
    made = {
        "run": single_run(output / "run", histograms=True),
        "sweep": data_size_sweep(output / "sweep"),
        "grid": grid_sweep(output / "grid"),
        "named": named_sweep(output / "named"),
        "torn": data_size_sweep(output / "torn", seeds=2, evaluations=foreign, response=HOSTILE + "x" * 300),
    }
    torn = made["torn"][0]
    torn.lose(*[name for name in torn.parents if "size4000-s1" in name])
    return {name: world.run(config) / "report.html" for name, (world, config) in made.items()}


@pytest.fixture(params=["run", "sweep", "grid", "named", "torn"])
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
    assert len(links) > 10
    assert [link for link in links if not Path(unquote(urlparse(link).path)).exists()] == []


def test_one_form_of_each_figure_is_shown_and_its_text_is_legible(opened):
    page, _ = opened
    shown = page.evaluate("""[...document.querySelectorAll('figure')].map(figure =>
        [...figure.querySelectorAll('svg')].filter(drawing => drawing.getBoundingClientRect().width > 0).length)""")
    assert set(shown) == {1}
    sizes = page.evaluate("""[...document.querySelectorAll('figure svg')].flatMap(drawing => {
        const scale = drawing.getBoundingClientRect().width / drawing.viewBox.baseVal.width;
        const texts = scale > 0 ? [...drawing.querySelectorAll('text')] : [];
        return texts.map(text => parseFloat(getComputedStyle(text).fontSize) * scale)})""")
    assert min(sizes) >= 11.0


def test_no_text_of_a_figure_is_cut_off(opened):
    page, _ = opened
    outside = page.evaluate("""[...document.querySelectorAll('figure svg')].flatMap(drawing => {
        const frame = drawing.getBoundingClientRect();
        return [...drawing.querySelectorAll('text')].filter(text => {
            const box = text.getBoundingClientRect();
            return frame.width > 0 && (box.left < frame.left - 8 || box.right > frame.right + 8);
        }).map(text => text.textContent)})""")
    assert outside == []


def test_text_stays_readable_on_light_and_dark_paper(browser, pages):
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)
        page = context.new_page()
        page.goto(pages["sweep"].as_uri())
        for selector in ("body", ".fine", ".bounds", "figcaption", "a", "thead th", ".caveat strong"):
            assert contrast(page, selector) >= 4.5, (scheme, selector)
        context.close()


def test_closed_folds_are_open_on_paper(browser, pages, tmp_path):
    page = browser.new_page()
    page.goto(pages["sweep"].as_uri())
    page.emulate_media(media="print")
    # What stands in the last fold takes room although nobody opened it.
    assert page.evaluate("[...document.querySelectorAll('details .key')].pop().getBoundingClientRect().height") > 0
    page.close()


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
