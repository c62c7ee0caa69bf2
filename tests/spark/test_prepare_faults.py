"""A table with planted faults of every kind: counts by reason, and quarantine, are exactly what was planted."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from pipeline import storage
from pipeline.config import PipelineConfig
from pipeline.dataset import SPLITS, Dataset
from pipeline.errors import DataError
from pipeline.inspect import describe
from pipeline.preparation import account, stage
from pipeline.preparation.gc import collect_garbage
from pipeline.preparation.prepare import prepare_dataset
from tests.spark.datasets import config_of

ROWS = 2000
COLUMNS = ["row", "id", "label", "amount", "text", "rate", "code", "low", "high", "split", "flag", "day", "size"]
COLUMNS += ["serial"]
GOOD = {"label": "1", "amount": "5", "text": "12.5", "rate": "0.5", "code": "A-1", "low": "1", "high": "2"}
GOOD |= {"flag": "yes", "day": "2024-01-05 08:15", "size": "M"}

# What is planted: one change of a good row, and the reason that it must be rejected for.
FAULTS: list[tuple[dict[str, str], str]] = [
    ({"id": ""}, "id id is null"),
    ({"label": ""}, "label label is null"),
    ({"label": "2"}, "label label is not 0 or 1"),
    ({"text": "twelve"}, "text is not a number"),
    ({"rate": "Infinity"}, "rate is infinite"),
    ({"rate": ""}, "rate is missing"),
    ({"amount": "-1"}, "amount is below 0"),
    ({"amount": "101"}, "amount is above 100"),
    ({"code": ""}, "code is null"),
    ({"code": "B-1"}, "code does not match A-.*"),
    ({"code": "A-" + "1" * 9}, "code is longer than 8"),
    ({"low": "3"}, "low fails low < high"),
    ({"split": "later"}, "split key split is not train, validation or test"),
    ({"flag": "maybe"}, "flag is not a boolean"),
    ({"day": "08:15"}, "day is not a timestamp"),
    ({"size": "XL"}, "size is not an allowed value"),
    ({"code": "A-"}, "code is shorter than 3"),
    ({"serial": "twice"}, "serial is not unique"),
]


@dataclass
class Planted:
    """The table; the rows planted by reason, the raw lines that cannot be parsed; how many repeat a row or its id."""

    path: Path
    by_reason: dict[str, set[int]]
    broken: set[str]
    lines: int = 0
    repeats: int = 0
    other_values: int = 0


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    path = tmp_path_factory.mktemp("faults") / "table.csv"
    planted = Planted(path, defaultdict(set), set())
    by_reason, broken = planted.by_reason, planted.broken
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for row in range(ROWS):
            values = {"row": str(row), "id": str(row), **GOOD, "split": SPLITS[row % 7 % 3], "label": str(row % 2)}
            twice = row % 40 in (7, 27)
            values["serial"] = "" if twice else f"number {row}"  # of a row that comes twice it is not unique
            if row % 9 == 0:
                fault, reason = FAULTS[row // 9 % len(FAULTS)]
                values |= fault
                by_reason[reason].add(row)
            elif row % 50 == 1:
                values["amount"], values["code"] = "-1", ""
                by_reason["amount is below 0"].add(row)
                by_reason["code is null"].add(row)
            line = [values[name] for name in COLUMNS]
            if row % 97 == 5 and row % 9 != 0 and row % 50 != 1:
                line = line[:4] if row % 2 else [*line, "more"]
                broken.add(",".join(line))
            writer.writerow(line)
            planted.lines += 1
            if twice and ",".join(line) not in broken and row % 9 != 0 and row % 50 != 1:
                is_other = row % 40 == 27
                writer.writerow([*line[:3], "7", *line[4:]] if is_other else line)
                planted.lines += 1
                planted.other_values += is_other
                planted.repeats += not is_other
    return planted


@pytest.fixture
def config(planted: Planted, tmp_path: Path) -> PipelineConfig:
    strings = ("text", "code", "split", "flag", "day", "size", "serial")
    schema = ", ".join(f"{name} {'STRING' if name in strings else 'INT'}" for name in COLUMNS)
    schema = schema.replace("rate INT", "rate DOUBLE")
    return config_of(
        tmp_path,
        source={"inputs": {"table": {"path": str(planted.path), "schema": schema}}, "id": "id"},
        clean={
            "rules": [
                {"column": "amount", "min": 0, "max": 100},
                {"column": "code", "not_null": True, "pattern": "A-.*", "min_length": 3, "max_length": 8},
                {"column": "size", "allowed": ["S", "M"]},
                {"column": "serial", "unique": True},
                {"column": "low", "condition": "low < high"},
            ],
            "max_rejected_fraction": 0.5,
        },
        features={
            "amount": {"type": "numeric"},
            "text": {"type": "numeric"},
            "rate": {"type": "numeric", "missing": "reject"},
            "code": {"type": "categorical"},
            "flag": {"type": "boolean"},
            "day": {"type": "timestamp", "parts": ["hour"]},
        },
        label={"column": "label"},
        split={"by": "column", "key": "split"},
        dataset__keep=["row"],
    )


def test_rejections_are_exactly_the_planted_ones(spark: SparkSession, config: PipelineConfig, planted: Planted) -> None:
    by_reason, broken = planted.by_reason, planted.broken
    dataset = prepare_dataset(spark, config)
    accounting = dataset.manifest.accounting
    assert (accounting.rows_in, accounting.duplicates) == (planted.lines, planted.repeats + planted.other_values)
    assert min(planted.repeats, planted.other_values) > 30
    expected = {reason: len(rows) for reason, rows in by_reason.items()} | {"row cannot be parsed": len(broken)}
    assert dict(accounting.reasons) == expected
    assert accounting.balanced

    (attempt,) = Path(dataset.url, "quarantine").iterdir()
    table = pd.concat(pd.read_parquet(path) for path in (attempt / "rejected").iterdir())
    found: dict[str, set[int]] = defaultdict(set)
    for number, reasons in zip(table["row"], table["_reasons"], strict=True):
        for reason in reasons:
            found[reason].add(number)
    assert dict(found) == by_reason
    for name, value in (("text", "twelve"), ("flag", "maybe"), ("day", "08:15")):
        reason = next(reason for fault, reason in FAULTS if fault == {name: value})
        assert set(table.set_index("row").loc[sorted(by_reason[reason]), name]) == {value}
    lines = pd.concat(pd.read_parquet(path) for path in (attempt / "faults" / "table").iterdir())["line"]
    assert set(lines) == broken
    counts = json.loads((attempt / "counts.json").read_text())
    assert counts["reasons"] == expected

    rejected = set().union(*by_reason.values())
    parts = [part for parts in dataset.manifest.splits.values() for part in parts]
    tables = [pq.ParquetFile(storage.join(dataset.url, part.path)).read(["row"]) for part in parts]
    published = [row for table in tables for row in table["row"].to_pylist()]
    unparsed = {int(line.split(",")[0]) for line in broken}
    assert sorted(published) == sorted(set(range(ROWS)) - rejected - unparsed)
    assert (accounting.published, accounting.rejected) == (len(published), len(rejected) + len(broken))


@pytest.mark.parametrize("deduplicate", ["id", "row", False])
def test_duplicates_are_exactly_the_planted_ones_however_they_are_told(
    spark: SparkSession, config: PipelineConfig, planted: Planted, deduplicate: str | bool
) -> None:
    clean = config.clean.model_copy(update={"deduplicate": deduplicate})
    accounting = prepare_dataset(spark, config.model_copy(update={"clean": clean})).manifest.accounting
    expected = {"id": planted.repeats + planted.other_values, "row": planted.repeats, False: 0}[deduplicate]
    rejected = len(set().union(*planted.by_reason.values())) + len(planted.broken)
    assert accounting.as_rows() == {
        "in": planted.lines,
        "published": planted.lines - expected - rejected,
        "duplicates": expected,
        "rejected": rejected,
    }


def test_lines_that_cannot_be_parsed_are_not_shown_where_a_column_is_sensitive(
    spark: SparkSession, config: PipelineConfig, planted: Planted
) -> None:
    query = "SELECT *, code AS person FROM table"
    source = config.source.model_copy(update={"sensitive": ["person"], "query": query})
    dataset = prepare_dataset(spark, config.model_copy(update={"source": source}))
    (attempt,) = Path(dataset.url, "quarantine").iterdir()
    faults = pd.concat(pd.read_parquet(path) for path in (attempt / "faults" / "table").iterdir())
    assert len(faults) == dataset.manifest.accounting.reasons["row cannot be parsed"] == len(planted.broken)
    assert faults["line"].isna().all()
    assert faults["file"].str.endswith("table.csv").all()


def test_the_quarantine_of_a_version_can_be_found_and_those_of_attempts_before_it_are_garbage(
    spark: SparkSession, config: PipelineConfig, caplog: pytest.LogCaptureFixture
) -> None:
    strict = config.model_copy(update={"clean": config.clean.model_copy(update={"max_rejected_fraction": 0.01})})
    for _ in range(2):
        with pytest.raises(DataError, match=r"look at .*quarantine"):
            prepare_dataset(spark, strict)
    with caplog.at_level("INFO", "pipeline"):
        dataset = prepare_dataset(spark, config)
    attempt = dataset.manifest.quarantine
    folder = Path(dataset.url, "quarantine", str(attempt))
    assert json.loads((folder / "counts.json").read_text())["rows"] == dataset.manifest.accounting.as_rows()
    assert f"rows are rejected; look at {folder}" in caplog.text
    assert f"quarantine  quarantine/{attempt}" in describe(dataset.url)
    assert Dataset.open(dataset.url).manifest.quarantine == attempt
    assert len(list(folder.parent.iterdir())) == 3
    assert len(collect_garbage(dataset.url, keep=1).quarantines) == 2
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize(("kept", "most"), [("sample", 5), ("none", 0)])
def test_counts_are_exact_however_many_rows_the_quarantine_keeps(
    spark: SparkSession, config: PipelineConfig, monkeypatch: pytest.MonkeyPatch, kept: str, most: int
) -> None:
    monkeypatch.setattr(stage, "SAMPLE_ROWS", most)
    monkeypatch.setattr(account, "SAMPLE_ROWS", most)
    config = config.model_copy(update={"clean": config.clean.model_copy(update={"quarantine": kept})})
    dataset = prepare_dataset(spark, config)
    (attempt,) = Path(dataset.url, "quarantine").iterdir()
    assert json.loads((attempt / "counts.json").read_text())["rows"] == dataset.manifest.accounting.as_rows()
    for folder in ("rejected", "faults/table"):
        found = [len(pd.read_parquet(path)) for path in (attempt / folder).glob("*.parquet")]
        assert found == ([most] if most else [])
