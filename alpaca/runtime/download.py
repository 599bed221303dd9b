"""Files from the network: fetched once, checked by digest, kept in the user's cache."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import platformdirs

from alpaca.errors import UserError

CACHE_VARIABLE = "ALPACA_CACHE"
NAME = "alpaca-ablations"
DIGEST_LENGTH = 64
# Seconds without a byte after which a download counts as failed.
TIMEOUT = 30


def cache_folder() -> Path:
    """$ALPACA_CACHE, or the operating system's folder for caches."""
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir(NAME))


def cached_path(url: str, sha256: str) -> Path:
    """Where the file of this URL and digest lies, or would lie, in the cache."""
    return cache_folder() / f"{sha256[:8]}-{PurePosixPath(urlsplit(url).path).name or 'download'}"


def fetch(url: str, sha256: str, what: str, *, key: str = "") -> Path:
    """The local path of a file, downloaded only if the cache does not hold it with this digest.

    what: the file in words, for messages; key: the configuration key that takes a local file instead. Raises UserError
    when the file is neither in the cache nor to be had, or is not the expected one; no part of a file is left there.
    """
    import pooch
    import requests

    path = cached_path(url, sha256)
    if not url or len(sha256) != DIGEST_LENGTH:
        raise _without_source(url, sha256, what, key)
    try:
        found = pooch.retrieve(
            url, known_hash=f"sha256:{sha256}", fname=path.name, path=path.parent,
            downloader=pooch.HTTPDownloader(timeout=TIMEOUT),
        )  # fmt: skip
    # OSError covers requests' own errors and the disk; ValueError is pooch's word for a wrong digest.
    except (OSError, ValueError, requests.RequestException) as error:
        raise _unavailable(url, sha256, what, key, error) from error
    return Path(found)


def _unavailable(url: str, sha256: str, what: str, key: str, error: Exception) -> UserError:
    or_key = f", or set {key} to a local copy" if key else ""
    return UserError(
        what=f"cannot download {what} from {url}: {' '.join(str(error).split())}",
        where=key,
        remedy=f"place the file (sha256 {sha256}) at {cached_path(url, sha256)}{or_key}",
    )


def _without_source(url: str, sha256: str, what: str, key: str) -> UserError:
    problem = f"its sha256 {sha256!r} is no digest of {DIGEST_LENGTH} hexadecimal digits" if url else "it has no url"
    return UserError(
        what=f"cannot download {what}: {problem}",
        where=key,
        remedy=f"give both its url and its sha256{f', or set {key} to a local file' if key else ''}",
    )
