"""card.json, and its page and Markdown: what they say, what is not recorded, what is escaped, what is equal twice."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from alpaca.config import ReportConfig
from alpaca.records import Example
from alpaca.report import blocks, markdown, sunburst, terms
from alpaca.stages.curate import card
from alpaca.stages.pool import Pool
from tests.unit.report_folders import HOSTILE, World, data_only, data_size_sweep
from tests.unit.test_report import Page, results_of

READER = MarkdownIt("commonmark", {"html": True}).enable("table")


def examples(number: int) -> list[Example]:
    verbs = ["Write", "Name", "Sort", "Explain"]
    return [
        Example(
            id=f"e{index:03d}",
            instruction=f"{verbs[index % 4]} the {index} red words.",
            input="" if index % 3 else "one two",
            output=f"answer {index} of many",
            provenance={"data_set": "ab"[index % 2]},
        )
        for index in range(number)
    ]


def pool_of(rows: list[Example]) -> Pool:
    return Pool(source="a file", teacher="somebody", examples=rows, candidates=len(rows) + 3)


def built(rows: list[Example], **details) -> dict:
    return json.loads(json.dumps(card.build(pool_of(rows), [], 0, rows, card.Details(**details)), allow_nan=False))


def test_a_card_shows_twenty_examples_by_the_order_of_the_seed_whatever_the_pools_order():
    rows = examples(60)
    ids = [row["id"] for row in built(rows)["examples"]]
    assert len(ids) == 20
    assert ids != [row.id for row in rows[:20]]
    assert [row["id"] for row in built(rows[::-1])["examples"]] == ids
    assert [row["id"] for row in built(rows, seed=1)["examples"]] != ids


def test_equal_examples_give_an_equal_card():
    assert built(examples(30)) == built(examples(30))


def test_a_card_leaves_out_what_was_not_done():
    found = built(examples(5))
    assert not {"nearest", "nearest_within", "ratings", "contamination", "moderation", "damage", "selection"} & set(
        found
    )
    assert found["seed"] == 0


def test_a_card_has_what_curation_tells_it():
    found = built(
        examples(5),
        selection={"rule": "longest", "size": 5},
        nearest=[0.1, 0.2, 0.3, 0.4, 0.5],
        nearest_within=[0.2, 0.4, 0.6],
        nearest_sampled=3,
        ratings=[4.5, 4.5, None, 2.0, 3.0],
        contamination={"embedded": card.Contamination(items=70, lcs=2, dropped=2, unsearchable=1)},
        moderation=card.Moderation(model="m", flagged=1, categories={"hate": 1}),
        damage={"label_noise": card.Damage(share=0.2, examples=1)},
    )
    assert found["nearest"]["p50"] == 0.3
    assert found["nearest_within"]["sampled"] == 3
    assert found["nearest_within"]["quantiles"]["p50"] == 0.4
    assert found["ratings"] == {"rated": 5, "unreadable": 1, "mean": 3.5, "scores": [[2.0, 1], [3.0, 1], [4.5, 2]]}
    assert found["contamination"]["embedded"] == {
        "items": 70, "lcs": 2, "ngram": None, "exact": 0, "dropped": 2, "unsearchable": 1
    }  # fmt: skip
    assert found["damage"] == {"label_noise": {"share": 0.2, "examples": 1}}
    assert found["parts"] == {"a": {"examples": 3, "kept": 3}, "b": {"examples": 2, "kept": 2}}


def test_no_example_at_all_makes_a_card():
    rows = examples(3)
    found = json.loads(json.dumps(card.build(pool_of(rows), [], 0, []), allow_nan=False))
    assert found["size"] == 0
    assert found["verbs"]["instructions"] == 0


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A run that ends with its data set, with everything that a card can hold."""
    asked = {
        "requested": {"temperature": 1.0, "seed": 1630426470, "stop": ["\n20"]},
        "honoured": {"temperature": "honoured", "seed": "ignored"},
        "model": "served-1", "shutdown_date": "2027-01-14", "checked": "2026-11-22",
    }  # fmt: skip
    world, config = data_only(
        tmp_path_factory.mktemp("full"),
        sizes=(1000,),
        teacher={"kind": "openai", "model": "gpt-4o-mini", "base_url": None},
        looked_at=asked,
        histograms=True,
        card={
            "teacher": "gpt-4o-mini-2024-07-18",
            "contamination": {"user_oriented_252": {"items": 252, "lcs": 7, "ngram": None, "dropped": 7}},
            "moderation": {"model": "omni", "flagged": 3, "categories": {"hate/threatening": 2, "violence": 0}},
            "ratings": {"rated": 5000, "unreadable": 2, "mean": 3.9, "scores": [[3.0, 100], [4.5, 200]]},
            "damage": {"label_noise": {"share": 0.2, "examples": 200}},
            "parts": {"ours": {"examples": 10, "kept": 9}, "theirs": {"examples": 5, "kept": 4}},
        },
    )
    return world.run(config)


