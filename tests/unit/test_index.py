"""outputs/index.html: what it lists, what it survives, and who writes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from alpaca import artifacts
from alpaca.cli.commands import main
from alpaca.report import index
from tests.unit.chain_folders import Chains
from tests.unit.report_folders import HOSTILE


@pytest.fixture
def chains(tmp_path: Path) -> Chains:
    return Chains(output=tmp_path / "outputs")


def ended(chains: Chains, page: str, when: str) -> None:
    path = chains.output / page / "provenance.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "ended": when}))


def test_sweeps_and_runs_are_listed_the_latest_first_with_links_that_lead_somewhere(chains: Chains) -> None:
    run = chains.run()
    for name, when in (("sweeps/older", "2026-11-01"), ("sweeps/newer", "2026-11-03"), ("runs/tiny-1", "2026-11-02")):
        chains.page(name, [run], question=f"What of {name}?", answer=f"{name} it is.")
        ended(chains, name, f"{when}T10:00:00+00:00")
    text = index.renew(chains.output).read_text()
    assert "2 sweeps and 1 run; the latest page was made at 2026-11-03 10:00 UTC." in text
    order = [text.index(f"What of {name}?") for name in ("sweeps/newer", "sweeps/older", "runs/tiny-1")]
    assert order == sorted(order)
    for words in ("sweeps/older it is.", "exact match on embedded", "2026-11-01 10:00 UTC", "python launch.py"):
        assert words in text
    (entry,) = [one for one in index.entries(chains.output) if one.label == "runs/tiny-1"]
    assert [(chains.output / target).is_file() for _, target in entry.links] == [True, True, True]


def break_results(folder: Path) -> None:
    (folder / "results.json").write_bytes(b'{"title": "\xff')


def break_types(folder: Path) -> None:
    results = {"title": ["a"], "question": 3, "answer": {}, "metric": None, "points": "many"}
    (folder / "results.json").write_text(json.dumps(results))


def break_records(folder: Path) -> None:
    (folder / "stage.json").write_text("[]")
    (folder / "provenance.json").write_text("null")


def remove_page(folder: Path) -> None:
    (folder / "report.html").unlink()


def remove_marker(folder: Path) -> None:
    (folder / "_SUCCESS").unlink()


@pytest.mark.parametrize("damage", [break_results, break_types, break_records, remove_page, remove_marker])
def test_a_torn_page_breaks_nothing(chains: Chains, damage: Callable[[Path], None]) -> None:
    chains.page("sweeps/good", [], question="Is it good?")
    damage(chains.output / chains.page("sweeps/torn", [], question="Is it torn?"))
    text = index.renew(chains.output).read_text()
    assert "Is it good?" in text
    shown = damage in (break_types, break_records)
    assert ("sweeps/torn" in text.partition("<h2>Not finished</h2>")[2]) is not shown
    assert ('href="sweeps/torn/report.html"' in text) is shown


def test_a_page_whose_remake_failed_is_listed_apart_with_its_old_answer(chains: Chains) -> None:
    chains.page("sweeps/good", [], question="Is it good?")
    folder = chains.output / chains.page("sweeps/stale", [], question="Is it stale?", answer="It was so.")
    frozen = artifacts.read_json(folder / "stage.json")
    artifacts.write_json(folder / "stage.json", frozen | {"key": "f" * 64})
    current, _, old = index.renew(chains.output).read_text().partition("<h2>Old pages</h2>")
    assert "1 sweep" in current
    assert "Is it good?" in current
    assert "stale" not in current
    assert "<strong>Old answer:</strong> It was so." in old
    assert "Not made anew since" in old
    artifacts.write_json(folder / "stage.json", frozen)
    assert "Old pages" not in index.renew(chains.output).read_text()


def test_foreign_folders_and_files_are_left_out(chains: Chains) -> None:
    (chains.output / "sweeps" / "figures").mkdir(parents=True)
    (chains.output / "runs").write_text("a file")
    (chains.output / "sweeps" / "link").symlink_to("/nonexistent")
    text = index.renew(chains.output).read_text()
    assert "No page has been made here yet." in text
    assert "figures" not in text


def test_texts_are_escaped_and_names_are_quoted(chains: Chains) -> None:
    chains.page("sweeps/a b#c", [], question=HOSTILE, answer=HOSTILE)
    (chains.output / "validation 1.html").write_text("<p>")
    text = index.renew(chains.output).read_text()
    assert "<script" not in text
    assert 'href="sweeps/a%20b%23c/report.html"' in text
    assert 'href="validation%201.html"' in text


def test_what_another_process_finishes_meanwhile_is_listed(chains: Chains, monkeypatch: pytest.MonkeyPatch) -> None:
    chains.page("sweeps/first", [])
    write, rounds = index._write, []

    def slow(path: Path, text: str) -> None:
        """Between the look and the writing of the first list another page is finished."""
        if not rounds:
            chains.page("sweeps/second", [])
        rounds.append(text)
        write(path, text)

    monkeypatch.setattr(index, "_write", slow)
    text = index.renew(chains.output).read_text()
    assert "sweeps/second" not in rounds[0]
    assert "sweeps/second" in text
    assert len(rounds) == 2


def test_the_command_names_the_file_and_leaves_no_other(chains: Chains, capsys: pytest.CaptureFixture[str]) -> None:
    chains.page("sweeps/one", [])
    with pytest.raises(SystemExit) as ended:
        main(["index", "--output-dir", str(chains.output)])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == str(chains.output / "index.html")
    assert sorted(path.name for path in chains.output.iterdir()) == ["index.html", "sweeps"]


def test_a_finished_page_lists_itself_and_stands_even_where_the_list_cannot_be_made(
    chains: Chains, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from alpaca import jobs

    page = chains.page("runs/tiny", [])
    frozen = artifacts.read_json(chains.output / page / "stage.json")
    frozen |= {"promoted": [], "argv": [], "git": {}}
    artifacts.write_json(chains.output / page / "stage.json", frozen)
    monkeypatch.setattr(jobs, "_run", lambda *_: None)
    (chains.output / page / "_SUCCESS").unlink()
    jobs.execute(chains.output / page)
    assert "tiny" in (chains.output / "index.html").read_text()

    def broken(_: Path) -> Path:
        raise OSError("read-only")

    monkeypatch.setattr(index, "renew", broken)
    (chains.output / page / "_SUCCESS").unlink()
    jobs.execute(chains.output / page)
    assert artifacts.is_finished(chains.output / page)
    assert "was not made anew: OSError: read-only" in capsys.readouterr().out
