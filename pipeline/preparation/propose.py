"""DRIVER. Look at a table and choose label, id, split and features for a configuration that runs as it is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pipeline.config.data import InputConfig
from pipeline.errors import DataError, InputMissingError
from pipeline.preparation import choose
from pipeline.preparation.dialect import input_of
from pipeline.preparation.formats import format_of
from pipeline.preparation.inputs import InputFile, files_at
from pipeline.preparation.proposal import Proposal, quoted_yaml
from pipeline.preparation.quoting import column
from pipeline.preparation.read import parsed
from pipeline.preparation.seen import FEW_VALUES, Look, Seen
from pipeline.preparation.session import preparation_settings, spark_errors
from pipeline.preparation.tables import read_table
from pipeline.preparation.trial import Trial

_FRACTIONS = {0.1: "tenth", 0.2: "fifth", 0.25: "quarter"}
"""Of the rows, for validation and as many for test: more where rows or classes are few."""
_ID_CANDIDATES = 5


def check_table(path: str) -> str:
    """Make sure that there is a table, before Spark starts; returns the format of its files.

    Raises:
        InputMissingError: nothing is there.
        DataError: its files are of several formats.
    """
    return format_of(path, _files(path))


def _files(path: str) -> list[InputFile]:
    files = sorted(files_at(path))
    if not files:
        raise InputMissingError(f"{path} is missing; expected a table as CSV, JSON, Parquet or ORC; check the path")
    return files


def propose(session: SparkSession, path: str, label: str | None = None, folder: str | None = None) -> Proposal:
    """A configuration for a table: types, features, label, id, and a split by date where there is one.

    Its rows are split and its classes counted as preparation will, so that no class is proposed that a split lacks.

    Args:
        session: to read with.
        path: a file, folder or glob pattern: CSV, JSON lines, Parquet or ORC.
        label: the column to predict; by default the one whose name or values look like it.
        folder: where the configuration will lie; by default the working directory.

    Raises:
        DataError: no column can be the label, or none a feature.
        InputMissingError: nothing is there.
        ServiceError: Spark lacks what the table's format needs.
    """
    files = _files(path)
    format_ = format_of(path, files)
    with preparation_settings(session), spark_errors(f"reading {path}"):
        input_ = input_of(session, path, format_, files)
        frame = parsed(read_table(session, path, input_, files))
        table = _Table(path, input_, frame, Look.at(frame), folder or os.getcwd())
        refused: dict[str, str] = {}
        for one in choose.labels(table.look, label):
            found = table.with_label(one)
            if isinstance(found, Proposal):
                return found
            refused[one.name] = found
    raise DataError(
        *(
            f"label {name} of {path} cannot be learned: {reason}; expected rows of every class in train, validation "
            "and test; give more rows, or name another column with --label"
            for name, reason in refused.items()
        )
    )


@dataclass(frozen=True)
class _Table:
    """A table that a configuration is proposed for.

    Attributes:
        path: as the user wrote it.
        input_: how it is read.
        frame: its rows.
        look: at them.
        folder: where the configuration will lie.
    """

    path: str
    input_: InputConfig
    frame: DataFrame
    look: Look
    folder: str

    def with_label(self, label: Seen) -> Proposal | str:
        """The first of the splits that has every class everywhere, or else the best; or why there is none.

        Raises:
            DataError: there is no other column to learn from.
        """
        ids = self._ids(label)
        chosen, left_out = choose.features(self.frame.schema, self.look, {label.name, *ids})
        if not chosen:
            reasons = ", ".join(f"{name} ({reason})" for name, reason in left_out.items()) or "there is no other column"
            raise DataError(f"{self.path} has no column to learn from: {reasons}; expected one beside label and id")
        trials = []
        for split in self._splits(label):
            proposal = Proposal(
                path=self.path,
                format=self.input_.format,
                options=self.input_.options,
                schema=self.input_.columns,
                label=label.name,
                label_type=choose.label_type(label, self._values(label)),
                ids=ids,
                split=split,
                features=chosen,
                left_out=left_out,
            )
            trial = Trial.of(self.frame, proposal, self.folder)
            if trial.is_whole:
                return trial.proposal
            trials.append(trial)
        best = max(trials, key=lambda one: len(one.common))
        return best.with_common_classes() or best.reason

    def _values(self, label: Seen) -> Sequence[Any] | None:
        """All values of a label, if they are few."""
        if self.look.is_whole or label.values is None:
            return label.values
        values = self.frame.select(column(label.name)).distinct().dropna().limit(FEW_VALUES + 1).collect()
        return None if len(values) > FEW_VALUES else [value for (value,) in values]

    def _ids(self, label: Seen) -> tuple[str, ...]:
        """The first column whose values are all there and all different; nothing if there is none."""
        for one in choose.ids(self.look, label)[:_ID_CANDIDATES]:
            whole = self.look.is_whole
            distinct = one.distinct if whole else self.frame.select(column(one.name)).distinct().count()
            if distinct == self.look.rows:
                return (one.name,)
        return ()

    def _splits(self, label: Seen) -> Iterator[str]:
        """Sections to try, each with what it is for."""
        date = choose.moment(self.look, label)
        if date is not None and isinstance(date.type, T.DateType) and date.distinct >= 50:
            for fraction in _FRACTIONS:
                yield _section("rows of a day stay together", by="group", key=date.name, **_parts(fraction))
        elif date is not None:
            for fraction in _FRACTIONS:
                if (cuts := self._cuts(date, fraction)) is not None:
                    said = f"the last {_FRACTIONS[fraction]} is the test"
                    yield _section(said, by="time", key=date.name, validation_from=cuts[0], test_from=cuts[1])
        for fraction in _FRACTIONS:
            yield _section("", by="hash", **_parts(fraction))

    def _cuts(self, date: Seen, fraction: float) -> tuple[str, str] | None:
        """The moments, in UTC, from which on rows are for validation and for test."""
        seconds = self.frame.select(F.unix_seconds(column(date.name).cast("timestamp")).alias("s"))
        cuts: list[float] = seconds.approxQuantile("s", [1 - 2 * fraction, 1 - fraction], 0.001)
        if len(set(cuts)) < 2:
            return None
        first, second = (str(np.datetime64(int(cut), "s")) for cut in cuts)
        return first, second


def _parts(fraction: float) -> dict[str, float]:
    return {"validation": fraction, "test": fraction}


def _section(said: str, **keys: Any) -> str:
    return quoted_yaml(keys) + (f"   # {said}" if said else "")
