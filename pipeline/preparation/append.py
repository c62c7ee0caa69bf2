"""DRIVER and EXECUTOR. New rows for an old version: which rows it has already, and what must not have changed.

With `dataset.statistics_from` a version keeps its files, statistics and category ids. Rows whose id it has are
left where they are, in the split that they are in; the others become further files of a new version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline import storage
from pipeline.config import PipelineConfig
from pipeline.config.columns import plain_columns
from pipeline.config.data import LabelConfig
from pipeline.dataset import SPLITS, Accounting, Column, Dataset, DatasetSchema
from pipeline.errors import ConfigError, DataError
from pipeline.features import FittedFeatures
from pipeline.preparation.columns import KNOWN, KNOWN_ROWS, OWN
from pipeline.preparation.inputs import semantic
from pipeline.preparation.label import LabelEncoder, label_encoders
from pipeline.preparation.quoting import column
from pipeline.preparation.tasks import numbered

_SPARK_TYPES = {"string": "string", "timestamp": "timestamp", "bool": "boolean", "float32": "float"}
_SPARK_TYPES |= {"int8": "tinyint", "int16": "smallint", "int32": "int", "int64": "bigint", "float64": "double"}

_UNIT = (("offset", 0.0), ("scale", 1.0))


@dataclass(frozen=True)
class Base:
    """The version that rows are added to."""

    dataset: Dataset

    @classmethod
    def of(cls, config: PipelineConfig) -> Base | None:
        """The version that the configuration names, if it names one.

        Raises:
            ConfigError: there are no ids to tell rows by, or the version was made of other features, labels or splits.
        """
        if config.dataset.statistics_from is None:
            return None
        dataset = Dataset.open(config.dataset.url, config.dataset.statistics_from)
        offences = list(_differences(config, dataset.manifest.semantic))
        if offences:
            raise ConfigError(*offences)
        return cls(dataset)

    @property
    def rows(self) -> int:
        """Rows of the version."""
        return sum(self.rows_by_split.values())

    @property
    def rows_by_split(self) -> dict[str, int]:
        """Rows of each split."""
        return {split: self.dataset.manifest.rows(split) for split in SPLITS}

    @property
    def features(self) -> FittedFeatures:
        """The features as they were fitted."""
        return FittedFeatures.from_json(self.dataset.manifest.statistics)

    def labels(self, config: LabelConfig | None) -> tuple[LabelEncoder, ...]:
        """The labels as they were fitted."""
        state, schema = self.dataset.manifest.statistics["label"], self.dataset.schema
        units = zip(*(_each(state.get(name, [plain] * len(schema.labels))) for name, plain in _UNIT), strict=True)
        return label_encoders(config, schema.classes, units)

    def cleaning(self, config: PipelineConfig) -> PipelineConfig:
        """The configuration by which new rows are cleaned: a class that the version does not know is rejected."""
        if config.label is None or config.label.type != "multiclass":
            return config
        label = config.label.model_copy(update={"classes": list(self.dataset.schema.classes)})
        return config.model_copy(update={"label": label})

    def marked(self, session: SparkSession, config: PipelineConfig, frame: DataFrame) -> DataFrame:
        """The frame with columns `KNOWN` and `KNOWN_ROWS`: whether the version has rows of that id, and how many."""
        schema = self.dataset.schema
        ids = {physical: raw for physical, raw in plain_columns(config) if raw in config.source.id}
        columns = [schema.column(physical) for physical in ids]
        paths = [storage.join(self.dataset.url, part.path) for split in SPLITS for part in self._parts(split)]
        known = numbered(session, len(paths)).mapInArrow(
            _Ids(paths, columns), ", ".join(f"{OWN}known_{n} {_SPARK_TYPES[c.dtype]}" for n, c in enumerate(columns))
        )
        counted = known.groupBy(*known.columns).agg(F.count(F.lit(1)).alias(KNOWN_ROWS))
        pairs = enumerate(zip(columns, ids.values(), strict=True))
        same = [column(raw).cast(_SPARK_TYPES[c.dtype]) == F.col(f"{OWN}known_{n}") for n, (c, raw) in pairs]
        joined = frame.join(counted, reduce(and_, same), "left")
        return joined.withColumn(KNOWN, F.col(f"{OWN}known_0").isNotNull()).drop(*known.columns)

    def check_schema(self, schema: DatasetSchema) -> None:
        """The rows must have the columns of the version.

        Raises:
            DataError: those that differ.
        """
        then, now = ({c.name: c for c in one.columns} for one in (self.dataset.schema, schema))
        names = [name for name in dict.fromkeys([*then, *now]) if then.get(name) != now.get(name)]
        if names:
            raise DataError(
                f"columns {', '.join(names)} are not as in version {self.dataset.content_id[:12]}; "
                "expected the same, since its files stay; publish under another dataset.url"
            )

    def balance(self, found: Accounting, known: int) -> Accounting:
        """The balance of the version and the new rows.

        Where the input has every row of the version again, it is the input's own balance. Otherwise the input is an
        addition: its rows count beside those that the version was made of, and rows of known ids are duplicates.
        Of rows that share an id as many are known as are published.
        Old files are not written again, so what rules changed in them counts in either case.
        """
        then = self.dataset.manifest.accounting
        if known == self.rows and found.duplicates >= 0:
            return replace(found, repaired=then.repaired)
        return Accounting(
            rows_in=then.rows_in + found.rows_in,
            published=then.published + found.published - known,
            duplicates=then.duplicates + found.duplicates + known,
            rejected=then.rejected + found.rejected,
            reasons=dict(sorted((Counter(then.reasons) + Counter(found.reasons)).items())),
            repaired=then.repaired,
        )

    def class_counts(self, found: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
        """Rows of each class in each split, old and new."""
        then = self.dataset.manifest.class_counts
        return {split: dict(sorted((Counter(then[split]) + Counter(found[split])).items())) for split in SPLITS}

    def _parts(self, split: str) -> Sequence[Any]:
        return self.dataset.manifest.splits[split]


def _each(value: float | Sequence[float]) -> Sequence[float]:
    return value if isinstance(value, Sequence) else [value]


def _differences(config: PipelineConfig, then: Mapping[str, Any]) -> Iterator[str]:
    if not config.source.id:
        yield "dataset.statistics_from needs ids; expected source.id to name the columns that tell old rows from new"
    now = semantic(config)
    sections = {name: (now[name], then[name]) for name in ("features", "label", "split")}
    sections |= {f"dataset.{name}": (now["layout"][name], then["layout"][name]) for name in ("keep", "wide")}
    sections["source.id"] = now["source"]["id"], then["source"]["id"]
    for name, (new, old) in sections.items():
        if new != old:
            yield (
                f"{name} is not as in version {str(config.dataset.statistics_from)[:12]}, which "
                "dataset.statistics_from names; expected the same, since its files stay; undo it, or prepare anew"
            )


@dataclass(frozen=True)
class _Ids:
    """The body of a task: the ids in some part files."""

    paths: Sequence[str]
    columns: Sequence[Column]

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for index in batch.column(0).to_pylist():
                with storage.open_read(self.paths[index]) as stream:
                    names = [column.name for column in self.columns]
                    for found in pq.ParquetFile(stream).iter_batches(columns=names):
                        yield pa.RecordBatch.from_arrays(
                            [_with_zone(found.column(name)) for name in names],
                            names=[f"{OWN}known_{number}" for number in range(len(names))],
                        )


def _with_zone(array: pa.Array) -> pa.Array:
    return array.cast(pa.timestamp("us", "UTC")) if pa.types.is_timestamp(array.type) else array
