"""Starting ranks: their environment, and what the launcher says when one fails. The commands import no torch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alpaca.errors import PreemptedError, UserError
from alpaca.runtime.distributed import inside_rank, launch_ranks, setup


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def test_every_rank_gets_its_place_and_the_same_meeting_point(tmp_path: Path) -> None:
    code = (
        "import os,sys,pathlib; e=os.environ; "
        "(pathlib.Path(sys.argv[1])/e['RANK']).write_text(' '.join([e['LOCAL_RANK'], e['WORLD_SIZE'], "
        "e['ALPACA_RENDEZVOUS']]))"
    )
    launch_ranks(python(code, tmp_path), 3)
    told = [(tmp_path / str(rank)).read_text().split() for rank in range(3)]
    assert [each[:2] for each in told] == [["0", "3"], ["1", "3"], ["2", "3"]]
    assert len({each[2] for each in told}) == 1


def test_rank_in_the_environment_alone_makes_no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALPACA_RENDEZVOUS", raising=False)
    monkeypatch.delenv("ALPACA_RANKS", raising=False)
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    ranks = setup()
    assert (ranks.rank, ranks.world_size, ranks.grouped, inside_rank()) == (0, 1, False, False)
    monkeypatch.setenv("ALPACA_RANKS", "1")
    assert inside_rank()
    monkeypatch.delenv("RANK")
    with pytest.raises(UserError, match=r"not which: no RANK\n(.|\n)*torchrun"):
        setup()


def test_a_signal_is_passed_on_and_ranks_that_saved_themselves_are_no_failure(tmp_path: Path) -> None:
    code = (
        "import os,signal,sys,time,pathlib\n"
        "def saved(*_):\n"
        "    print('error: stopped by SIGUSR2 after step 3 of 5', file=sys.stderr)\n"
        "    raise SystemExit(75)\n"
        "signal.signal(signal.SIGUSR2, saved)\n"
        "(pathlib.Path(sys.argv[1])/os.environ['RANK']).touch()\n"
        "time.sleep(600)"
    )
    sent = []

    def check() -> None:
        if not sent and all((tmp_path / str(rank)).exists() for rank in range(2)):
            sent.append(os.kill(os.getpid(), signal.SIGUSR2))

    with pytest.raises(PreemptedError, match=r"stopped by SIGUSR2 after step 3 of 5(.|\n)*run the same command again"):
        launch_ranks(python(code, tmp_path), 2, check)
    assert sent


def test_when_one_rank_dies_the_others_are_ended_and_its_last_words_are_told(tmp_path: Path) -> None:
    code = (
        "import os,sys,time,pathlib; rank=os.environ['RANK']\n"
        "(pathlib.Path(sys.argv[1])/rank).write_text(str(os.getpid()))\n"
        "while not all((pathlib.Path(sys.argv[1])/str(r)).exists() for r in range(2)): time.sleep(0.01)\n"
        "if rank == '1': sys.exit('the disk is full')\n"
        "time.sleep(600)"
    )
    with pytest.raises(UserError, match=r"process 1 of 2 ended with status 1(.|\n)*the disk is full"):
        launch_ranks(python(code, tmp_path), 2)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "0").read_text()), 0)


def test_a_lost_claim_ends_the_ranks() -> None:
    def check() -> None:
        raise UserError(what="claim lost")

    with pytest.raises(UserError, match=r"claim lost"):
        launch_ranks(python("import time; time.sleep(600)"), 2, check)


def test_ranks_end_when_the_launcher_is_killed(tmp_path: Path) -> None:
    rank = (
        "import os,sys,time,pathlib; from alpaca.runtime.distributed import end_with_parent; end_with_parent(); "
        "pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)"
    )
    launcher = "import sys; from alpaca.runtime.distributed import launch_ranks; launch_ranks(sys.argv[1:], 1)"
    process = subprocess.Popen(python(launcher, *python(rank, tmp_path / "pid")))
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.01)
    process.kill()
    process.wait()
    orphan = int((tmp_path / "pid").read_text())
    while running(orphan):  # the test hangs if it never ends
        time.sleep(0.01)


def running(pid: int) -> bool:
    """Whether a process is alive; where nobody collects orphans, a zombie counts as ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