def card_page(folder: Path) -> Page:
    (path,) = (folder / "data").glob("*.html")
    return Page(folder, f"data/{path.name}")


def card_text(folder: Path) -> str:
    (path,) = (folder / "data").glob("*.md")
    return path.read_text(encoding="utf-8")


def test_the_page_of_one_data_set_is_its_card(full):
    page = Page(full)
    assert re.search(r"<title>Data set 1000-s0-\w{8}</title>", page.source)
    assert "Sample responses" not in page.text
    assert "No run has finished" not in page.text
    headings = re.findall(r"<h2>(.*?)</h2>", page.source)
    assert headings[:2] == ["Overview", "From candidates to examples"]
    assert {"What the instructions ask for", "Flaws", "Datasheet", "Cost", "20 examples"} <= set(headings)
    assert len(headings) == len(set(headings))
    assert results_of(full)["answer"].startswith("1,000 examples, kept of 5,000 candidates; 10.0")


def test_page_and_markdown_of_a_card_have_the_same_sections_and_numbers(full):
    page, text = card_page(full), card_text(full)
    headings = [heading.replace("&#39;", "'") for heading in re.findall(r"<h2>(.*?)</h2>", page.source)]
    assert headings == re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    for number in (
        "drawn per request",
        "served-1",
        "252",
        "0.588",
        "2.62",
        "omni",
        "200",
        "2027-01-14",
        "hate/threatening",
    ):
        assert number in page.text, number
        assert number in text, number


def test_requested_and_honoured_parameters_stand_side_by_side(full):
    rows = re.findall(r"^\| (temperature|seed|stop) \| (.*?) \| (.*?) \|$", card_text(full), flags=re.MULTILINE)
    assert ("temperature", "1", "honoured") in rows
    assert ("seed", "drawn per request", "ignored") in rows
    assert "1630426470" not in card_text(full)  # the seed of one request of many
    assert next(row for row in rows if row[0] == "stop")[2] == "not tried, neutral"


def test_a_price_that_is_not_known_is_no_money(full, tmp_path):
    assert "price unknown" in card_text(full)
    assert "$" not in card_text(full)
    world, config = data_only(tmp_path, sizes=(1000,), usd=1.475)
    assert r"\$1.48" in card_text(world.run(config))


def test_terms_of_the_teacher_are_named_with_whom_to_ask(full):
    assert "OpenAI's terms forbid" in card_text(full)


def test_damage_is_said_before_anything_else(full):
    text = card_text(full)
    assert text.index("damaged on purpose") < text.index("## Overview")


def test_the_datasheet_has_its_seven_parts_and_says_what_was_not_recorded(full):
    text = card_text(full)
    sheet = text[text.index("## Datasheet") :]
    parts = re.findall(r"^### (.*)$", sheet, flags=re.MULTILINE)
    assert parts == [
        "Motivation", "Composition", "Collection", "Preprocessing", "Uses", "Distribution", "Maintenance"
    ]  # fmt: skip
    assert "**Who made it, and for whom?** Not recorded." in sheet
    assert "omni flagged 3 candidates" in sheet


def test_every_link_of_a_card_leads_somewhere_and_nothing_is_loaded(full):
    page = card_page(full)
    assert len(page.links) > 4
    assert [link for link in page.links if not (full / "data" / unquote(link)).exists()] == []
    assert not {"script", "img", "iframe"} & set(page.tags)
    assert len(page.ids) == len(set(page.ids))


