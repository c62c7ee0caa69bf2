"""ANYWHERE. What sections must agree on: features, split, class weights and gate with the label, if there is one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.config.features import ElapsedFeature, TargetFeature
from pipeline.metrics import METRICS

if TYPE_CHECKING:
    from pipeline.config.load import PipelineConfig


def disagreements(config: PipelineConfig) -> Iterator[str]:
    """One sentence for each setting that asks of the label what it is not."""
    yield from _of_features(config)
    if config.split.by == "stratified" and not config.labels:
        yield "split.by is stratified, but there is no label; expected hash, group, time or column; or add a label"
    if config.training.class_weights is not None and len(config.labels) != 1:
        yield f"training.class_weights is set, but there {_are(config.labels)}; expected null, or one label"
    yield from _of_gate(config)


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


def _of_gate(config: PipelineConfig) -> Iterator[str]:
    if config.label_type is None:
        if config.gate:
            yield f"gate names {', '.join(config.gate)}, but there is no label to measure by; expected no gate"
        return
    plain = METRICS[config.label_type]
    several = config.labels if len(config.labels) > 1 else ()
    known = {*plain, *(f"{metric}_{label}" for metric in plain for label in several)}
    if odd := [name for name in config.gate if name not in known]:
        hint = ", each also as <metric>_<label>" if several else ""
        yield f"gate names {', '.join(odd)}, but label.type is {config.label_type}; expected {', '.join(plain)}{hint}"


def _are(labels: tuple[str, ...]) -> str:
    return f"are {len(labels)} labels" if labels else "is no label"
