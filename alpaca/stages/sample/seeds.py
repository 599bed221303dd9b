"""What the teacher is shown: the seed tasks, the text of the generation prompt and topics; null is what ships."""

from __future__ import annotations

from pathlib import Path

from alpaca.records import SeedTask, given

SEED_TASKS = Path(__file__).with_name("seed_tasks.jsonl")
PROMPT = Path(__file__).with_name("prompt_text.txt")


def load_seed_tasks(path: str | Path | None) -> list[SeedTask]:
    """The tasks of a JSONL file in self-instruct's form, the first instance of each; None: those of this project.

    Raises one UserError that lists up to 20 problems with their lines.
    """
    return given.seed_tasks(SEED_TASKS if path is None else Path(path))


def load_prompt(path: str | Path | None) -> str:
    """The text of the generation prompt; None: that of this project."""
    return given.prompt(PROMPT if path is None else Path(path))


def load_topics(path: str | Path | None) -> list[str]:
    """The lines of a text file that are not blank; None: no topics. Raises UserError for a file without any."""
    return [] if path is None else given.topics(Path(path))