def test_the_head_of_the_markdown_is_yaml_that_hubs_know(full, tmp_path):
    head = yaml.safe_load(card_text(full).split("---\n")[1])
    assert head["size_categories"] == ["1K<n<10K"]
    assert head["tags"] == ["instruction-tuning", "synthetic"]
    assert "license" not in head  # whether it may be given on is not ours to say
    assert "language" not in head  # nobody looked
    world, config = data_only(tmp_path, sizes=(250,))
    head = yaml.safe_load(card_text(world.run(config)).split("---\n")[1])
    assert (head["license"], head["size_categories"]) == ("apache-2.0", ["n<1K"])


def test_a_sweep_of_data_sets_is_a_table_of_them(tmp_path):
    world, config = data_only(tmp_path)
    folder = world.run(config)
    page = Page(folder)
    assert re.search(r"<title>sizes: data sets</title>", page.source)
    assert results_of(folder)["answer"] == "2 data sets of 250 to 1,000 examples."
    assert [row["size"] for row in results_of(folder)["data_sets"]] == [250, 1000]
    assert {row["distinct_2"] for row in results_of(folder)["data_sets"]} == {0.52}
    table = page.source[page.source.index("Data sets compared") :]
    for size in ("250", "1000"):
        (path,) = (folder / "data").glob(f"{size}-*.html")
        assert f'href="data/{path.name}"' in table
    assert "Runs</h2>" not in page.source


def test_data_sets_that_did_not_finish_are_counted(tmp_path):
    world, config = data_only(tmp_path, sizes=(250, 1000, 4000))
    world.lose(*[name for name in world.parents if name.startswith("curate/1000")])
    folder = world.run(config)
    assert results_of(folder)["answer"] == "2 data sets of 250 to 4,000 examples; 1 more did not finish."
    assert "1 of 3 runs did not finish" in Page(folder).text


def test_a_page_without_any_finished_data_set_says_so(tmp_path):
    world, config = data_only(tmp_path, sizes=(250,))
    world.lose(*list(world.parents))
    assert results_of(world.run(config))["answer"] == "No data set is finished yet."


def test_a_run_that_was_only_trained_is_not_called_unfinished(tmp_path):
    world = World(output=tmp_path, evaluations={})
    folder = world.run(ReportConfig(title="trained", points=[world.point({}, 0, 0.5)]))
    assert results_of(folder)["answer"] == "1 run without an evaluation, so nothing is compared here."


def test_cards_that_a_report_no_longer_has_are_removed(tmp_path):
    world, config = data_only(tmp_path)
    folder = world.run(config)
    config.points = config.points[:1]
    assert [path.name.split("-")[0] for path in sorted((world.run(config) / "data").iterdir())] == ["250", "250"]
    assert folder.exists()


def test_a_card_of_an_earlier_version_still_makes_a_page(tmp_path):
    world, config = data_only(tmp_path, sizes=(250,))
    path = world.parents[config.points[0].stages["curate"]] / "card.json"
    path.write_text(json.dumps({"size": 250, "pool": 300, "steps": [], "with_input": 3}), encoding="utf-8")
    assert "250 examples, kept of 300 candidates" in card_text(world.run(config))


def test_a_real_card_makes_a_page(tmp_path):
    rows = examples(40)
    details = {"nearest_within": [0.5] * 40, "nearest_sampled": 40, "selection": {"rule": "diverse", "size": 40}}
    steps = [{"name": "length", "dropped": 3, "kept": 40}]
    world, config = data_only(tmp_path, sizes=(40,), card={**built(rows, **details), "steps": steps})
    text = card_text(world.run(config))
    assert "| length | 3 | 40 |" in text
    assert "| write | 10 | 25.0 % | word 10 |" in text
    assert "farthest first" in text
    assert "| a | – | 20 | 20 | – |" in text


