"""DRIVER. Raw tables to a published dataset: read, clean and stage, fit on train rows, encode, publish."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from pipeline import storage
from pipeline.config import PipelineConfig
from pipeline.config.columns import plain_columns
from pipeline.dataset import SPLITS, Accounting, Dataset, DatasetSchema
from pipeline.errors import DataError, StorageError
from pipeline.lease import Lease
from pipeline.preparation import account, publish
from pipeline.preparation.append import Base
from pipeline.preparation.inputs import Inputs, all_files, check_unchanged, fingerprints, list_inputs, request_of
from pipeline.preparation.jobs import ended_jobs, remove_left
from pipeline.preparation.label import classes_of, label_state
from pipeline.preparation.layout import Layout, choose_layout, vector_bytes
from pipeline.preparation.learn import Learned, learn
from pipeline.preparation.progress import Progress, StepProgress
from pipeline.preparation.query import Query, listed_inputs
from pipeline.preparation.read import (
    Census,
    compares_ids,
    refuse_cut_texts,
    take_census,
)
from pipeline.preparation.rules import check_rule_limits
from pipeline.preparation.schema import dataset_schema
from pipeline.preparation.session import OwnSettings, preparation_settings, spark_errors
from pipeline.preparation.snapshot import check_contents, files_now, files_of_tables, fingerprint
from pipeline.preparation.split import expected_fractions
from pipeline.preparation.stage import Staged, files_of, stage
from pipeline.preparation.tasks import run_tasks
from pipeline.preparation.weight import weight_encoders
from pipeline.preparation.write import PartWriter

logger = logging.getLogger(__name__)

_KNOWN_ROWS = 1 << 20
"""Rows that are published already which one task tells from new ones."""


def log_steps(step: str, done: int, total: int) -> None:
    """The default progress: a line in the log as each step begins."""
    if total == 0:
        logger.info("prepare: %s", step)


def published(config: PipelineConfig) -> Dataset | None:
    """The newest version, if it is what this configuration and these input files give; needs no Spark."""
    if not all_files(config):
        return None
    return publish.answered(config, request_of(config, list_inputs(config)))


def prepare_dataset(
    spark: SparkSession,
    config: PipelineConfig,
    frame: DataFrame | None = None,
    progress: Progress = log_steps,
) -> Dataset:
    """Prepare and publish a dataset.

    Args:
        spark: the session to work in; its settings are restored.
        config: what to read, clean, encode and publish where.
        frame: a DataFrame instead of, or beside, the named inputs; its name is ``source.primary`` or ``frame``.
        progress: told each step as it begins, and how many of its Spark tasks are done.

    Raises:
        InputMissingError: an input is missing.
        DataError: the data cannot be used; nothing is published.
        OutputError: another run is publishing there.
        StorageError: reading or writing failed.
        InterruptedRunError: an input changed meanwhile.
    """
    inputs = listed_inputs(config, frame)
    session = spark if frame is None else frame.sparkSession
    url = config.dataset.url
    steps = StepProgress(session, progress)
    with (
        Lease(url) as lease,
        preparation_settings(session, hides_values=bool(config.source.sensitive)) as own,
        steps.watching(),
    ):
        publish.sweep(url)
        with _staging(url) as attempt, ended_jobs(session.sparkContext, "prepare"):
            preparation = _Preparation(own, config, inputs, attempt, steps.step, Base.of(config))
            return preparation.run(frame, lease)


@contextlib.contextmanager
def _staging(url: str) -> Iterator[str]:
    """The name of this attempt; what it staged is removed at its end."""
    attempt = uuid.uuid4().hex[:12]
    try:
        yield attempt
    finally:
        remove_left(storage.join(url, "_staging", attempt))
        with contextlib.suppress(StorageError):
            if not storage.list_names(storage.join(url, "_staging")):
                remove_left(storage.join(url, "_staging"))


def _known_of_inputs(listed: Inputs, census: Mapping[str, Census]) -> dict[str, Any]:
    """What is recorded of each input: its files, or the sum of its rows."""
    others = {name: one for name, one in census.items() if one.contents is not None}
    sums = {name: fingerprint(one.rows + one.faults, one.contents or 0) for name, one in others.items()}
    return {**fingerprints(listed), **sums}


@dataclass(frozen=True)
class _Rows:
    """The cleaned rows of an attempt, staged; ``query`` has the types of the query's columns."""

    files: list[Staged]
    layout: Layout
    frame: DataFrame
    query: dict[str, str]

    @property
    def by_split(self) -> dict[str, int]:
        """How many there are to encode."""
        return {split: sum(one.rows for one in files_of(self.files, self.layout, split)) for split in SPLITS}


