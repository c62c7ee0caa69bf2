"""DRIVER. What is learned of the staged train rows, all in the same passes: features, labels, profile, drift."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import types as T

from pipeline.config import PipelineConfig
from pipeline.features import FittedFeatures, raw_inputs
from pipeline.features.repair import repairs_of
from pipeline.features.sketches import side_by_side
from pipeline.preparation.append import Base
from pipeline.preparation.drift import drift_of, previous_version, report_drift
from pipeline.preparation.fit import fit
from pipeline.preparation.known import coverage_fits, vocabularies
from pipeline.preparation.label import LabelEncoder, fit_labels, label_encoders
from pipeline.preparation.profile import kept_kinds, label_profiles, profiles
from pipeline.preparation.schema import effective_features


@dataclass(frozen=True)
class Learned:
    """Fitted features and labels, or those of the version that rows are added to; the profile has the drift."""

    features: FittedFeatures
    labels: tuple[LabelEncoder, ...]
    profile: dict[str, Any]


def learn(
    session: SparkSession,
    config: PipelineConfig,
    paths: Sequence[str],
    schema: T.StructType,
    query: Mapping[str, str],
    classes: tuple[str, ...],
    base: Base | None,
) -> Learned:
    """Fit features and labels, profile the columns, and compare both with the previous version.

    Args:
        session: to run tasks in.
        config: what to fit.
        paths: the staged train files.
        schema: of the staged rows.
        query: the types of the query's columns.
        classes: see `pipeline.preparation.label.classes_of`.
        base: the version that rows are added to.

    Raises:
        DataError: a column has no value, or there is drift and `dataset.drift.action` is fail.
        StorageError: the previous version cannot be read, likewise.
    """
    kinds = {**kept_kinds(config, schema), **raw_inputs(config.features)}
    previous = previous_version(config)
    known = previous.known(kinds) if previous else []
    covered = coverage_fits(base.features) if base else {}
    profiled = {**profiles(kinds, config.source.sensitive), **label_profiles(config)}
    asked = [
        [] if base else fit_labels(config.label),
        profiled.values(),
        [one.fit() for one in known],
        covered.values(),
    ]
    features, (units, columns, seen, coverages) = fit(
        session,
        {} if base else effective_features(config),
        kinds,
        paths,
        repairs_of(config.clean.rules),
        [side_by_side([*fits]) for fits in asked],
    )
    if base:
        features, labels = base.features, base.labels(config.label)
        coverage = dict(zip(covered, coverages, strict=True))
    else:
        labels = label_encoders(config.label, classes, units)
        coverage = {name: one.coverage for name, one in vocabularies(features).items()}
    profile = {
        "of": "new train rows" if base else "train rows",
        "query": dict(query),
        "columns": dict(zip(profiled, columns, strict=True)),
        "coverage": {name: dataclasses.asdict(one) for name, one in coverage.items()},
    }
    pairs = dict(zip(known, seen, strict=True))
    drift = drift_of(previous, profile, pairs, config.dataset.drift) if previous else []
    report_drift(drift, config)
    return Learned(features, labels, {**profile, "drift": drift})