def test_hostile_texts_are_shown_and_never_obeyed_in_page_and_markdown(tmp_path):
    fence = "````\n# no heading\n<script>alert(1)</script>\n```"
    row = {"id": HOSTILE, "instruction": HOSTILE, "input": fence, "output": f"{fence}\n| a | b |", "provenance": {}}
    verbs = {
        "method": "rules", "instructions": 1, "with_verb": 1, "with_object": 1, "questions": 0, "other": 0,
        "effective_verbs": 1.0, "different_verbs": 1, "question_words": [],
        "top": [{"verb": HOSTILE, "count": 1, "objects": [[HOSTILE, 1]]}],
    }  # fmt: skip
    overrides = {"source": HOSTILE, "teacher": "a | b `c` [d](http://e)", "examples": [row], "verbs": verbs}
    world, config = data_only(tmp_path, sizes=(250,), card=overrides)
    folder = world.run(config)
    assert not {"script", "b"} & set(Page(folder).tags)
    assert not {"script", "b"} & set(card_page(folder).tags)
    made = READER.render(card_text(folder).split("---\n", 2)[2])
    assert "<script" not in made
    assert "<b>" not in made
    assert "<td>a | b `c` [d](http://e)</td>" in made
    assert "no heading</h1>" not in made
    assert made.count("<table>") == card_text(folder).count("\n| ---")


@given(st.one_of(st.text(max_size=40), st.text(alphabet="_*`a~\\[]<@given(st.text(max_size=40));# 1.-\n", max_size=20)))
def test_escaped_text_reads_as_it_was(text):
    made = READER.render(markdown.paragraph(text))
    shown = re.sub(r"\A<p>|</p>\n\Z", "", made)
    for entity, mark in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        shown = shown.replace(entity, mark)
    assert shown == " ".join(text.split()).replace("\0", "\N{REPLACEMENT CHARACTER}")


@given(st.text(alphabet="`~ \nab#|", max_size=30))
def test_a_fence_cannot_be_closed_by_what_it_holds(text):
    made = READER.render(f"{markdown.fenced(text)}\n\nafter")
    assert made.count("<pre>") == 1
    assert made.endswith("<p>after</p>\n")


@pytest.mark.parametrize(
    "text", ["- a", "1. a", "+ a", "# a", "> a", "12) a", "--- a", "=== a", "* a", "| a | b |", "~~~"]
)
def test_nothing_that_a_line_begins_with_is_markup(text):
    assert READER.render(markdown.paragraph(text)).startswith("<p>")


@pytest.mark.parametrize(
    ("settings", "words", "licence"),
    [
        ({"kind": "openai", "base_url": None}, "OpenAI's terms forbid", ""),
        ({"kind": "openai", "base_url": "https://x.openai.azure.com/v1"}, "Microsoft", ""),
        ({"kind": "openai", "base_url": "http://localhost:8000/v1"}, "licence of its weights", ""),
        ({"kind": "openai", "base_url": "https://api.elsewhere.example/v1"}, "api.elsewhere.example", ""),
        ({"kind": "openai", "base_url": "https://notapi.openai.com.example/v1"}, "Not known", ""),
        ({"kind": "openai_batch"}, "OpenAI's terms forbid", ""),
        ({"kind": "programmatic"}, "no model wrote it", "apache-2.0"),
        ({"kind": "local"}, "licence of its weights", ""),
        ({"kind": "oracle"}, "Not known: ask", ""),
        ({}, "Not known: ask", ""),
    ],
)
def test_terms_depend_on_who_answered(settings, words, licence):
    found = terms.of_teacher(settings)
    assert words in found.text
    assert found.licence == licence


def test_the_released_data_is_known_by_its_digest():
    digest = "2eddafc6b977608d778aaab8dfc7e50e547b3af9826dfb9e909d9fc362e4a419"
    assert terms.of_published("None", digest).licence == "cc-by-nc-4.0"
    assert terms.of_published("None", "0" * 64).licence == ""


