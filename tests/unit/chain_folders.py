"""Finished chains as stages leave them, with real markers and manifests, made without running a stage."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alpaca import artifacts
from alpaca.records import write_jsonl

PACKAGES = {"torch": "2.13.0", "numpy": "2.4.6"}
Row = dict[str, Any]


def example(number: int, output: str = "") -> Row:
    return {"id": f"e{number}", "instruction": f"Say {number}.", "input": "", "output": output or f"Word {number}."}


@dataclass(kw_only=True)
class Chains:
    """An output folder with chains of made-up stages."""

    output: Path
    packages: dict[str, str] = field(default_factory=lambda: dict(PACKAGES))
    code: str = "code/c0de"

    def snapshot(self, name: str, files: dict[str, str]) -> str:
        """A code snapshot; returns its label."""
        for file, text in files.items():
            path = self.output / "code" / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return f"code/{name}"

    def stage(self, stage: str, name: str, identity: Row, parents: dict[str, str], **more: Any) -> str:
        """A stage folder with `files` (name -> rows or text); finished unless finished=False. Returns its label."""
        keys = {role: artifacts.read_json(self.output / label / "stage.json")["key"] for role, label in parents.items()}
        key = hashlib.sha256(json.dumps([stage, identity, keys], sort_keys=True).encode()).hexdigest()
        folder = self.output / stage / f"{name}-{key[:8]}"
        frozen = {
            "stage": stage, "name": name, "key": key, "version": more.get("version", 1), "identity": identity,
            "config": identity | more.get("execution", {}), "parents": parents, "promoted": [], "code": self.code,
            "git": {"sha": "0123456789abcdef", "dirty": False, "diff": None}, "argv": ["launch.py"], "threads": 1,
            "tracking": {"kind": "wandb", "id": "the-first-making"},
        }  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        artifacts.write_json(folder / "stage.json", frozen)
        for file, content in more.get("files", {}).items():
            if isinstance(content, str):
                (folder / file).write_text(content)
            else:
                write_jsonl(folder / file, content)
        if more.get("finished", True):
            self.finish(folder, key)
        return folder.relative_to(self.output).as_posix()

    def finish(self, folder: Path, key: str) -> None:
        record = {
            "ended": "2026-11-20T10:00:00+00:00", "seconds": 1.0, "code": self.code, "packages": self.packages,
            "argv": ["launch.py", "data.size=4"], "git": {"sha": "0123456789abcdef", "dirty": False, "diff": None},
        }  # fmt: skip
        artifacts.publish(folder, key, record | {"parents": {}, "summary": ""}, lambda: None)

    def run(self, size: int = 4, lr: float = 0.1, **more: Any) -> dict[str, str]:
        """A whole chain, role -> label: its losses fall by lr, its first `size` answers are right."""
        sample = self.stage("sample", "alpaca", {"seed": more.get("seed", 0)}, {}, files={"raw.jsonl": "{}\n"})
        rows = more.get("examples") or [example(number) for number in range(size)]
        curate = self.stage(
            "curate", str(size), {"data": {"size": size}}, {"pool": sample}, files={"examples.jsonl": rows}
        )
        losses = [{"step": step, "loss": 5.0 - lr * step} for step in range(1, 5)]
        train = self.stage(
            "train", "tiny", {"optimizer": {"lr": lr}}, {"data": curate}, files={"loss.jsonl": losses},
            execution={"fsdp": {"world_size": more.get("world_size", 1)}},
        )  # fmt: skip
        answered = [
            {"id": f"i{at}", "instruction": f"Ask {at}?", "reference": "yes", "response": "yes" if at < size else "no"}
            for at in range(12)
        ]
        respond = self.stage("respond", "embedded", {}, {"model": train}, files={"responses.jsonl": answered})
        scores = [{"id": f"i{at}", "family": "ask", "exact_match": float(at < size)} for at in range(12)]
        score = self.stage("score", "embedded", {}, {"responses": respond}, files={"scores.jsonl": scores})
        roles = {"sample": sample, "curate": curate, "train": train, "respond": respond, "score": score}
        return {f"{role}:embedded" if role in ("respond", "score") else role: name for role, name in roles.items()}

    def page(self, name: str, points: list[dict[str, str]], **more: Any) -> str:
        """A finished page of these runs; `answer` and `question` as they shall be told."""
        seeds = {"data": more.get("seed", 0)}
        config = {
            "title": more.get("title", name.partition("/")[2]), "question": more.get("question", ""), "metric": "",
            "command": "python launch.py", "factors": more.get("factors", []), "controls": [], "notes": [],
            "points": [
                {"name": "p", "factors": {"size": at} if len(points) > 1 else {}, "seeds": seeds, "stages": run}
                for at, run in enumerate(points)
            ],
        }  # fmt: skip
        folder = self.output / name
        folder.mkdir(parents=True, exist_ok=True)
        labels = {label: label for stages in points for label in stages.values()}
        key = hashlib.sha256(name.encode()).hexdigest()
        frozen = {"stage": "report", "name": "run", "key": key, "config": config, "parents": labels, "code": self.code}
        artifacts.write_json(folder / "stage.json", frozen | {"identity": {}})
        told = {"title": config["title"], "question": config["question"], "metric": "embedded.exact_match"}
        artifacts.write_json(folder / "results.json", told | {"answer": more.get("answer", "It is so."), "points": []})
        (folder / "report.html").write_text("<p>page</p>")
        (folder / "results.csv").write_text("name\n")
        self.finish(folder, key)
        return name
