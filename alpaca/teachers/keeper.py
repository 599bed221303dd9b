"""Keeps one server process, and no longer than the process that asked for it: `keeper.py COMMAND...`.

Run by its path and with nothing but the standard library, so that it starts at once. Its standard input is a pipe from
the asking process. When that is closed, which also happens when the asking process is killed, the server's whole
process group is ended: SIGTERM, and SIGKILL for what is left. So nothing stays behind that holds a GPU.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

GRACE = 15.0
"""Seconds between SIGTERM and SIGKILL."""
LAST = 5.0
LOOK = 0.25
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# <sys/prctl.h> of Linux.
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main(command: list[str]) -> int:
    """Runs the command until it ends or standard input is closed; its exit status as a shell tells it."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    for number in SIGNALS:
        signal.signal(number, _leave)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=_die_with_keeper)
    try:
        while child.poll() is None and not select.select([sys.stdin], [], [], LOOK)[0]:
            pass
    finally:
        end(child)
    code = child.returncode if child.returncode is not None else -signal.SIGKILL
    return code if code >= 0 else 128 - code


def end(child: subprocess.Popen[bytes]) -> None:
    """Ends the process group of the child, and whatever has left it."""
    for number in SIGNALS:  # a second one must not cut this short
        signal.signal(number, signal.SIG_IGN)
    for last_word, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, LAST)):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, last_word)
        if _gone(child, seconds):
            break
    # As the subreaper this process inherits the children of those that have ended.
    for orphan in _children():
        with suppress(ProcessLookupError, PermissionError):
            os.kill(orphan, signal.SIGKILL)


def _gone(child: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether the whole group has ended within that time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        # The leader's status belongs to Popen, the others' to nobody.
        if child.poll() is not None and _reaped(child.pid):
            return True
        time.sleep(0.02)
    return False


def _reaped(group: int) -> bool:
    """Collects the dead of a group; whether nobody is left in it."""
    with suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return True
    return False


def _children() -> list[int]:
    """Processes whose parent is this one (Linux); none known elsewhere."""
    with suppress(OSError):
        return [int(word) for word in Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split()]
    return []


def _die_with_keeper() -> None:
    """In the child: a keeper that is killed outright still takes the server with it."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _leave(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
