"""DRIVER. What the report is about, read from the run folder; parts of it may not be there yet."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pipeline import storage
from pipeline.dataset import Dataset, Manifest, version_url
from pipeline.errors import PipelineError, StorageError
from pipeline.inference.evaluate import Evaluation
from pipeline.run_folder import CONFIG, EVALUATION, METRICS, RESULT, RESULT_FORMAT, TRAINING, RunFolder

logger = logging.getLogger(__name__)

Value = TypeVar("Value")


@dataclass(frozen=True)
class Content:
    """Everything that the report shows.

    Attributes:
        result: the values of the RESULT line.
        best_epoch: of whose weights the model is, from 1; None before the training has finished.
        epochs: a line of ``metrics.jsonl`` for each finished epoch.
        configuration: YAML.
        profile: what the train rows look like, as preparation saw them.
    """

    name: str
    url: str
    result: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Evaluation | None = None
    best_epoch: int | None = None
    epochs: Sequence[Mapping[str, Any]] = ()
    manifest: Manifest | None = None
    configuration: str = ""
    profile: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, run_url: str, result: Mapping[str, Any] | None) -> Content:
        """Read what the run folder holds; what is missing, or out of reach with its dataset, is left out.

        Raises:
            StorageError: a file of the run is corrupt.
        """
        if result is None:
            nothing: dict[str, Any] = {}
            result = _of(run_url, RESULT, lambda url: storage.read_json(url, *RESULT_FORMAT), nothing)
        evaluation = _of(run_url, EVALUATION, _evaluation, None)
        dataset = _or(lambda: _dataset(result, evaluation), None)
        return cls(
            name=run_url.rstrip("/").rsplit("/", 1)[-1],
            url=run_url,
            result=result,
            evaluation=evaluation,
            best_epoch=_of(run_url, TRAINING, lambda url: RunFolder(run_url).best_epoch(), None),
            epochs=_of(run_url, METRICS, _epochs, []),
            manifest=dataset.manifest if dataset else None,
            configuration=_of(run_url, CONFIG, lambda url: storage.read_bytes(url).decode(), ""),
            profile=_or(lambda: _profile(dataset), {}) if dataset else {},
        )


def _of(run_url: str, name: str, read: Callable[[str], Value], otherwise: Value) -> Value:
    """A file of the run folder as a value."""
    url = storage.join(run_url, name)
    if not storage.exists(url):
        return otherwise
    try:
        return read(url)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{url} is corrupt; expected what a run writes; restore the file") from error


def _evaluation(url: str) -> Evaluation | None:
    return Evaluation.from_json(storage.read_json(url, *Evaluation.FORMAT))


def _epochs(url: str) -> list[dict[str, Any]]:
    return [dict(json.loads(line)) for line in storage.read_bytes(url).decode().splitlines()]


def _dataset(result: Mapping[str, Any], evaluation: Evaluation | None) -> Dataset | None:
    if "dataset" not in result:
        return None
    content_id = result["dataset"].get("content_id") or (evaluation.dataset if evaluation else None)
    return Dataset.open(result["dataset"]["url"], content_id)


def _profile(dataset: Dataset) -> Mapping[str, Any]:
    folder = version_url(dataset.url, dataset.content_id)
    return storage.read_json(storage.join(folder, "profile.json"), "profile", 1)


def _or(read: Callable[[], Value], otherwise: Value) -> Value:
    try:
        return read()
    except (PipelineError, ValueError) as error:
        logger.debug("report: %s", error)
        return otherwise
