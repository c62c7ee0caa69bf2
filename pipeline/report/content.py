"""DRIVER. What the report is about, read from the run folder; parts of it may not be there yet."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pipeline import storage
from pipeline.dataset import Dataset, Manifest, version_url
from pipeline.errors import PipelineError
from pipeline.inference.evaluate import Evaluation

logger = logging.getLogger(__name__)

Value = TypeVar("Value")


@dataclass(frozen=True)
class Content:
    """Everything that the report shows.

    Attributes:
        result: the values of the RESULT line.
        epochs: a line of ``metrics.jsonl`` for each finished epoch.
        configuration: YAML.
        profile: what the train rows look like, as preparation saw them.
    """

    name: str
    url: str
    result: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Evaluation | None = None
    epochs: Sequence[Mapping[str, Any]] = ()
    manifest: Manifest | None = None
    configuration: str = ""
    profile: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, run_url: str, result: Mapping[str, Any] | None) -> Content:
        """Read what the run folder holds; what is missing or unreadable is left out, and logged."""
        if result is None:
            nothing: dict[str, Any] = {}
            result = _or(lambda: storage.read_json(storage.join(run_url, "result.json"), "result", 1), nothing)
        evaluation = _or(lambda: _evaluation(run_url), None)
        dataset = _or(lambda: _dataset(result, evaluation), None)
        lines = _or(lambda: storage.read_bytes(storage.join(run_url, "metrics.jsonl")).decode(), "")
        return cls(
            name=run_url.rstrip("/").rsplit("/", 1)[-1],
            url=run_url,
            result=result,
            evaluation=evaluation,
            epochs=[json.loads(line) for line in lines.splitlines()],
            manifest=dataset.manifest if dataset else None,
            configuration=_or(lambda: storage.read_bytes(storage.join(run_url, "config.yaml")).decode(), ""),
            profile=_or(lambda: _profile(dataset), {}) if dataset else {},
        )


def _evaluation(run_url: str) -> Evaluation:
    return Evaluation.from_json(storage.read_json(storage.join(run_url, "evaluation.json"), *Evaluation.FORMAT))


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
