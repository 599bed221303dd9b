"""Data sets on the hub: one commit of the repository is downloaded, `datasets` says which files make up the split.

Only Parquet, JSON and JSONL files are downloaded, so that nothing of a repository is ever executed or unpickled. The
hub's own cache is used because it knows commits: the cache of `datasets` is keyed by the name alone, and would give
another revision's data where there is no network.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alpaca.config import ReleasedDataGen
from alpaca.errors import UserError
from alpaca.records.given import HUB_ID

PATTERNS = ("*.parquet", "*.json", "*.jsonl", "README.md")


@dataclass(kw_only=True, slots=True, frozen=True)
class Snapshot:
    """The files of one split at one commit."""

    commit: str
    files: Sequence[Path]


def download(options: ReleasedDataGen, key: str) -> Snapshot:
    """The split's files, from the hub's cache where it holds this revision.

    Raises UserError where the repository, the revision, the split or the network is missing.
    """
    if options.hub is None or not HUB_ID.fullmatch(options.hub):
        raise UserError(what=f"{options.hub!r} is no id of a data set", where=f"{key}.hub", remedy="write owner/name")
    folder = _snapshot(options.hub, options.revision, key)
    return Snapshot(commit=folder.name, files=_split_files(folder, options, key))


def _snapshot(id: str, revision: str, key: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(id, repo_type="dataset", revision=revision, allow_patterns=list(PATTERNS)))
    # Every error of the hub and of the network is an OSError, a malformed id or revision a ValueError.
    except (OSError, ValueError) as error:
        raise UserError(
            what=f"cannot download {id} at revision {revision!r}: {_in_one_line(error)}",
            where=f"{key}.hub",
            remedy=f"look at the id and at {key}.revision; without a network give a local file by {key}.path",
        ) from error


def _split_files(folder: Path, options: ReleasedDataGen, key: str) -> list[Path]:
    splits = _splits(folder, options, key)
    if options.split not in splits:
        raise UserError(
            what=f"{options.hub} has no split {options.split!r}", where=f"{key}.split",
            remedy=f"known: {', '.join(sorted(splits))}",
        )  # fmt: skip
    files = [Path(name) for name in splits[options.split]]
    strange = [file for file in files if not file.is_relative_to(folder)]
    if strange:
        # The card of a repository may name any file of this machine.
        raise UserError(
            what=f"{options.hub} names a file outside of itself: {strange[0]}", where=f"{key}.hub",
            remedy=f"download the file that you want and give it by {key}.path",
        )  # fmt: skip
    return files


def _splits(folder: Path, options: ReleasedDataGen, key: str) -> dict[str, list[str]]:
    """Split -> its files, by the repository's card or by the names of the files."""
    from datasets import load_dataset_builder

    with tempfile.TemporaryDirectory() as scratch:
        try:
            builder = load_dataset_builder(str(folder), name=options.subset, cache_dir=scratch)
        except (OSError, ValueError) as error:
            raise UserError(
                what=f"`datasets` cannot read {options.hub}: {_in_one_line(error)}",
                where=f"{key}.subset" if "onfig" in str(error) else f"{key}.hub",
                remedy=f"Parquet, JSON and JSONL are read; or give one file by {key}.path",
            ) from error
    return {str(split): list(files) for split, files in (builder.config.data_files or {}).items()}


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
