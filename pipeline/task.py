"""ANYWHERE. What the driver hands to a rank and gets back: plain data, and the protocol by which a rank reports."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from pipeline.config.data import ReaderChoice
from pipeline.config.training import CollectiveName, ModelConfig, TrainingConfig
from pipeline.errors import ConfigError
from pipeline.fingerprint import fingerprint, source_digest, source_fingerprint

_WITHOUT_EFFECT = {"run_url", "checkpoint", "device", "profile_steps", "loader"}


@dataclass(frozen=True)
class UserCode:
    """Classes and functions given from code or a notebook cell; Spark ships them with its own closures.

    Attributes:
        model: ``model(schema, **options)`` gives a ``torch.nn.Module``.
        loss: ``loss(predictions, label, weight)`` gives the weighted SUM over rows as a scalar tensor.
        optimizer: ``optimizer(parameters)`` gives a ``torch.optim.Optimizer``.
        metrics: ``metrics(predictions, label, weight)`` gives weighted SUMS by name; the mean over the validation
            rows of all ranks is reported under that name.
        callback: ``callback(progress, metrics)`` after every validation, on every rank.
        loop: ``loop(context)`` instead of our own loop, on the same model, see `pipeline.training.own_loop`.
    """

    model: Callable[..., Any] | None = None
    loss: Callable[..., Any] | None = None
    optimizer: Callable[..., Any] | None = None
    metrics: Callable[..., Any] | None = None
    callback: Callable[..., Any] | None = None
    loop: Callable[..., Any] | None = None

    def with_named(self, training: TrainingConfig) -> UserCode:
        """With what the configuration names where nothing was given.

        Raises:
            ConfigError: names all that cannot be imported.
        """
        found: dict[str, Callable[..., Any]] = {}
        offences: list[str] = []
        for name, (key, dotted) in _named(training, self).items():
            try:
                found[name] = imported(key, dotted)
            except ConfigError as error:
                offences.extend(error.offences)
        if offences:
            raise ConfigError(*offences)
        if "optimizer" in found and training.optimizer.options:
            found["optimizer"] = functools.partial(found["optimizer"], **training.optimizer.options)
        return replace(self, **found)


def _named(training: TrainingConfig, given: UserCode) -> dict[str, tuple[str, str]]:
    """Name of the code -> its key in the configuration and what that says."""
    keys = {name: (f"training.{name}", getattr(training, name)) for name in ("loss", "metrics", "callback")}
    keys["optimizer"] = ("training.optimizer.factory", training.optimizer.factory)
    return {name: (key, dotted) for name, (key, dotted) in keys.items() if dotted and getattr(given, name) is None}


_imported_sources: dict[str, str | None] = {}


def imported(key: str, dotted: str) -> Callable[..., Any]:
    """The function ``package.module:function`` that a key of the configuration names, as its source is now.

    A notebook, or a process that Spark uses again, may have imported the module before its source was changed.

    Raises:
        ConfigError: it cannot be imported, or is no function.
    """
    name, _, attribute = dotted.partition(":")
    try:
        module, source = importlib.import_module(name), source_digest(dotted)
        if _imported_sources.setdefault(name, source) != source:
            module, _imported_sources[name] = importlib.reload(module), source
        function = getattr(module, attribute)
    except Exception as error:
        raise ConfigError(f"{key} is {dotted}; expected an importable package.module:function; {error}") from error
    if not callable(function):
        raise ConfigError(f"{key} is {dotted}, a {type(function).__name__}; expected a function")
    return function  # type: ignore[no-any-return]


@dataclass(frozen=True)
class TrainingTask:
    """All that a rank needs to train; how it reads and with how many threads is not part of what it computes."""

    dataset_url: str
    content_id: str
    model: ModelConfig
    training: TrainingConfig
    user_code: UserCode = field(default_factory=UserCode)
    threads: int = 1
    reader: ReaderChoice = "auto"
    fingerprints: Mapping[str, str] = field(init=False)
    """Of the code that takes part: found once, on the driver, since code may gather state while it runs."""

    def __post_init__(self) -> None:
        given = {name: code for name, code in vars(self.user_code).items() if code is not None}
        found = {name: fingerprint(code, with_state=name != "callback") for name, code in given.items()}
        if self.model.factory is not None and "model" not in given:
            found["model"] = source_fingerprint(self.model.factory)
        found |= {
            name: source_fingerprint(dotted) for name, (_, dotted) in _named(self.training, self.user_code).items()
        }
        object.__setattr__(self, "fingerprints", found)

    def code(self) -> UserCode:
        """What was given, and beside it what the configuration names, which is imported where it is asked for."""
        return self.user_code.with_named(self.training)

    def identity(self) -> dict[str, Any]:
        """What must be equal for a run folder to be continued: not where it lies, nor how often it is saved."""
        return {
            "model": self.model.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json", exclude=_WITHOUT_EFFECT),
            "dataset": self.content_id,
            "code": dict(self.fingerprints),
        }

    def differences(self, saved: Mapping[str, Any]) -> list[Difference]:
        """Where the identity that a folder or checkpoint holds is another than this task's; none if it is the same."""
        return _differences(saved, self.identity())


