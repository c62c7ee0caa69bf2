"""A small model with real features: raw rows, the dataset that holds them encoded, and its model folder."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipeline import storage
from pipeline.config.training import ModelConfig
from pipeline.dataset import Accounting, Column, Dataset, DatasetSchema, Manifest, PackedColumn, PartFile, content_id
from pipeline.features import FittedFeatures, canonical
from pipeline.features.categorical import Boolean, Categorical
from pipeline.features.missing import Missing
from pipeline.features.numeric import Numeric
from pipeline.features.timestamp import Timestamp
from pipeline.inference.predictor import export_model
from pipeline.models import build_model
from pipeline.testing import encoded_table, publish

FEATURES = FittedFeatures(
    (
        Numeric("amount", "amount", fill=3.0, low=0.0, high=90.0, log1p=True, offset=2.1, scale=0.7),
        Missing("amount", "amount"),
        Categorical("colour_id", "colour", ("red", "blue", "green")),
        Timestamp("when", "when", ("month", "hour")),
        Timestamp("day", "when", ("weekday",), cyclic=True),
        Boolean("paid", "paid"),
    ),
    {"amount": "number", "colour": "string", "when": "timestamp", "paid": "boolean"},
)


ROWS_PER_ROW_GROUP = 97


def raw_rows(count: int, seed: int = 0) -> pd.DataFrame:
    """Raw rows with nulls, NaN and categories that the vocabulary lacks."""
    random = np.random.default_rng(seed)
    amount = random.gamma(2.0, 9.0, count)
    amount[random.random(count) < 0.1] = np.nan
    colours = np.array(["red", "blue", "green", "mauve", None], object)
    when = pd.Timestamp("2024-01-01") + pd.to_timedelta(random.integers(0, 366 * 24 * 60, count), "min")
    paid = np.array([True, False, None], object)
    return pd.DataFrame(
        {
            "id": np.arange(count),
            "amount": amount,
            "colour": colours[random.integers(0, 5, count)],
            "when": pd.Series(when).where(random.random(count) > 0.05),
            "paid": paid[random.integers(0, 3, count)],
        }
    )


def small_schema(weight: bool = False) -> DatasetSchema:
    """The schema of `small_dataset`; with a column ``weight`` if asked for."""
    features = FEATURES.columns
    packed = tuple(
        PackedColumn(f"_packed_{dtype}", dtype, tuple(c.name for c in features if c.dtype == dtype))
        for dtype in ("float32", "int32")
    )
    columns = (
        Column("id", "int64", "id"),
        Column("label", "float32", "label"),
        *([Column("weight", "float32", "weight")] if weight else []),
        *features,
        Column("colour", "string", "kept"),
    )
    return DatasetSchema(columns, packed, "binary")


def small_dataset(folder: str, rows: int = 2000, weight: bool = False) -> Dataset:
    """Publish the encoded form of `raw_rows`: 0 is train, 1 validation, 2 test by seed."""
    schema = small_schema(weight)
    statistics = {**FEATURES.to_json(), "label": {"type": "binary"}}
    splits, counts = {}, {}
    for seed, (split, count) in enumerate({"train": rows, "validation": rows // 4, "test": rows // 4}.items()):
        raw = raw_rows(count, seed)
        encoded = FEATURES.transform({name: canonical(raw[name], kind) for name, kind in FEATURES.inputs.items()})
        random = np.random.default_rng([seed, 1])
        score = encoded["amount"] + (encoded["colour_id"] == 4) + random.normal(0, 0.7, count)
        encoded["label"] = (score > 0.6).astype(np.float32)
        encoded["weight"] = random.choice([0.0, 0.5, 1.0, 3.0], count).astype(np.float32)
        encoded["id"], encoded["colour"] = raw["id"].to_numpy(), raw["colour"].to_numpy()
        table = encoded_table(schema, encoded)
        halves = [table.slice(0, count // 2 + 1), table.slice(count // 2 + 1)]
        splits[split] = tuple(
            _write(folder, f"versions/files/{split}/part-{number:05d}.parquet", half)
            for number, half in enumerate(halves)
        )
        counts[split] = {"1": int(encoded["label"].sum()), "0": count - int(encoded["label"].sum())}
    total = rows + rows // 4 * 2
    semantic = {"features": {}, "label": {"column": "label", "type": "binary"}}
    manifest = Manifest(
        content_id=content_id(schema, semantic, statistics, splits),
        schema=schema,
        splits=splits,
        class_counts=counts,
        statistics=statistics,
        accounting=Accounting(total + 30, total, 10, 20, {"label is null": 15, "rule amount >= 0": 5}),
        semantic=semantic,
        request="0" * 64,
        inputs={},
        extra_files={},
        versions={"pyarrow": pa.__version__},
    )
    return publish(folder, manifest)


def _write(folder: str, path: str, table: pa.Table) -> PartFile:
    with storage.open_write(storage.join(folder, path)) as stream:
        pq.write_table(table, stream, row_group_size=ROWS_PER_ROW_GROUP, use_dictionary=False)
    groups = [min(ROWS_PER_ROW_GROUP, table.num_rows - first) for first in range(0, table.num_rows, ROWS_PER_ROW_GROUP)]
    digest = stream.digest
    return PartFile(path, digest.bytes, digest.crc32, digest.sha256, tuple(groups), digest.sha256)


def small_model(folder: str, dataset: Dataset, name: str = "tabular", steps: int = 60) -> str:
    """Train a moment in this process and export; returns the model folder."""
    from pipeline.inference.encoded import read_row_group, row_groups

    torch.manual_seed(0)
    config = ModelConfig(name=name, options={"hidden": [16], "dropout": 0.0} if name == "tabular" else {})
    model = build_model(config, dataset.schema)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    groups = [read_row_group(dataset.url, dataset.schema, group) for group in row_groups(dataset, "train")]
    for step in range(steps):
        inputs, others = groups[step % len(groups)]
        logits = model({name: torch.from_numpy(values) for name, values in inputs.items()})
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(others["label"].copy()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    export_model(dataset, config, model.state_dict(), folder)
    return folder