def test_published_data_names_its_digest_and_no_cost(tmp_path):
    digest = "2eddafc6b977608d778aaab8dfc7e50e547b3af9826dfb9e909d9fc362e4a419"
    world, config = data_only(
        tmp_path,
        sizes=(250,),
        way="released",
        teacher={},
        pool={"source_sha256": digest},
        card={"teacher": "published"},
    )
    path = world.parents[config.points[0].stages["sample"]] / "provenance.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "cost": {}}), encoding="utf-8")
    text = card_text(world.run(config))
    assert f"| sha256 | {digest} |" in text
    assert "Nobody was asked" in text
    assert 'license: "cc-by-nc-4.0"' in text


def test_a_mixture_has_the_terms_of_each_part(tmp_path):
    digest = "2eddafc6b977608d778aaab8dfc7e50e547b3af9826dfb9e909d9fc362e4a419"
    sources = {"alpaca": {"sha256": digest, "weight": 2.0}, "mine": {"sha256": "0" * 64, "weight": 1.0}}
    parts = {name: {"examples": 10, "kept": 9} for name in sources}
    world, config = data_only(
        tmp_path,
        sizes=(250,),
        way="mixture",
        teacher={},
        pool={"sources": sources},
        card={"parts": parts, "teacher": ""},
    )
    text = card_text(world.run(config))
    assert "alpaca: The released Alpaca data" in text
    assert "mine: Not known" in text
    assert "license:" not in text
    assert f"| alpaca | 2 | 10 | 9 | {digest[:12]} |" in text


WEDGES = [
    sunburst.Wedge(name="write", count=60, parts=[("story", 30), ("poem", 10)]),
    sunburst.Wedge(name="sort", count=39, parts=[]),
    sunburst.Wedge(name="abbreviate", count=1, parts=[("word", 1)]),
]


def test_the_rings_have_an_arc_for_each_verb_and_object_and_labels_where_they_fit():
    wide, narrow = re.findall(r"<svg.*?</svg>", sunburst.drawn(WEDGES, "First verbs"), flags=re.DOTALL)
    assert wide.count("<path") == narrow.count("<path") == 3 + 3
    labels = re.findall(r"<text[^>]*>(.*?)</text>", wide)
    assert labels == ["write", "story", "poem", "sort", "word"]  # the narrow wedge has its title alone
    assert "abbreviate: 1</title>" in wide


def test_one_verb_alone_is_a_whole_ring():
    drawn = sunburst.drawn([sunburst.Wedge(name="write", count=3, parts=[("poem", 3)])], "x")
    assert drawn.count("<path") == 4
    assert sunburst.drawn([], "x") == ""


@pytest.mark.parametrize("number", range(2, 30))
def test_neighbours_in_a_ring_never_share_a_colour(number):
    wedges = [sunburst.Wedge(name="a", count=1, parts=[]) for _ in range(number)]
    colours = re.findall(r'fill="(#\w{6})"', str(sunburst.drawn(wedges, "x")).split("</svg>")[0])
    assert all(colours[at] != colours[at - 1] for at in range(number))


def test_every_kind_of_block_can_be_written():
    every = [
        blocks.Text(text="plain"),
        blocks.Text(text="beware", kind="caveat"),
        blocks.Facts(rows=[("a", "b"), ("", blocks.Link(text="c", target="d"))]),
        blocks.Table(label="t", head=["x", "n"], rows=[["a|b", "1"]], right=frozenset({1})),
        blocks.Figure(svg=sunburst.drawn(WEDGES, "x"), caption="c"),
        blocks.Samples(items=[blocks.Sample(instruction="i", input="", output="o", origin="id")]),
        blocks.Questions(title="q", rows=[("why?", "so")]),
    ]
    document = blocks.Document(title="t", lead="l", sections=[blocks.Section(title="s", blocks=every)])
    text = markdown.written(document)
    assert not text.startswith("---")
    assert "| x | n |\n| --- | ---: |\n| a\\|b | 1 |" in text
    assert "> **Note:** beware" in text
    assert "<svg" not in text


def test_a_sweep_with_scores_keeps_its_answer_and_links_its_cards(tmp_path):
    world, config = data_size_sweep(tmp_path, seeds=1, items=10)
    folder = world.run(config)
    page = Page(folder)
    assert "points of exact match" in results_of(folder)["answer"]
    assert len(list((folder / "data").glob("*.md"))) == 3
    assert page.source.count(">data card</a>") == 3
    assert [row["size"] for row in results_of(folder)["data_sets"]] == [250, 1000, 4000]


