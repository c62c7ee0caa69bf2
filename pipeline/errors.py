"""ANYWHERE. The errors a user can meet, each with the exit code of the command that ends with it.

An error carries every offence found, not only the first: one line each, of the form
``<what, as the user wrote it> is <actual>; expected <bound>; <what to do>``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar


class PipelineError(Exception):
    """Base of all errors that are raised on purpose.

    Args:
        offences: one sentence per thing that is wrong.
        detail: evidence that may be long, such as the traceback of a rank; shown below the offences.
    """

    code: ClassVar[int] = 70
    status: ClassVar[str] = "failed"

    def __init__(self, *offences: str, detail: str | None = None) -> None:
        super().__init__(*offences)
        self.offences = tuple(offences)
        self.detail = detail

    def __str__(self) -> str:
        return "\n".join(self.offences)

    @property
    def outcome(self) -> dict[str, Any]:
        """What RESULT and ``result.json`` say of a run that ended with it."""
        return {"status": self.status, "code": self.code, "error": str(self)}

    def lines(self) -> list[str]:
        """One ``error[CODE]: ...`` line per offence, then the detail."""
        lines = [f"error[{self.code}]: {offence}" for offence in self.offences]
        return [*lines, *self.detail.rstrip().splitlines()] if self.detail else lines


class UsageError(PipelineError):
    """The command line cannot be understood."""

    code = 2


class DataError(PipelineError):
    """The data cannot be used: schema, too many rejected rows, an empty split."""

    code = 65


class InputMissingError(PipelineError):
    """An input or configuration file is missing or unreadable."""

    code = 66


class ServiceError(PipelineError):
    """A needed service or package is not available."""

    code = 69


class RankFailedError(PipelineError):
    """The user's model code, or ours, failed on a rank; ``detail`` is the first failing rank's traceback."""

    code = 70


class OutputError(PipelineError):
    """The output exists already or is locked by another writer."""

    code = 73


class StorageError(PipelineError):
    """Input or output failed: disk full, permission, missing or corrupt file."""

    code = 74


class InterruptedRunError(PipelineError):
    """The run was interrupted; the same command resumes it."""

    code = 75
    status = "interrupted"


class LostPeersError(InterruptedRunError):
    """A collective operation failed because another rank is gone: the news of that rank's end, not its cause."""


class GateError(PipelineError):
    """The model does not meet the quality gate."""

    code = 76


class SecurityError(PipelineError):
    """Refused, because doing it could run foreign code or show a secret."""

    code = 77


class ConfigError(PipelineError):
    """The configuration is wrong: broken YAML, unknown key, wrong type, bad bound."""

    code = 78


def refuse_together(*checks: Callable[[], object]) -> None:
    """Make all checks, and say all that they refuse at once.

    Raises:
        ConfigError: what any of them has raised.
    """
    refused = []
    for check in checks:
        try:
            check()
        except ConfigError as error:
            refused.append(error)
    if refused:
        offences = dict.fromkeys(offence for error in refused for offence in error.offences)
        detail = "\n".join(error.detail for error in refused if error.detail)
        raise ConfigError(*offences, detail=detail or None) from refused[0]


def as_pipeline_error(error: BaseException) -> PipelineError:
    """The error as a user is to see it, whoever raised it."""
    if isinstance(error, PipelineError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return InterruptedRunError("interrupted; run the same command again to resume")
    if isinstance(error, ModuleNotFoundError):
        return ServiceError(f"package {error.name} is not installed; expected for this command; see `pipeline doctor`")
    return PipelineError(
        f"{type(error).__name__}: {error}; this is not expected; run again with --debug and report the traceback"
    )
