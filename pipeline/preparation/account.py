"""DRIVER. Where every row went: the balance, what makes the data unusable, and the quarantine of rejected rows."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline import storage
from pipeline.config import PipelineConfig
from pipeline.dataset import SPLITS, Accounting, commit_numbers
from pipeline.errors import DataError, InterruptedRunError
from pipeline.preparation.files import write_partitions
from pipeline.preparation.inputs import query_of
from pipeline.preparation.layout import Layout
from pipeline.preparation.read import Census
from pipeline.preparation.stage import SAMPLE_ROWS, Staged, files_of
from pipeline.preparation.text_files import FAULT

logger = logging.getLogger(__name__)

QUARANTINE_FORMAT = ("quarantine", 1)
UNPARSABLE = "row cannot be parsed"


def check_query(census: Census, staged: Sequence[Staged], config: PipelineConfig, compare_ids: bool) -> None:
    """The query must give each row of the primary input once.

    Raises:
        DataError: it loses or multiplies rows.
        InterruptedRunError: the input itself changed.
    """
    rows = account(None, staged).rows_in
    if query_of(config) is None and rows != census.rows:
        raise InterruptedRunError(
            f"the input had {census.rows:,} rows when they were counted and {rows:,} when they were read; "
            "expected it to stay as it is; run the command again"
        )
    if query_of(config) is None or config.source.row_changes == "allowed":
        return
    checks = tuple(sum(one.checks[which] for one in staged) % 2**64 for which in range(2))
    advice = "use left joins on keys that are unique on the other side, or set source.row_changes: allowed"
    if rows != census.rows:
        what = "loses" if rows < census.rows else "multiplies"
        raise DataError(
            f"source.query {what} rows of {config.source.primary}: it gives {rows:,}; "
            f"expected {census.rows:,}; {advice}"
        )
    if compare_ids and checks != census.check:
        raise DataError(
            f"source.query loses some ids of {config.source.primary} and multiplies others; "
            f"expected each once; {advice}"
        )


def account(census: Census | None, staged: Sequence[Staged]) -> Accounting:
    """The balance of primary rows: those parsed went through the query, the others are rejected.

    Rows of ids that are published already count as published, as often as they are.
    """
    faults = census.faults if census else 0
    published = sum(one.rows + one.known for one in staged if not one.rejected)
    duplicates = sum(one.duplicates for one in staged)
    rejected = sum(one.rejected for one in staged) + faults
    rows_in = published + duplicates + rejected
    reasons: Counter[str] = Counter({UNPARSABLE: faults} if faults else {})
    for one in staged:
        reasons.update(one.reasons)
    return Accounting(rows_in, published, duplicates, rejected, dict(sorted(reasons.items())))


def rejected_by_rule(staged: Sequence[Staged]) -> dict[str, int]:
    """Rows that each rule with a limit of its own rejects, by its place."""
    return dict(sum((Counter(one.rules) for one in staged), Counter[str]()))


def check_faults(census: Mapping[str, Census], primary: str, config: PipelineConfig, quarantine: str) -> None:
    """Refuse joined inputs of which too many rows cannot be parsed, and tell of the others; the query misses them.

    Raises:
        DataError: every such input, with fraction and limit.
    """
    limit, offences = config.clean.max_rejected_fraction, []
    for name, one in census.items():
        if name == primary or not one.faults:
            continue
        total = one.rows + one.faults
        found = f"{one.faults / total:.2%} of the rows of input {name} cannot be parsed ({one.faults:,} of {total:,})"
        if one.faults > limit * total:
            offences.append(
                f"{found}; expected at most clean.max_rejected_fraction {limit:g}; mend the file or its schema; "
                f"look at {quarantine}"
            )
        else:
            logger.warning("prepare: %s; the query misses them; look at %s", found, quarantine)
    if offences:
        raise DataError(*offences)


def check_rejected(accounting: Accounting, config: PipelineConfig, quarantine: str) -> None:
    """Refuse data of which too much was rejected.

    Raises:
        DataError: with fraction, limit and reasons.
    """
    if accounting.rows_in == 0:
        raise DataError("the source has no rows; expected some; check paths, query and source.where")
    fraction = accounting.rejected / accounting.rows_in
    if fraction > config.clean.max_rejected_fraction:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in accounting.reasons.items())
        raise DataError(
            f"{fraction:.2%} of the rows are rejected ({accounting.rejected:,} of {accounting.rows_in:,}: {reasons}); "
            f"expected at most clean.max_rejected_fraction {config.clean.max_rejected_fraction:g}; "
            f"look at {quarantine}"
        )


def count_classes(staged: Sequence[Staged], layout: Layout) -> dict[str, dict[str, int]]:
    """Rows of each class in each split."""
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for one in staged:
        if (split := layout.split_of(one.bucket)) in counts:
            counts[split].update(one.classes)
    return {split: dict(sorted(counter.items())) for split, counter in counts.items()}


def check_splits(
    rows: Mapping[str, int], class_counts: Mapping[str, Mapping[str, int]], classes: Sequence[str]
) -> None:
    """Every split must have rows, of every class.

    Raises:
        DataError: with the counts.
    """
    lacking = []
    for split, count in rows.items():
        absent = [name for name in classes if name not in class_counts[split]]
        if count == 0:
            lacking.append(f"{split} has no row")
        elif absent:
            lacking.append(f"{split} has no row of class {', '.join(absent)}")
    if lacking:
        shown = "; ".join(f"{split} {dict(class_counts[split]) or rows[split]}" for split in rows)
        raise DataError(
            f"{' and '.join(lacking)} (rows by class: {shown}); expected every class in every split; "
            "give more rows, larger fractions or another split"
        )


def check_weights(staged: Sequence[Staged], layout: Layout, config: PipelineConfig) -> None:
    """Every split must have a row whose weight is above 0, if there are weights.

    Raises:
        DataError: names the splits that have none.
    """
    if config.weight is None:
        return
    files = {split: files_of(staged, layout, split) for split in SPLITS}
    empty = [split for split, of in files.items() if of and not sum(one.rows - one.weightless for one in of)]
    if empty:
        raise DataError(
            f"label.weight {config.weight} is 0 in every row of {', '.join(empty)}; expected a row above 0 in every "
            "split, since nothing can be learned or measured otherwise; mend the column, or leave label.weight out"
        )


def write_quarantine(
    folder: str,
    staging: str,
    accounting: Accounting,
    staged: Sequence[Staged],
    frames: Mapping[str, DataFrame],
    census: Mapping[str, Census],
    config: PipelineConfig,
) -> None:
    """Rejected rows with their reasons, parse faults per input with raw line and file, and the exact counts.

    Last come the counts, and after which commit the attempt was made: a newer one leaves it behind.

    No raw line is shown where any column is sensitive: the query may take its values from any input and any column,
    and which part of a line that cannot be parsed is which cannot be told.
    """
    for number, one in enumerate(one for one in staged if one.rejected and one.path):
        storage.move_folder(str(one.path), storage.join(folder, "rejected", f"part-{number:05d}.parquet"))
    faults = {name: counted.faults for name, counted in census.items() if counted.faults}
    if config.clean.quarantine != "none":
        for name in faults:
            at = storage.join(folder, "faults", name)
            _write_faults(at, staging, frames[name], config)
    after = max(commit_numbers(config.dataset.url), default=0)
    counts = {"rows": accounting.as_rows(), "reasons": dict(accounting.reasons), "faults": faults, "after": after}
    storage.write_json(storage.join(folder, "counts.json"), *QUARANTINE_FORMAT, counts)


def attempts(url: str) -> dict[str, int]:
    """The attempts that left a quarantine in a dataset, and the newest commit that there was then."""
    folder, found = storage.join(url, "quarantine"), {}
    for attempt in storage.list_names(folder):
        counts = storage.join(folder, attempt, "counts.json")
        if storage.exists(counts):
            found[attempt] = storage.read_json(counts, *QUARANTINE_FORMAT).get("after", 0)
    return found


def _write_faults(folder: str, staging: str, frame: DataFrame, config: PipelineConfig) -> None:
    faulty = frame.where(F.col(FAULT).isNotNull())
    line = F.lit(None).cast("string") if config.source.sensitive else F.col(FAULT)
    lines = faulty.select(line.alias("line"), F.col("_metadata.file_path").alias("file"))
    if config.clean.quarantine == "sample":
        lines = lines.limit(SAMPLE_ROWS)
    for number, path in enumerate(write_partitions(lines, ["line", "file"], staging)):
        storage.move_folder(path, storage.join(folder, f"part-{number:05d}.parquet"))
