"""Keeps libraries from drawing over the log."""

from __future__ import annotations


def no_bars() -> None:
    """Turns off transformers' progress bars: in a log file they are noise, and stages report their own progress."""
    from transformers.utils import logging

    logging.disable_progress_bar()
