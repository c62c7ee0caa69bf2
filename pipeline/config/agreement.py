"""ANYWHERE. What sections must agree on: features, split, training and gate with the label, if there is one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pipeline.config.columns import shared_names
from pipeline.config.features import ElapsedFeature, TargetFeature
from pipeline.errors import ConfigError
from pipeline.metrics import METRICS, LabelType, lower_is_better, metric_names

_UNBOUNDED = frozenset({"log_loss", "mae", "rmse"})

if TYPE_CHECKING:
    from pipeline.config.data import LabelConfig
    from pipeline.config.load import PipelineConfig
    from pipeline.config.training import TrainingConfig


def disagreements(config: PipelineConfig) -> Iterator[str]:
    """One sentence for each setting that asks of the label what it is not."""
    yield from _of_features(config)
    yield from shared_names(config)
    if config.split.by == "stratified" and not config.labels:
        yield "split.by is stratified, but there is no label; expected hash, group, time or column; or add a label"
    yield from _of_class_weights(config)
    yield from _of_gate(config)
    yield from _of_slices(config)
    yield from _of_folders(config)


def _of_features(config: PipelineConfig) -> Iterator[str]:
    for name, feature in config.features.items():
        if isinstance(feature, TargetFeature) and len(config.labels) != 1:
            yield f"features.{name} is a target encoding, but there {_are(config.labels)}; expected one label"
        elif isinstance(feature, TargetFeature) and config.label_type == "multiclass":
            yield f"features.{name} is a target encoding; expected a binary or regression label"
        since = feature.since_column if isinstance(feature, ElapsedFeature) else None
        for where, column in ((f"features.{name}", feature.column or name), (f"features.{name}.since_column", since)):
            if column in config.labels:
                yield f"{where} is the label {column}; expected it to be predicted; remove the feature"


def _of_class_weights(config: PipelineConfig) -> Iterator[str]:
    weights = config.training.class_weights
    if weights is None:
        return
    if config.label is None or len(config.labels) != 1:
        yield f"training.class_weights is set, but there {_are(config.labels)}; expected null, or one label"
    elif config.label.type == "regression":
        yield "training.class_weights is set, but label.type is regression; expected null, or a label with classes"
    elif weights != "balanced" and (classes := _classes_of(config.label)):
        for name in weights:
            if name not in classes:
                yield f"training.class_weights.{name} is no class; expected one of {', '.join(classes)}"
        if not any(weights.get(name, 1.0) for name in classes):
            yield "training.class_weights is 0 for every class; expected more for at least one"


def _classes_of(label: LabelConfig) -> Sequence[str]:
    """The names of a label's classes; none where the data will say them."""
    return ("0", "1") if label.type == "binary" else label.classes or ()


def _of_gate(config: PipelineConfig) -> Iterator[str]:
    if config.label_type is None:
        if config.gate:
            yield f"gate names {', '.join(config.gate)}, but there is no label to measure by; expected no gate"
        return
    plain, known = METRICS[config.label_type], metric_names(config.label_type, config.labels)
    if odd := [name for name in config.gate if name not in known]:
        hint = ", each also as <metric>_<label>" if len(config.labels) > 1 else ""
        yield f"gate names {', '.join(odd)}, but label.type is {config.label_type}; expected {', '.join(plain)}{hint}"
    for name, bound in config.gate.items():
        metric = next((one for one in plain if name in (one, *(f"{one}_{label}" for label in config.labels))), name)
        greatest = math.inf if metric in _UNBOUNDED else 1.0
        if bound.min is not None and bound.min > greatest:
            yield f"gate.{name}.min is {bound.min:g}; expected at most {greatest:g}, which nothing exceeds"
        if bound.max is not None and bound.max < 0 and metric != "r2":
            yield f"gate.{name}.max is {bound.max:g}; expected at least 0, which nothing falls below"


def _of_slices(config: PipelineConfig) -> Iterator[str]:
    """Of a configuration that says what its dataset is; another takes what it finds there."""
    kept = [*config.dataset.keep, *config.source.id]
    odd = [name for name in config.evaluation.slices if name not in kept]
    if odd and config.source.inputs:
        yield (
            f"evaluation.slices names {', '.join(odd)}; expected columns of dataset.keep or source.id: "
            f"{', '.join(kept) or 'there are none'}; add what is missing to dataset.keep"
        )
    if shown := [name for name in config.evaluation.slices if name in config.source.sensitive]:
        yield f"evaluation.slices would show values of {', '.join(shown)}, of source.sensitive; expected other columns"


def _of_folders(config: PipelineConfig) -> Iterator[str]:
    run_url = config.training.run_url
    if run_url.rstrip("/") == config.dataset.url.rstrip("/"):
        yield f"training.run_url is {run_url}, which is dataset.url too; expected a folder of its own for each"


def check_best_by(best_by: str, label_type: LabelType | None, labels: Sequence[str]) -> None:
    """Refuse a `training.best_by` that validation will not have, where no code adds metrics of its own.

    None of the `disagreements`, since a configuration is read before anybody knows of code.

    Raises:
        ConfigError: there is no such metric.
    """
    known = ("loss", *metric_names(label_type, labels))
    if best_by not in ("auto", *known):
        raise ConfigError(f"training.best_by is {best_by}; expected auto or one of {', '.join(known)}")


def check_best_is(best_by: str, best_is: str, labels: Sequence[str]) -> None:
    """Refuse to guess whether more or less of a metric is better that is not ours.

    Raises:
        ConfigError: `training.best_is` has to say it.
    """
    if best_is == "auto" and best_by != "auto" and lower_is_better(best_by, labels) is None:
        raise ConfigError(
            f"training.best_is is auto, but training.best_by {best_by} is no metric of ours; expected min or max; "
            "say whether the least or the greatest value is best"
        )


def check_validation(training: TrainingConfig, rows: int) -> None:
    """Refuse what waits for validations that a dataset without such rows will not have.

    Raises:
        ConfigError: names all such settings.
    """
    waiting = {
        "early_stopping": training.early_stopping,
        "validate_every_steps": training.validate_every_steps,
        "schedule.name": "plateau" if training.schedule.name == "plateau" else None,
    }
    if not rows and (odd := {key: value for key, value in waiting.items() if value is not None}):
        raise ConfigError(
            *(
                f"training.{key} is {value}, but the dataset has no rows for validation; expected some; "
                "publish a validation split, or leave the setting out"
                for key, value in odd.items()
            )
        )


def _are(labels: tuple[str, ...]) -> str:
    return f"are {len(labels)} labels" if labels else "is no label"
