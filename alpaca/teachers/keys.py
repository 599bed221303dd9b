"""The names of the configuration keys that an error of a teacher points to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True, slots=True, frozen=True)
class Keys:
    """Where a user sets what a teacher is asked with; None for what cannot be set.

    teacher: the key to name where no other fits. The defaults are those of every `teacher=...`.
    """

    teacher: str = "teacher"
    base_url: str = "teacher.base_url"
    model: str = "teacher.model"
    in_flight: str | None = "teacher.in_flight"
    max_attempts: str | None = "teacher.max_attempts"
    timeout: str | None = "teacher.timeout"

    def late(self, seconds: float) -> str:
        """The reason of a try without an answer in time."""
        return f"no answer within {seconds:g} s" + (f" ({self.timeout})" if self.timeout else "")

    def patience(self) -> str:
        """What a user can change where tries are used up, as the end of a sentence; nothing where nothing can be."""
        if self.in_flight is None or self.max_attempts is None or self.timeout is None:
            return ""
        return f" and lower {self.in_flight}, or raise {self.max_attempts} or {self.timeout}"