@dataclass(frozen=True)
class Difference:
    """A key, ``section.key``, whose saved value is not the one that is wanted now."""

    key: str
    saved: Any
    wanted: Any


def _differences(saved: Any, wanted: Any, key: str = "") -> list[Difference]:
    if isinstance(saved, Mapping) and isinstance(wanted, Mapping):
        names = dict.fromkeys([*saved, *wanted])
        return [d for n in names for d in _differences(saved.get(n), wanted.get(n), f"{key}.{n}".lstrip("."))]
    return [] if saved == wanted else [Difference(key, saved, wanted)]


@dataclass(frozen=True)
class TrainingResult:
    """What a finished training amounts to; the same on every rank.

    Attributes:
        best_checkpoint: url of the checkpoint with the best validation metric.
        rows: rows that contributed to the weights, over all ranks and epochs of this run.
        dropped_rows: rows per epoch left out by ``last_batch: drop``.
        skipped_steps: steps that moved no weight, since their loss or gradient was not finite.
        collective: what carried sums between the ranks, at the end.
        reader: what read the part files, at the end.
        shared_memory: whether the ranks exchanged through the memory of one host, at the end.
    """

    steps: int
    epochs: int
    best_epoch: int
    best_metrics: Mapping[str, float]
    best_checkpoint: str
    rows: int
    dropped_rows: int = 0
    skipped_steps: int = 0
    collective: CollectiveName = "none"
    reader: str = ""
    shared_memory: bool = False


class Reporter(Protocol):
    """How a rank tells the driver what happens; every call returns at once and never raises."""

    def progress(self, *, epoch: int, step: int, steps: int, loss: float, rows_per_second: float) -> None:
        """After some steps, from rank 0; ``steps`` is the total of the run. Every rank's call is a sign of life."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Metrics of a finished epoch or interval, from rank 0."""

    def resumed(self, step: int) -> None:
        """Training goes on from this step's checkpoint; what was reported for later steps is void."""

    def event(self, message: str) -> None:
        """Something worth a line in the log: checkpoint written, fell back to an older one."""

    def timings(self, ranks: Sequence[Mapping[str, Any]]) -> None:
        """Where the time of an epoch went on each rank, from rank 0; see `pipeline.training.timing.Clock`."""


class SilentReporter:
    """Reports to nobody: tests, and users' own loops."""

    def progress(self, *, epoch: int, step: int, steps: int, loss: float, rows_per_second: float) -> None:
        """Say nothing."""
        return

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Say nothing."""
        return

    def resumed(self, step: int) -> None:
        """Say nothing."""
        return

    def event(self, message: str) -> None:
        """Say nothing."""
        return

    def timings(self, ranks: Sequence[Mapping[str, Any]]) -> None:
        """Say nothing."""
        return