@dataclass(frozen=True)
class _Preparation:
    """One attempt to prepare a dataset."""

    own: OwnSettings
    config: PipelineConfig
    inputs: Inputs
    attempt: str
    progress: Callable[[str], None]
    base: Base | None

    @property
    def session(self) -> SparkSession:
        """Where everything runs."""
        return self.own.session

    def run(self, frame: DataFrame | None, lease: Lease) -> Dataset:
        """The five steps."""
        query = Query.of(self.own, self.config, self.inputs, self.base, frame)
        frames, primary = query.frames, query.primary
        self.progress("counting the inputs")
        refuse_cut_texts(self.session, self.config, self.inputs, primary)
        tables = files_of_tables(frames, self.inputs)
        listed = {**self.inputs, **tables}
        census = take_census(frames, self.config, primary, listed)
        self.progress("cleaning and splitting")
        rows = self._stage(query, census[primary])
        accounting, quarantine = self._account(frames, census, rows, primary)
        if self.base and not sum(rows.by_split.values()):
            logger.info("prepare: version %s has every row already", self.base.dataset.content_id[:12])
            return publish.point_to(self.config, lease, self.base.dataset, request_of(self.config, self.inputs))
        class_counts = account.count_classes(rows.files, rows.layout)
        counts = rows.by_split
        if self.base:
            class_counts = self.base.class_counts(class_counts)
            counts = {split: count + self.base.rows_by_split[split] for split, count in counts.items()}
        classes = self.base.dataset.schema.classes if self.base else classes_of(self.config.label, class_counts)
        account.check_splits(counts, class_counts, classes)
        if self.base is None:
            account.check_weights(rows.files, rows.layout, self.config)
        self.progress("fitting the features on train rows")
        paths = [str(one.path) for one in self._files(rows, "train")]
        learned = learn(self.session, self.config, paths, rows.frame.schema, rows.query, classes, self.base)
        self.progress("encoding and writing")
        schema = dataset_schema(self.config, learned.features, rows.frame.schema, classes)
        if self.base:
            self.base.check_schema(schema)
        written = self._write(rows, learned, schema)
        check_unchanged(listed, {**list_inputs(self.config), **files_now(tables)})
        others = {name: frames[name] for name in self.config.source.inputs if name in census and name not in listed}
        check_contents(census, take_census(others, self.config, primary))
        self.progress("publishing")
        label = label_state(self.config.label, learned.labels, class_counts)
        statistics = {**learned.features.to_json(), "label": label}
        return publish.publish(
            self.config,
            lease,
            publish.Version(
                schema=schema,
                statistics=self.base.dataset.manifest.statistics if self.base else statistics,
                written=written,
                accounting=dataclasses.replace(accounting, repaired=publish.repaired(written, accounting.repaired)),
                class_counts=class_counts,
                request=request_of(self.config, self.inputs),
                inputs=_known_of_inputs(listed, census),
                profile=learned.profile,
                base=self.base.dataset.manifest if self.base else None,
                quarantine=quarantine,
            ),
        )

    def _stage(self, query: Query, census: Census) -> _Rows:
        layout = self._layout(census.rows)
        compare_ids = compares_ids(query.frames[query.primary], self.config)
        files = stage(query.marked, self.config, layout, self._folder("rows"), compare_ids)
        account.check_query(census, files, self.config, compare_ids)
        types = {one.name: one.dataType.simpleString() for one in query.queried.schema}
        return _Rows(files, layout, query.marked, types)

    def _layout(self, rows: int) -> Layout:
        """For the rows of the input, or for about as many as are not published already."""
        fractions, group = expected_fractions(self.config), self.config.dataset.rows_per_row_group
        if self.base is None:
            return choose_layout(rows, self._row_bytes(), fractions, group, vector_bytes(self.config.features))
        new = rows - self.base.rows if rows >= self.base.rows else rows
        layout = choose_layout(new, self._row_bytes(), fractions, group, vector_bytes(self.config.features))
        return dataclasses.replace(layout, known_buckets=max(1, math.ceil((rows - new) / _KNOWN_ROWS)))

    def _row_bytes(self) -> int:
        """About how long an encoded row is, without vectors: features twice, wide and packed."""
        config = self.config
        single = len(config.source.id) + len(config.dataset.keep) + len(config.labels)
        return 8 * (2 * len(config.features) + single)

    def _account(
        self, frames: Mapping[str, DataFrame], census: Mapping[str, Census], rows: _Rows, primary: str
    ) -> tuple[Accounting, str | None]:
        """The balance, and the attempt, if it has a quarantine."""
        accounting = account.account(census[primary], rows.files)
        folder = storage.join(self.config.dataset.url, "quarantine", self.attempt)
        has_quarantine = accounting.rejected or any(counted.faults for counted in census.values())
        if has_quarantine:
            account.write_quarantine(
                folder, self._folder("faults"), accounting, rows.files, frames, census, self.config
            )
        account.check_rejected(accounting, self.config, folder)
        account.check_faults(census, primary, self.config, folder)
        check_rule_limits(account.rejected_by_rule(rows.files), accounting.rows_in, self.config)
        if accounting.rejected:
            rejected = f"{accounting.rejected:,} of {accounting.rows_in:,} rows are rejected"
            logger.info("prepare: %s; look at %s", rejected, folder)
        if self.base:
            accounting = self.base.balance(accounting, sum(one.known for one in rows.files))
        return accounting, self.attempt if has_quarantine else None

    def _files(self, rows: _Rows, split: str) -> Sequence[Staged]:
        return files_of(rows.files, rows.layout, split)

    def _write(self, rows: _Rows, learned: Learned, schema: DatasetSchema) -> dict[str, list[dict[str, Any]]]:
        labels = (*learned.labels, *weight_encoders(self.config.label))
        wide, group = self.config.dataset.wide, rows.layout.rows_per_row_group
        sources = tuple(plain_columns(self.config))
        writer = PartWriter(learned.features, labels, schema, sources, wide, self._folder("parts"), group)
        # Test rows are written twice, encoded and raw: the longest tasks first.
        staged = [(split, one) for split in reversed(SPLITS) for one in self._files(rows, split)]
        with spark_errors("encoding"):
            results = run_tasks(self.session, writer, [(split, str(one.path)) for split, one in staged])
        written: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        for (split, one), result in zip(staged, results, strict=True):
            if sum(result["row_groups"]) != one.rows:
                raise DataError(f"a part file of {split} has {sum(result['row_groups'])} rows; expected {one.rows}")
            written[split].append(result)
        return written

    def _folder(self, name: str) -> str:
        return storage.join(self.config.dataset.url, "_staging", self.attempt, name)