ALPACA = "2eddafc6b977608d778aaab8dfc7e50e547b3af9826dfb9e909d9fc362e4a419"
DOLLY = "databricks/databricks-dolly-15k"
EARLIER = {"p10": 0.11, "p25": 0.12, "p50": 0.1313, "p75": 0.14, "p90": 0.15, "p99": 0.16}


def card_of(tmp_path: Path, **world) -> str:
    """The Markdown of the card of one data set of 250 examples."""
    made, config = data_only(tmp_path, sizes=(250,), **world)
    return card_text(made.run(config))


def head_of(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_near_duplicates_are_those_within_the_data_set_and_the_other_measure_has_its_own_name(tmp_path):
    within = {"sampled": 250, "quantiles": {"p50": 0.5882, "p99": 0.6999}}
    plain = card_of(tmp_path / "plain", card={"nearest_within": within})
    both = card_of(tmp_path / "both", card={"nearest_within": within, "nearest": EARLIER})
    for text in (plain, both):
        assert "| within the data set | 0.588 | 0.700 |" in text
        assert "Each instruction was compared with every other one of this data set: for half of them the " in text
    assert "neighbours.jsonl" not in plain
    assert "| among seeds and earlier pool texts | 0.110 |" in both
    assert "as in neighbours.jsonl" in both
    only = card_of(tmp_path / "only", card={"nearest_within": {}, "nearest": EARLIER})
    assert "0.131" in only
    assert "how similar was not recorded" in only


def test_a_sample_of_near_duplicates_is_called_one(tmp_path):
    within = {"sampled": 77, "quantiles": {"p50": 0.5882, "p99": 0.6999}}
    text = card_of(tmp_path, card={"nearest_within": within})
    assert "Within the data set: a sample of 77 instructions against" in text
    assert "A sample of 77 instructions was compared" in text


def test_data_sets_are_compared_by_near_duplicates_within_them(tmp_path):
    world, config = data_only(tmp_path, card={"nearest": EARLIER})
    folder = world.run(config)
    assert {row["nearest_median"] for row in results_of(folder)["data_sets"]} == {0.5882}
    world, config = data_only(tmp_path / "older", card={"nearest": EARLIER, "nearest_within": {}})
    assert {row["nearest_median"] for row in results_of(world.run(config))["data_sets"]} == {None}


def test_items_that_could_not_be_looked_for_are_said(tmp_path):
    found = {"items": 70, "lcs": None, "ngram": 1, "dropped": 1}
    text = card_of(tmp_path, card={"contamination": {"embedded": {**found, "unsearchable": 9}}})
    assert "a near copy would not be found: 9 items of embedded." in text
    assert "Too few words" not in card_of(tmp_path / "all", card={"contamination": {"embedded": found}})


@pytest.mark.parametrize("way", ["reanswer", "evolve"])
def test_instructions_of_a_published_file_have_its_terms_whoever_answers(tmp_path, way):
    pool = {"source_sha256": ALPACA, "source_path_name": "alpaca_data.json"}
    text = card_of(tmp_path, way=way, pool=pool, data_gen={"path": "/somewhere/alpaca_data.json"})
    assert "license" not in head_of(text)  # Apache 2.0 for the answers, CC BY-NC for the instructions
    assert "Answers: Computed by a program" in text
    assert "Instructions: The released Alpaca data" in text
    assert f"| Instructions of | alpaca_data.json, sha256 {ALPACA} |" in text
    assert "/somewhere" not in text


def test_instructions_of_a_file_that_nobody_knows_take_the_licence_away(tmp_path):
    text = card_of(tmp_path, way="reanswer", data_gen={"path": "mine.jsonl"})  # no digest: an older run
    assert "license" not in head_of(text)
    assert "Instructions: Not known: ask who published it." in text
    asked = card_of(tmp_path / "api", way="evolve", teacher={"kind": "openai"}, pool={"source_sha256": "1" * 64})
    assert "Answers: OpenAI's terms forbid" in asked
    assert "Instructions: Not known: ask who published it." in asked


def test_evolved_tasks_of_this_project_keep_its_licence(tmp_path):
    assert head_of(card_of(tmp_path, way="evolve", data_gen={"path": None}))["license"] == "apache-2.0"


def test_a_file_that_is_used_instead_of_the_hub_has_neither_its_licence_nor_its_name(tmp_path):
    settings = {"way": "released", "teacher": {}, "pool": {"source_sha256": "1" * 64}}
    mine = card_of(tmp_path, **settings, data_gen={"hub": DOLLY, "path": "/somewhere/mine.jsonl", "revision": "main"})
    assert "license" not in head_of(mine)
    assert "databricks" not in mine.lower()
    assert "| File | mine.jsonl |" in mine


def test_data_from_the_hub_names_the_commit_that_was_read(tmp_path):
    pool = {"source_sha256": "1" * 64, "commit": "c0ffee" * 6}
    text = card_of(tmp_path, way="released", teacher={}, pool=pool, data_gen={"hub": DOLLY, "revision": "main"})
    assert head_of(text)["license"] == "cc-by-sa-3.0"
    assert f"| On the hub | {DOLLY}, commit {'c0ffee' * 6} |" in text


def test_each_part_of_a_mixture_has_its_own_origin(tmp_path):
    pool = {
        "sources": {
            "hub": {"sha256": "1" * 64, "commit": "c0ffee" * 6, "available": 90, "multi_turn": 4},
            "mine": {"sha256": "2" * 64, "available": 10},
        }
    }
    asked = {"hub": {"hub": DOLLY, "path": None}, "mine": {"hub": DOLLY, "path": "mine.jsonl"}}
    text = card_of(tmp_path, way="mixture", teacher={}, pool=pool, data_gen={"sources": asked})
    assert "license" not in head_of(text)
    assert "mine: Not known: ask who published it." in text
    assert f"| From hub | {DOLLY}, commit {'c0ffee' * 6} |" in text
    assert f"| From mine | mine.jsonl, sha256 {'2' * 64} |" in text
    assert "hub: only the first turn of 4 conversations" in text
    same = {name: {"hub": DOLLY, "path": None} for name in asked}
    text = card_of(tmp_path / "same", way="mixture", teacher={}, pool=pool, data_gen={"sources": same})
    assert head_of(text)["license"] == "cc-by-sa-3.0"


def adopted(number: int, **more) -> list[dict]:
    row = {"prompt_tokens": 100, "completion_tokens": 900, "cached_tokens": 5, "reasoning_tokens": 0, "adopted": True}
    return [{"id": f"r{index}", **row, **more} for index in range(number)]


NOTHING = {"requests": 0, "prompt_tokens": 0, "completion_tokens": 0, "cached_tokens": 0, "reasoning_tokens": 0}
API = {"kind": "openai", "model": "gpt-4o-mini", "base_url": None}


def test_a_pool_that_was_wholly_taken_over_has_a_cost_of_an_earlier_run(tmp_path):
    asked = {"first_number": 4, "messages": [], "temperature": 0.7, "top_p": 1.0, "max_tokens": 3072, "seed": 12345678}
    text = card_of(
        tmp_path, teacher=API, usd=0.0, paid={**NOTHING, "adopted_requests": 50}, raw=adopted(50), asked=asked
    )
    assert "| sample, taken over from earlier runs | 50 | 5,000 | 250 | 45,000 | 0 | paid in an earlier run |" in text
    assert "0 new requests, 50 taken over" in text
    assert "200 tokens for each example" in text
    assert "| temperature | 0.7 | not probed |" in text
    assert "| seed | drawn per request | not probed |" in text
    cost = text[text.index("## Cost") : text.index("## 20 examples")]
    assert "Not recorded" not in cost
    assert "| sample |" not in cost


def test_a_pool_that_was_partly_taken_over_counts_the_tokens_of_all_its_answers(tmp_path):
    paid = {**NOTHING, "requests": 10, "prompt_tokens": 1000, "completion_tokens": 9000, "adopted_requests": 40}
    own = [{**row, "adopted": False} for row in adopted(10)]
    text = card_of(tmp_path, teacher=API, usd=0.25, paid=paid, raw=own + adopted(40))
    assert r"| sample | 10 | 1,000 | 0 | 9,000 | 0 | \$0.25 |" in text
    assert "| sample, taken over from earlier runs | 40 | 4,000 | 200 | 36,000 | 0 | paid in an earlier run |" in text
    assert "200 tokens for each example" in text
    assert "0 new requests" not in text


def test_a_replay_pays_nothing_and_its_tokens_are_as_recorded(tmp_path):
    text = card_of(tmp_path, teacher={"kind": "replay"}, usd=3.5)
    assert "| sample, replayed: tokens as recorded | 250 | 181,204 | 1,024 | 402,110 | – | nothing paid |" in text
    assert "3.50" not in text


def test_the_card_says_that_only_first_turns_are_used(tmp_path):
    settings = {"way": "released", "teacher": {}}
    text = card_of(tmp_path, **settings, pool={"source_sha256": "1" * 64, "multi_turn": 30})
    assert text.count("nly the first turn of 30 conversations with several is used") == 2
    text = card_of(tmp_path / "none", **settings, pool={"source_sha256": "1" * 64})
    assert "first turn" not in text


def answer_to(text: str, question: str) -> str:
    return re.search(rf"^\*\*{re.escape(question)}\*\* (.*)$", text, flags=re.MULTILINE)[1]


def test_the_datasheet_lists_repairs_and_damage_and_calls_no_damaged_output_an_answer(full, tmp_path):
    done = answer_to(card_text(full), "What was done to the raw data?")
    assert 'Before the filters 12 inputs that only said "no input" were made empty.' in done
    assert "damage was done on purpose: 200 outputs replaced" in done
    assert "damaged on purpose (200 changes)" in answer_to(card_text(full), "What does a record stand for?")
    sound = card_of(tmp_path, card={"repairs": {}})
    assert "on purpose" not in sound
    assert "no input" not in answer_to(sound, "What was done to the raw data?")
    assert "good" not in answer_to(sound, "What does a record stand for?")


def test_a_data_set_from_which_nothing_was_dropped_is_no_sample(tmp_path):
    question = "Is it a sample of something larger?"
    whole = card_of(tmp_path, card={"pool": 250, "size": 250})
    assert answer_to(whole, question) == "No, all 250 candidates are in it."
    part = card_of(tmp_path / "part", card={"pool": 251, "size": 250})
    assert answer_to(part, question).startswith("Yes, of 251 candidates")
    sources = {"a": {"available": 400}, "b": {"available": 100}}
    mixed = card_of(
        tmp_path / "mixed", way="mixture", teacher={}, pool={"sources": sources}, card={"pool": 250, "size": 250}
    )
    assert answer_to(mixed, question) == "Of 500 published records 250 were mixed."


def test_a_command_is_code_that_nothing_escapes(tmp_path):
    world, config = data_only(tmp_path, sizes=(250,))
    config.command = "python launch.py 'data_gen.sources={a_b:{path:[x]}}' | tee `date`.log"
    folder = world.run(config)
    made = READER.render(card_text(folder).split("---\n", 2)[2])
    shown = config.command.replace("'", "&#39;")
    assert made.replace("'", "&#39;").count(f"<code>{shown}</code>") == 2
    assert card_page(folder).source.count(f"<code>{shown}</code>") == 2


@given(st.text(alphabet="`~ \nab#|\\", min_size=1, max_size=30))
def test_a_code_span_shows_its_text(text):
    flat = " ".join(text.split())
    made = READER.render(f"x{markdown.code(text)}x")
    assert made == (f"<p>x<code>{flat}</code>x</p>\n" if flat else "<p>xx</p>\n")


def test_tasks_beyond_the_list_are_explained(tmp_path):
    steps = [{"name": "beyond the list", "dropped": 6, "kept": 250}]
    assert "after the task that filled the pool" in card_of(tmp_path, card={"steps": steps})
    assert "filled the pool" not in card_of(tmp_path / "none", card={"steps": [{**steps[0], "dropped": 0}]})
