"""Whether W&B is wanted, and can log in without asking. Only whether: the key itself is W&B's business."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")
"""Where `wandb login` logs in unless WANDB_BASE_URL names another server."""


def disabled() -> bool:
    """Whether the environment wants nothing recorded at all, as by W&B's own variables."""
    off = os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes", "on")
    return off or os.environ.get("WANDB_MODE") == "disabled"


def online(mode: str = "auto") -> bool:
    """Whether runs go to a server: there is a key, and neither the setting nor WANDB_MODE says offline."""
    silenced = disabled() or os.environ.get("WANDB_MODE") in ("offline", "dryrun")
    return mode != "offline" and not silenced and has_key()


def has_key() -> bool:
    """A key in the environment, or in the netrc file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    server = os.environ.get("WANDB_BASE_URL")
    hosts = [urlsplit(server).netloc] if server else HOSTS
    return any(_password(host) for host in hosts)


def _password(host: str) -> str | None:
    try:
        given = os.environ.get("NETRC")
        found = netrc.netrc(Path(given).expanduser() if given else None).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return None
    return found[2] if found else None
