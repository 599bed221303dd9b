"""The errors a user can meet.

AlpacaError
├── UserError          one thing that the user can mend: what, where, remedy
│   ├── ArtifactError  a stage folder that is torn, changed or claimed by another identity
│   ├── TeacherError   a teacher that cannot answer and will not heal
│   └── PreemptedError a stage that was told to stop, and saved itself first
└── ConfigurationErrors  every problem of a command, collected
"""

from __future__ import annotations

from collections.abc import Iterable


class AlpacaError(Exception):
    """Base of every error that is shown without a traceback; `exit_status` becomes the status of the process."""

    exit_status = 1


class UserError(AlpacaError):
    """One problem that the user can mend.

    what: the problem with the offending value; where: the configuration key, or file and line; remedy: the way out.
    """

    def __init__(self, *, what: str, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(self.text())

    def text(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n    {self.remedy}" if self.remedy else head

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling that process pools use.
        return _rebuild, (type(self), self.what, self.where, self.remedy)


class ArtifactError(UserError):
    """A stage folder is torn, was changed after it was finished, or belongs to another identity."""


class TeacherError(UserError):
    """A teacher cannot answer and retrying will not heal it (authentication, quota, unknown model)."""


class PreemptedError(UserError):
    """A stage was told to stop (SLURM's warning, a closed terminal) and saved a checkpoint; nothing is lost.

    The exit status is that of a temporary failure (EX_TEMPFAIL): the same job may simply be started again.
    """

    exit_status = 75
    REMEDY = "run the same command again: it goes on from there"

    @classmethod
    def of(cls, signal: str, step: int, steps: int, *, saved: bool) -> PreemptedError:
        """signal: what asked for the stop; step of steps: where it was; saved: whether a checkpoint of that step is."""
        kept = "a checkpoint of that step is saved" if saved else "no batch had been used yet, so nothing is saved"
        return cls(
            what=f"stopped by {signal} after step {step} of {steps}; {kept}",
            remedy=cls.REMEDY,
        )


class ConfigurationErrors(AlpacaError):
    """All problems of one command, shown together; exit status 2 as for any wrong usage."""

    exit_status = 2

    def __init__(self, problems: Iterable[UserError]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.text())

    def text(self) -> str:
        count = len(self.problems)
        head = f"{count} problem{'s' if count != 1 else ''} in the configuration; nothing was started:"
        return "\n".join([head, *(f"  {index}. {problem.text()}" for index, problem in enumerate(self.problems, 1))])


def _rebuild(kind: type[UserError], what: str, where: str, remedy: str) -> UserError:
    return kind(what=what, where=where, remedy=remedy)
