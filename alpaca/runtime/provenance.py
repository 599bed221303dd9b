"""Where a result comes from: code, packages, hardware, arguments. Recorded, never hashed into a key."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PROC = Path("/proc/driver/nvidia/gpus")
PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parent


def now() -> str:
    """UTC, ISO 8601, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def git_state() -> dict[str, Any]:
    """Commit and uncommitted difference of the source tree; sha null where there is no repository."""
    sha = _git("rev-parse", "HEAD").decode().strip()
    difference = _git("diff", "--no-ext-diff", "--no-color", "--binary", "HEAD") if sha else b""
    dirty = bool(_git("status", "--porcelain", "--untracked-files=no")) if sha else False
    return {"sha": sha or None, "dirty": dirty, "diff": difference}


def packages() -> dict[str, str]:
    """Every installed distribution and its version."""
    found = {dist.metadata["Name"]: dist.version for dist in metadata.distributions() if dist.metadata["Name"]}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def hardware() -> dict[str, Any]:
    """Processor, cores, memory in GiB and GPUs of this machine."""
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_bytes() / 2**30, 1),
        "gpus": gpu_count(),
        "gpu": gpu_name() if gpu_count() else None,
        "system": platform.platform(),
    }


def memory_bytes() -> int:
    """Physical memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def gpu_count() -> int:
    """NVIDIA GPUs visible to this process, found without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = len([path for path in Path("/dev").glob("nvidia*") if path.name[6:].isdigit()])
    if visible is None:
        return devices
    named = [part.strip() for part in visible.split(",")]
    shown = named[: named.index("-1")] if "-1" in named else named  # CUDA ignores what follows -1
    return min(devices, len([part for part in shown if part]))


@functools.cache
def gpu_name() -> str:
    """What the driver calls the first GPU of this machine; "" without one."""
    return _from_smi() or _from_proc()


def _from_smi() -> str:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else ""


def _from_proc() -> str:
    for file in sorted(PROC.glob("*/information")):
        for line in file.read_text(errors="replace").splitlines():
            if line.startswith("Model:"):
                return line.partition(":")[2].strip()
    return ""


def snapshot(output: Path) -> Path:
    """A copy of the package in `output`/code, named by its content: what the workers run, whatever is edited later."""
    files = _sources()
    target = output / "code" / code_digest()
    if not target.exists():
        _copy(files, target)
    return target


def code_digest() -> str:
    """Twelve digits that name the package's present content."""
    digest = hashlib.sha256()
    for path in _sources():
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _copy(files: list[Path], target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    for path in files:
        place = temporary / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, place)
    try:
        temporary.rename(target)
    except OSError:  # another launch made the same copy at the same moment
        shutil.rmtree(temporary, ignore_errors=True)
        if not target.exists():
            raise


def _git(*arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout if done.returncode == 0 else b""


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        names = [
            line.partition(":")[2].strip() for line in path.read_text().splitlines() if line.startswith("model name")
        ]
        if names:
            return names[0]
    return platform.processor() or sys.platform
