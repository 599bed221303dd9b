"""Curation of small pools: what each step drops, what is repaired, which subset is chosen; and the score stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alpaca.artifacts import Context, read_json
from alpaca.config import CurateConfig, Data, DataSeed, EvalSource, ScoreConfig
from alpaca.curation.filters import FLAWS, RELEASED, dropped_by
from alpaca.errors import ArtifactError, UserError
from alpaca.records import Example, encode, read_jsonl, write_jsonl
from alpaca.stages import curate, score
from alpaca.stages.pool import read_pool

FILTERS = ["length", "keywords", "write_a_program", "punctuation", "non_ascii", "empty_output"]


def context(folder: Path, **parents: Path) -> Context:
    (folder / "work").mkdir(parents=True, exist_ok=True)
    return Context(folder=folder, work=folder / "work", parents=parents)


def released_pool(folder: Path, rows: list[tuple[str, str, str]]) -> Path:
    folder.mkdir(exist_ok=True)
    write_jsonl(
        folder / "examples.jsonl",
        [
            {
                "id": f"released_{index:06d}",
                "instruction": instruction,
                "input": given,
                "output": output,
                "provenance": {},
            }
            for index, (instruction, given, output) in enumerate(rows)
        ],
    )
    (folder / "pool.json").write_text(json.dumps({"source_sha256": "0" * 64}))
    return folder


def curated(
    tmp_path: Path,
    rows: list[tuple[str, str, str]],
    *,
    evaluations: dict[str, EvalSource] | None = None,
    parents: dict[str, Path] | None = None,
    **settings: Any,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    pool = released_pool(tmp_path / "pool", rows)
    data = Data(**{"size": None, "filters": FILTERS, "normalise_no_input": True, "dedup_threshold": 0.7, **settings})
    target = context(tmp_path / "out", pool=pool, **(parents or {}))
    curate.run(CurateConfig(data=data, seeds=DataSeed(data=0), evaluations=evaluations or {}), target)
    return list(read_jsonl(target.folder / "examples.jsonl")), read_json(target.folder / "card.json")


def dropped(card: dict[str, Any]) -> dict[str, int]:
    return {step["name"]: step["dropped"] for step in card["steps"] if step["dropped"]}


ROWS = [
    ("Name three large rivers of Europe.", "", "Danube, Rhine, Volga"),
    ("Name three large rivers of Africa.", "", "Nile, Congo, Niger"),
    ("Draw a cat with a hat.", "", "-"),
    ("Too short here", "", "x"),
    ("Explain why the sky looks blue.", "No input", "Scattering"),
    ("Translate the greeting into French please.", "Good morning", ""),
]


def test_each_step_counts_what_it_drops(tmp_path: Path) -> None:
    kept, card = curated(tmp_path, ROWS)
    assert dropped(card) == {"length": 1, "keywords": 1, "empty_output": 1, "deduplication": 1}
    assert [step["kept"] for step in card["steps"]][-1] == len(kept) == card["size"] == 2
    assert card["repairs"] == {"no_input_spellings": 1}
    assert {name: count for name, count in card["defects"].items() if count} == {
        "empty_output": 1, "no_input_spelling": 1,
    }  # fmt: skip
    assert "families" not in card  # who made a task is nothing that curation knows
    assert {row["input"] for row in kept} == {""}


def test_as_released_changes_nothing(tmp_path: Path) -> None:
    kept, card = curated(tmp_path, ROWS, filters=[], normalise_no_input=False, dedup_threshold=None)
    assert sorted(row["instruction"] for row in kept) == sorted(row[0] for row in ROWS)
    assert card["repairs"] == {"no_input_spellings": 0}
    assert card["defects"]["empty_output"] == 1


def test_more_than_there_is_is_an_error_with_the_number(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2"):
        curated(tmp_path, ROWS, size=5)


def test_responses_of_a_teacher_are_parsed_with_ids_and_provenance(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    text = (
        " Name two small lakes.\n4. Input:\n<noinput>\n4. Output:\nLaacher See and Eibsee\n###\n"
        "5. Instruction: What is the plural of mouse?\n5. Input:\n<noinput>\n5. Output:\nMice\n###\nbroken"
    )
    write_jsonl(
        pool / "responses.jsonl",
        [
            {
                "id": "request_000000",
                "text": text,
                "finish_reason": "stop",
                "model": "m",
                "request": {"seeds": ["a"], "first_number": 4, "last_number": 5},
            }
        ],
    )
    (pool / "pool.json").write_text(json.dumps({"requests": 1, "seed_instructions": ["Name two small lakes today."]}))
    target = context(tmp_path / "out", pool=pool)
    curate.run(CurateConfig(data=Data(size=None, filters=FILTERS, dedup_threshold=0.7), seeds=DataSeed()), target)
    (row,) = read_jsonl(target.folder / "examples.jsonl")
    assert row["id"] == "request_000000_05"
    assert row["provenance"] == {
        "teacher": "m", "request": "request_000000", "seeds": ["a"], "filters": [*FILTERS, "deduplication"],
    }  # fmt: skip
    steps = {step["name"]: step["dropped"] for step in read_json(target.folder / "card.json")["steps"]}
    assert steps["malformed"] == 1
    assert steps["deduplication"] == 1


def test_json_answers_are_parsed_and_their_cut_end_is_counted(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    text = json.dumps({"tasks": [{"instruction": "Name two small lakes.", "output": "Eibsee"}, {"instruction": "x"}]})
    asked = {"seeds": ["a"], "first_number": 1, "last_number": 9, "form": "json_schema"}
    write_jsonl(
        pool / "responses.jsonl",
        [{"id": "request_000000", "text": text[:-9], "finish_reason": "length", "model": "m", "request": asked}],
    )
    (pool / "pool.json").write_text(json.dumps({"requests": 1, "seed_instructions": []}))
    found = read_pool(pool)
    assert [(example.id, example.output) for example in found.examples] == [("request_000000_01", "Eibsee")]
    assert {step.name: step.dropped for step in found.steps} == {"malformed": 0, "cut off": 1, "beyond the list": 0}


def example_row(id: str, **provenance: Any) -> dict[str, Any]:
    return {
        "id": id, "instruction": "Name a lake.", "input": "", "output": "Eibsee", "provenance": provenance,
    }  # fmt: skip


def test_prepared_candidates_bring_what_was_left_out_before(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "candidates.jsonl", [example_row("b", teacher="m"), example_row("a", teacher="n")])
    summary = {"requests": 7, "dropped": {"cut_or_empty": 3, "rewriting unchanged": 2}, "seed_instructions": ["s"]}
    (tmp_path / "pool.json").write_text(json.dumps(summary))
    pool = read_pool(tmp_path)
    assert [example.id for example in pool.examples] == ["b", "a"]
    assert (pool.candidates, pool.teacher, pool.seed_instructions) == (7, "m, n", ["s"])
    assert [(step.name, step.dropped, step.kept) for step in pool.steps] == [
        ("cut or empty", 3, 4), ("rewriting unchanged", 2, 2),
    ]  # fmt: skip


def test_a_mixture_names_its_data_sets(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "examples.jsonl", [example_row("a_0"), example_row("b_0")])
    sources = {"a": {"sha256": "0" * 64, "examples": 1}, "b": {"sha256": "1" * 64, "examples": 1}}
    (tmp_path / "pool.json").write_text(json.dumps({"source_sha256": "2" * 64, "sources": sources}))
    assert read_pool(tmp_path).source == "2 published data sets (a, b)"


def test_equal_ids_in_a_pool_are_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "examples.jsonl", [example_row("a"), example_row("b"), example_row("a")])
    (tmp_path / "pool.json").write_text(json.dumps({"source_sha256": "0" * 64}))
    with pytest.raises(ArtifactError, match="1 ids more than once: a"):
        read_pool(tmp_path)


def test_a_folder_without_any_pool_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="none of examples"):
        read_pool(tmp_path)


# Twenty instructions that no filter drops.
WORDS = (
    "anchor", "barn", "cloud", "desert", "engine", "forest", "garden", "harbour", "island", "jungle", "kettle",
    "ladder", "mountain", "needle", "ocean", "pebble", "quarry", "river", "sunrise", "tunnel",
)  # fmt: skip
MANY = [
    (f"Explain the word {word} to a child in {number} sentences.", "", " ".join([word] * number) + ".")
    for number, word in enumerate(WORDS, 2)
]


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


@pytest.mark.parametrize("selection", ["random", "longest", "shortest", "diverse"])
def test_smaller_sizes_are_the_beginning_of_larger_ones(tmp_path: Path, selection: str) -> None:
    chosen = {}
    for size in (3, 8, 20):
        rows, card = curated(tmp_path, MANY, size=size, selection=selection, dedup_threshold=None)
        chosen[size] = ids(rows)
        assert card["steps"][-1] == {"name": "selection", "dropped": 20 - size, "kept": size}
        assert card["selection"]["rule"] == selection
    assert chosen[20][:8] == chosen[8]
    assert chosen[8][:3] == chosen[3]


def test_a_share_of_inputs_is_kept_at_every_size(tmp_path: Path) -> None:
    rows = [(text, "with this" if number % 4 == 0 else "", output) for number, (text, _, output) in enumerate(MANY)]
    found = {}
    for size in (4, 10):
        chosen, card = curated(tmp_path, rows, size=size, input_share=0.5, dedup_threshold=None)
        assert sum(bool(row["input"]) for row in chosen) == size / 2
        assert card["selection"]["input_share"] == 0.5
        found[size] = ids(chosen)
    assert found[10][:4] == found[4]
    with pytest.raises(UserError, match="12 examples wanted, 11 are there"):
        curated(tmp_path, rows, size=12, input_share=0.5, dedup_threshold=None)


def test_the_longest_outputs_are_chosen(tmp_path: Path) -> None:
    rows, _ = curated(tmp_path, MANY, size=3, selection="longest", dedup_threshold=None)
    assert [row["output"].split()[0] for row in rows] == ["tunnel", "sunrise", "river"]


def test_listed_positions_are_those_of_the_pool_as_it_was_sampled(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text("[4, 1, 2]")
    rows, _ = curated(tmp_path, ROWS, selection="indices", indices=str(path), dedup_threshold=None)
    assert ids(rows) == ["released_000004", "released_000001"]  # 2 names a drawing, which a filter drops
    rows, _ = curated(tmp_path, ROWS, selection="indices", indices=str(path), dedup_threshold=None, size=1)
    assert ids(rows) == ["released_000004"]
    path.write_text("[4, 6]")
    with pytest.raises(UserError, match="entry 1 is 6, but the pool has 6 examples"):
        curated(tmp_path, ROWS, selection="indices", indices=str(path))


def rated(folder: Path, scores: list[float | None]) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    rows = [{"id": f"released_{index:06d}", "score": score, "text": ""} for index, score in enumerate(scores)]
    write_jsonl(folder / "ratings.jsonl", rows)
    return {"rate": folder}


def test_the_judge_chooses_by_score(tmp_path: Path) -> None:
    parents = rated(tmp_path / "rate", [3.0, None, 5.0, 4.5, 4.5, 1.0])
    settings = {"filters": [], "dedup_threshold": None, "selection": "judge_score", "parents": parents}
    rows, card = curated(tmp_path, ROWS, **settings)
    scores = [row["provenance"]["judge_score"] for row in rows]
    assert scores == [5.0, 4.5, 4.5, 3.0, 1.0, None]
    assert card["ratings"]["unreadable"] == 1
    least, _ = curated(tmp_path, ROWS, judge_least=4.5, **settings)
    assert ids(least) == ids(rows)[:3]
    with pytest.raises(UserError, match="4 examples wanted, 3 are there"):
        curated(tmp_path, ROWS, judge_least=4.5, size=4, **settings)


def test_missing_ratings_and_verdicts_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no judge's scores"):
        curated(tmp_path, ROWS, selection="judge_score")
    with pytest.raises(ArtifactError, match="no row for 2 of 6 examples: released_000004, released_000005"):
        curated(tmp_path, ROWS, selection="judge_score", parents=rated(tmp_path / "rate", [1.0] * 4))
    with pytest.raises(UserError, match="nothing was moderated"):
        curated(tmp_path, ROWS, moderation="openai")


def test_flagged_examples_are_dropped_before_they_can_take_near_duplicates_with_them(tmp_path: Path) -> None:
    folder = tmp_path / "moderate"
    folder.mkdir()
    verdicts = {0: ["violence", "hate"], 3: ["hate"]}
    rows = [
        {"id": f"released_{index:06d}", "flagged": index in verdicts, "categories": verdicts.get(index, [])}
        for index in range(len(ROWS))
    ]
    write_jsonl(folder / "moderation.jsonl", rows)
    kept, card = curated(tmp_path, ROWS, moderation="openai", parents={"moderate": folder})
    assert "released_000001" in ids(kept)  # near-duplicate of the flagged first
    assert card["moderation"]["flagged"] == 1  # the other was dropped by a filter before
    assert card["moderation"]["categories"] == {"hate": 1, "violence": 1}
    assert dropped(card)["moderation"] == 1
    assert "moderation" in kept[0]["provenance"]["filters"]


def test_contaminated_examples_go_and_are_listed(tmp_path: Path) -> None:
    item = {
        "id": "item_0", "instruction": "Explain why the sky looks so blue.", "motivation_app": "",
        "instances": [{"input": "", "output": "-"}],
    }  # fmt: skip
    for name in ("one", "two"):
        (tmp_path / f"{name}.jsonl").write_text(encode(item) + "\n")
    sources = {name: EvalSource(set="user_oriented", path=str(tmp_path / f"{name}.jsonl")) for name in ("one", "two")}
    kept, card = curated(tmp_path, ROWS, decontaminate_lcs=0.7, decontaminate_ngram=3, evaluations=sources)
    assert "released_000004" not in ids(kept)
    assert dropped(card)["decontamination: one"] == 1
    assert "decontamination: two" not in dropped(card)  # already gone
    assert card["contamination"]["two"] == {
        "items": 1, "lcs": 1, "ngram": 1, "exact": 0, "dropped": 1, "unsearchable": 0,
    }  # fmt: skip
    rows = list(read_jsonl(tmp_path / "out" / "contamination.jsonl"))
    assert [(row["example"], row["item"], row["evaluation"], row["method"]) for row in rows] == [
        ("released_000004", "item_0", evaluation, method)
        for evaluation in ("one", "two")
        for method in ("lcs", "ngram")
    ]
    assert rows[1]["score"] == 3.0


def test_without_evaluations_nothing_is_decontaminated(tmp_path: Path) -> None:
    _, card = curated(tmp_path, ROWS, decontaminate_lcs=0.7)
    assert "contamination" not in card
    assert not (tmp_path / "out" / "contamination.jsonl").exists()


def test_neighbours_are_written_in_the_released_form(tmp_path: Path) -> None:
    kept, card = curated(tmp_path, ROWS, neighbours=True, filters=[], dedup_threshold=None)
    rows = {row["id"]: row for row in read_jsonl(tmp_path / "out" / "neighbours.jsonl")}
    assert list(rows) == ids(kept)
    second = rows["released_000001"]
    assert second["most_similar_instructions"] == {ROWS[0][0]: pytest.approx(5 / 6)}
    assert second["avg_similarity_score"] == pytest.approx(5 / 6)
    assert rows["released_000000"]["most_similar_instructions"] == {}
    nearest = {row["id"]: row["provenance"].get("nearest") for row in kept}
    assert nearest["released_000000"] is None
    assert nearest["released_000001"] == {"id": "released_000000", "score": pytest.approx(5 / 6)}
    assert card["nearest"]


def test_nearest_within_is_of_the_data_set_alone(tmp_path: Path) -> None:
    far, near = ("Bake one cake with apples and cream.", "", "x"), ("Name three large rivers of Asia.", "", "y")
    rows = [near, far, *ROWS[:2]]
    cards = [
        curated(tmp_path, given, filters=[], dedup_threshold=None, selection="indices", indices=str(path))[1]
        for given, path in (
            (rows, listed(tmp_path / "whole.json", [0, 1, 2, 3])),
            (rows[::-1], listed(tmp_path / "turned.json", [0, 1, 2, 3])),
            (rows, listed(tmp_path / "apart.json", [1, 2])),
        )
    ]
    assert all("nearest" not in card for card in cards)
    assert not (tmp_path / "out" / "neighbours.jsonl").exists()
    assert cards[0]["nearest_within"] == cards[1]["nearest_within"]
    assert cards[0]["nearest_within"]["sampled"] == 4
    assert cards[0]["nearest_within"]["quantiles"]["p50"] == pytest.approx(5 / 6, abs=1e-4)
    assert cards[2]["nearest_within"] == {"sampled": 2, "quantiles": dict.fromkeys(QUANTILES, 0.0)}


QUANTILES = ("p10", "p25", "p50", "p75", "p90", "p99")


def listed(path: Path, positions: list[int]) -> Path:
    path.write_text(json.dumps(positions))
    return path


def test_the_nearest_of_a_large_data_set_are_looked_up_for_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole = curated(tmp_path, MANY, dedup_threshold=None)
    assert whole["nearest_within"]["sampled"] == 20
    monkeypatch.setattr("alpaca.stages.curate.steps.WITHIN", 7)
    _, card = curated(tmp_path, MANY, dedup_threshold=None)
    assert card["nearest_within"]["sampled"] == 7


def test_an_unknown_language_does_no_harm_where_nothing_is_filtered_by_it(tmp_path: Path) -> None:
    _, card = curated(tmp_path, ROWS, language="xx")
    assert "other_language" not in card["defects"]
    assert card["defects"]["empty_output"] == 1
    with pytest.raises(UserError, match="unknown language 'xx'"):
        curated(tmp_path, ROWS, language="xx", filters=["other_language"])


@pytest.mark.parametrize("kind", ["label_noise", "shuffled_outputs", "truncated_outputs"])
def test_damage_is_done_last_told_and_nested(tmp_path: Path, kind: str) -> None:
    clean, card = curated(tmp_path, MANY, dedup_threshold=None)
    assert "damage" not in card
    harmed = {}
    for share in (0.2, 0.6):
        rows, card = curated(tmp_path, MANY, dedup_threshold=None, **{kind: share})
        assert ids(rows) == ids(clean)
        harmed[share] = {row["id"] for row, old in zip(rows, clean, strict=True) if row["output"] != old["output"]}
        assert {row["id"] for row in rows if row["provenance"].get("damage") == [kind]} == harmed[share]
        assert card["damage"] == {kind: {"share": share, "examples": len(harmed[share])}}
    assert harmed[0.2] < harmed[0.6]


@pytest.mark.parametrize("selection", ["random", "shortest"])
@pytest.mark.parametrize("kind", ["label_noise", "shuffled_outputs", "truncated_outputs"])
def test_size_and_damage_are_separate_factors(tmp_path: Path, kind: str, selection: str) -> None:
    told: dict[int, dict[str, bool]] = {}
    texts: dict[int, dict[str, str]] = {}
    for size in (12, 20):
        rows, _ = curated(tmp_path, MANY, dedup_threshold=None, size=size, selection=selection, **{kind: 0.5})
        told[size] = {row["id"]: "damage" in row["provenance"] for row in rows}
        texts[size] = {row["id"]: row["output"] for row in rows}
    assert told[12].items() <= told[20].items()
    assert any(told[12].values())
    assert sum(texts[20][id] != text for id, text in texts[12].items()) <= (3 if kind == "shuffled_outputs" else 0)


def test_noise_comes_from_everything_that_could_be_selected(tmp_path: Path) -> None:
    rows, _ = curated(tmp_path, MANY, dedup_threshold=None, size=6, label_noise=1.0)
    chosen = {MANY[int(row["id"].rpartition("_")[2])][2] for row in rows}
    assert {row["output"] for row in rows} - chosen


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"neighbours": True, "label_noise": 0.3, "dedup_threshold": None, "size": 12}
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        curated(folder, MANY, **settings)
    names = ["card.json", "examples.jsonl", "examples.parquet", "neighbours.jsonl"]
    assert [(first / "out" / name).read_bytes() for name in names] == [
        (second / "out" / name).read_bytes() for name in names
    ]


def test_the_parquet_file_holds_the_same_as_the_jsonl(tmp_path: Path) -> None:
    import datasets

    rows, _ = curated(tmp_path, [*MANY, ("Say \ud83d three times please.", "", "x")], dedup_threshold=None)
    read = datasets.Dataset.from_parquet(str(tmp_path / "out" / "examples.parquet"), cache_dir=str(tmp_path / "cache"))
    assert [{**row, "provenance": json.loads(row["provenance"])} for row in read] == rows


def released(shared: Path) -> list[tuple[str, str, str]]:
    rows = json.loads((shared / "data/alpaca/alpaca_data.json").read_text(encoding="utf-8"))
    return [(row["instruction"], row["input"], row["output"]) for row in rows]


@pytest.mark.slow
def test_the_released_file_through_the_whole_of_curate(shared: Path, tmp_path: Path) -> None:
    kept, card = curated(tmp_path, released(shared))
    assert card["defects"]["empty_output"] == 28
    assert len(kept) == 52002 - 28
    assert dropped(card) == {"empty_output": 28}
    assert all(dropped_by(Example(**row), RELEASED) is None for row in kept)


@pytest.mark.slow
def test_the_released_file_without_its_flaws(shared: Path, tmp_path: Path) -> None:
    names = [each.name for each in FLAWS]
    items = shared / "data/eval252/user_oriented_instructions.jsonl"
    kept, card = curated(
        tmp_path,
        released(shared),
        filters=[*FILTERS, *names],
        neighbours=True,
        decontaminate_lcs=0.7,
        decontaminate_ngram=13,
        evaluations={"user": EvalSource(set="user_oriented", path=str(items))},
    )
    assert not any(each.drops(Example(**row)) for row in kept for each in FLAWS)
    assert card["contamination"]["user"]["items"] == 252
    assert max(row["provenance"]["nearest"]["score"] for row in kept if "nearest" in row["provenance"]) <= 0.7


@pytest.mark.slow
def test_published_subsets_are_kept_exactly(shared: Path, tmp_path: Path) -> None:
    lists = json.loads((shared / "data/alpaca/subset_indices.json").read_text())
    path = tmp_path / "list.json"
    for name in ("alpagasus_claude_t45", "alpagasus_random_9k"):
        positions = lists[name]
        path.write_text(json.dumps(positions))
        kept, _ = curated(
            tmp_path, released(shared), filters=[], normalise_no_input=False, dedup_threshold=None,
            selection="indices", indices=str(path),
        )  # fmt: skip
        assert ids(kept) == [f"released_{index:06d}" for index in positions], name


def test_scores_are_per_item_and_on_average(tmp_path: Path) -> None:
    answers = tmp_path / "answers"
    answers.mkdir()
    rows = [
        {"id": "a", "family": "f", "reference": "red fox", "response": " red fox ", "exact": True},
        {"id": "b", "family": "f", "reference": "red fox", "response": "red dog", "exact": True},
    ]
    write_jsonl(answers / "responses.jsonl", rows)
    target = context(tmp_path / "out", responses=answers)
    score.run(ScoreConfig(metrics=["exact_match", "rouge_l"]), target)
    assert [row["exact_match"] for row in read_jsonl(target.folder / "scores.jsonl")] == [1.0, 0.0]
    assert read_json(target.folder / "metrics.json") == {"items": 2, "exact_match": 0.5, "rouge_l": 0.75}


def test_exact_match_is_refused_for_free_references(tmp_path: Path) -> None:
    answers = tmp_path / "answers"
    answers.mkdir()
    write_jsonl(
        answers / "responses.jsonl", [{"id": "a", "family": "", "reference": "x", "response": "x", "exact": False}]
    )
    with pytest.raises(UserError, match="1 items"):
        score.run(ScoreConfig(metrics=["exact_match"]), context(tmp_path / "out", responses=answers))
