"""A weight column counts in batches, in training, in validation and in evaluation, as so many copies of a row would."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipeline import storage
from pipeline.config.release import EvaluationConfig
from pipeline.config.training import ModelConfig, TrainingConfig
from pipeline.dataset import Dataset, PartFile
from pipeline.inference import baselines
from pipeline.inference.baselines import fit_baselines, read_train_rows
from pipeline.inference.encoded import read_row_group, row_groups
from pipeline.inference.evaluate import Evaluation, evaluate
from pipeline.inference.predictor import Predictor
from pipeline.report import render_table
from pipeline.task import SilentReporter, TrainingResult, TrainingTask
from pipeline.testing import publish, tiny_dataset
from pipeline.training.checkpoint import read_weights
from pipeline.training.collective import SoloCollective
from pipeline.training.loader import Loader
from pipeline.training.worker import train
from tests.small_model import small_dataset, small_model
from tests.stacks import READERS

ROWS = {"train": 60, "validation": 40, "test": 10}


def _columns(dataset: Dataset, split: str) -> pa.Table:
    parts = [storage.join(dataset.url, part.path) for part in dataset.manifest.splits[split]]
    return pa.concat_tables([pq.ParquetFile(path).read() for path in parts])


@pytest.mark.parametrize("reader", READERS)
def test_each_row_comes_with_the_weight_that_its_file_holds(tmp_path: Path, reader: str) -> None:
    dataset = tiny_dataset(str(tmp_path), rows=ROWS, weight="times", rows_per_row_group=7)
    stored = _columns(dataset, "train").column("times").to_numpy()
    seen = {}
    for batch in Loader(dataset, "train", global_batch_size=16, seed=1, reader=reader, with_ids=True):
        assert batch.weight is not None
        assert batch.weight.dtype == torch.float32
        seen |= dict(zip(batch.ids["id"].tolist(), batch.weight.tolist(), strict=True))
    assert [seen[row] for row in range(60)] == stored.tolist()
    assert "times" not in batch.inputs


def _repeated(dataset: Dataset, folder: str) -> Dataset:
    """The same rows, each as many times as it weighs, in a dataset without weights."""
    schema = dataset.schema
    columns = tuple(column for column in schema.columns if column.role != "weight")
    splits = {}
    for split in dataset.manifest.splits:
        table = _columns(dataset, split)
        times = table.column("times").to_numpy().astype(int)
        table = table.take(pa.array(np.repeat(np.arange(len(table)), times))).drop_columns(["times"])
        path = f"files/{split}.parquet"
        with storage.open_write(storage.join(folder, path)) as stream:
            pq.write_table(table, stream, use_dictionary=False, compression="none")
        digest = stream.digest
        part = PartFile(path, digest.bytes, digest.crc32, digest.sha256, (len(table),), digest.sha256)
        splits[split] = (part,)
    schema = dataclasses.replace(schema, columns=columns)
    return publish(folder, dataclasses.replace(dataset.manifest, content_id="1" * 64, schema=schema, splits=splits))


class _Notes(SilentReporter):
    def __init__(self) -> None:
        self.values: list[dict[str, float]] = []

    def metrics(self, values, step) -> None:  # type: ignore[no-untyped-def]
        self.values.append(dict(values))


def _train(dataset: Dataset, run: Path) -> tuple[TrainingResult, dict[str, float]]:
    """Whole batches, so that the order of rows has no part in it."""
    training = {"epochs": 3, "global_batch_size": 1000, "precision": "float64", "optimizer": {"learning_rate": 0.05}}
    config = TrainingConfig.model_validate({"run_url": str(run), "seed": 3, **training})
    model, notes = ModelConfig(options={"hidden": [8], "dropout": 0.0}), _Notes()
    result = train(TrainingTask(dataset.url, dataset.content_id, model, config), SoloCollective(), notes, lambda: False)
    return result, notes.values[-1]


@pytest.mark.parametrize("label_type", ["binary", "multiclass", "regression"])
def test_a_row_of_weight_2_trains_and_validates_like_the_row_twice(tmp_path: Path, label_type: str) -> None:
    weighted = tiny_dataset(str(tmp_path / "w"), rows=ROWS, weight="times", label_type=label_type)
    repeated = _repeated(weighted, str(tmp_path / "r"))
    (first, one), (second, other) = _train(weighted, tmp_path / "run-w"), _train(repeated, tmp_path / "run-r")
    ours, theirs = read_weights(first.best_checkpoint), read_weights(second.best_checkpoint)
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-9, atol=1e-11)
    shared = [name for name in one if name.startswith(("validation_", "train_loss"))]
    assert "validation_loss" in shared
    assert {name: one[name] for name in shared} == pytest.approx({name: other[name] for name in shared}, abs=1e-6)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Predictor, Evaluation]:
    dataset = small_dataset(str(tmp_path_factory.mktemp("data")), weight=True)
    predictor = Predictor.load(small_model(str(tmp_path_factory.mktemp("model")), dataset, steps=20))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "TREE_ITERATIONS", 5)
        return dataset, predictor, evaluate(dataset, predictor, EvaluationConfig(slices=["colour"]))


def test_evaluation_weighs_its_metrics_and_counts_rows(evaluated: tuple[Dataset, Predictor, Evaluation]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    dataset, predictor, evaluation = evaluated
    groups = [read_row_group(dataset.url, dataset.schema, group) for group in row_groups(dataset, "test")]
    probability = np.concatenate([predictor.predict_encoded(inputs) for inputs, _ in groups])
    label, weight = (np.concatenate([others[name] for _, others in groups]) for name in ("label", "weight"))
    own, by_rows = evaluation.metrics, metrics.accuracy_score(label, probability >= 0.5)
    assert own["accuracy"] == pytest.approx(metrics.accuracy_score(label, probability >= 0.5, sample_weight=weight))
    assert own["accuracy"] != pytest.approx(by_rows)
    assert own["roc_auc"] == pytest.approx(metrics.roc_auc_score(label, probability, sample_weight=weight), abs=1e-4)
    assert own["log_loss"] == pytest.approx(metrics.log_loss(label, probability, sample_weight=weight), abs=1e-6)
    assert sum(map(sum, evaluation.measured.confusion)) == evaluation.rows == 500
    assert sum(entry.rows for entry in evaluation.slices) == 500


def test_baselines_learn_from_weighted_rows(evaluated: tuple[Dataset, Predictor, Evaluation]) -> None:
    dataset, predictor, _ = evaluated
    rows = read_train_rows(dataset, 10_000, predictor.answers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "TREE_ITERATIONS", 5)
        answers = [one.answer for one in fit_baselines(rows, dataset.schema)]
        unweighted = [one.answer for one in fit_baselines(dataclasses.replace(rows, weight=None), dataset.schema)]
    assert answers[0](rows.inputs)[0] == pytest.approx(np.average(rows.label, weights=rows.weight))
    for with_weights, without in zip(answers, unweighted, strict=True):
        assert not np.allclose(with_weights(rows.inputs), without(rows.inputs))


def test_the_report_says_by_what_metrics_are_weighted(evaluated: tuple[Dataset, Predictor, Evaluation]) -> None:
    *_, evaluation = evaluated
    assert "500 test rows, weighted by weight" in render_table(evaluation)
    assert Evaluation.from_json(evaluation.to_json()).weight == "weight"
    assert "weighted by" not in render_table(dataclasses.replace(evaluation, weight=None))
