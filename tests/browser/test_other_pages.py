"""The list of all pages and the comparison of two results in Chromium, with hostile and with long texts."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from alpaca.report import html, index
from alpaca.report.diff import compare, drawn, page, sides
from tests.browser.test_report_page import WIDTHS, browser, contrast  # noqa: F401 - a fixture
from tests.unit.chain_folders import Chains, example
from tests.unit.report_folders import HOSTILE

LONG = f"{HOSTILE} {'x' * 200} {'words and ' * 30}"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Name -> file: list, empty list, comparison, comparison of two questions."""
    output = tmp_path_factory.mktemp("pages") / "outputs"
    chains = Chains(output=output)
    one = chains.run(size=3, lr=0.1)
    chains.code = chains.snapshot("c1de", {"alpaca/a.py": "y" * 300 + "\n"})
    chains.packages = {"torch": "9" * 40}
    other = chains.run(size=5, lr=0.3, examples=[example(0, LONG), *(example(number) for number in range(1, 5))])
    chains.code = chains.snapshot("c2de", {"alpaca/a.py": "z" * 300 + "\n"})
    third = chains.run(size=7, lr=0.2)
    for name, runs in (("sweeps/first", [one, third]), ("sweeps/other", [one, other]), ("runs/tiny-0123abcd", [one])):
        chains.page(name, runs, question=LONG if name == "sweeps/other" else "", answer=LONG)
    (output / chains.page("sweeps/torn", [one], question=LONG) / "report.html").unlink()
    found = {"list": index.renew(output), "empty list": index.renew(tmp_path_factory.mktemp("empty"))}
    for name, labels in {
        "comparison": (other["score:embedded"], third["score:embedded"]),
        "comparison of sweeps": ("sweeps/first", "sweeps/other"),
        "equal": (one["train"], one["train"]),
    }.items():
        made = compare.compare(*(sides.read_side(output, label) for label in labels))
        found[name] = output.parent / f"{name}.html"
        html.write(found[name], drawn.render(page.page(made, patches=True)))
    return found


NAMES = ("list", "empty list", "comparison", "comparison of sweeps", "equal")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_no_sideways_scrolling_no_request_no_error(browser, pages, name, width):  # noqa: F811
    opened = browser.new_page(viewport={"width": width, "height": 900})
    heard: list[str] = []
    opened.on("request", lambda asked: heard.append(asked.url))
    opened.on("console", lambda message: heard.append(message.text))
    opened.on("pageerror", lambda error: heard.append(str(error)))
    opened.goto(pages[name].as_uri(), wait_until="load")
    opened.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    assert opened.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert [url for url in heard if not url.startswith("data:")] == [pages[name].as_uri()]
    opened.close()


def test_every_link_of_the_list_leads_to_something_that_exists(browser, pages):  # noqa: F811
    opened = browser.new_page()
    opened.goto(pages["list"].as_uri())
    links = opened.evaluate("[...document.querySelectorAll('a')].map(link => link.href)")
    assert len(links) == 12  # a heading and three files of each of the three pages
    assert [link for link in links if not Path(unquote(urlparse(link).path)).exists()] == []
    opened.close()


def test_text_stays_readable_on_light_and_dark_paper(browser, pages):  # noqa: F811
    selectors = {"list": ("body", ".fine", "a", "code"), "comparison": ("dt", "thead th", "summary", "pre", ".given")}
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)
        opened = context.new_page()
        for name, wanted in selectors.items():
            opened.goto(pages[name].as_uri())
            for selector in wanted:
                assert contrast(opened, selector) >= 4.5, (scheme, name, selector)
        context.close()


def test_the_list_is_printed_on_paper_without_its_buttons(browser, pages):  # noqa: F811
    opened = browser.new_page()
    opened.goto(pages["list"].as_uri())
    opened.emulate_media(media="print")
    assert opened.evaluate("document.querySelector('.links').getBoundingClientRect().height") == 0
    assert opened.evaluate("document.querySelector('.entry h3').getBoundingClientRect().height") > 0
    opened.close()
