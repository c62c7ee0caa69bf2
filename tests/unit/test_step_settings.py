"""Each setting of a step does what it says: rates, clipping, l1, loss scale, class weights, traces, buffers, bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.config.training import ModelConfig, OptimizerConfig, ScheduleConfig, TrainingConfig
from pipeline.dataset import Dataset
from pipeline.task import TrainingResult, TrainingTask, UserCode
from pipeline.training.checkpoint import latest_good
from pipeline.training.collective import SoloCollective
from pipeline.training.optimizers import scaled_learning_rate
from pipeline.training.precision import LossScale
from pipeline.training.schedules import learning_rate_factor
from pipeline.training.step import Wishes, train_step
from pipeline.training.worker import train
from tests.fifty_steps import global_batch, learner_for
from tests.one_rank import Notes
from tests.small_model import small_dataset

PLAIN: dict[str, Any] = {
    "precision": "float64",
    "clip_norm": None,
    "schedule": {"name": "constant"},
    "optimizer": {"name": "SGD", "learning_rate": 1.0},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_dataset(str(tmp_path_factory.mktemp("data")), 400)


def trained(dataset: Dataset, run: Path, code: UserCode | None = None, **training: Any) -> TrainingResult:
    defaults = {"run_url": str(run), "epochs": 3, "global_batch_size": 50, "optimizer": {"learning_rate": 0.02}}
    config = TrainingConfig.model_validate({**defaults, **training})
    model = ModelConfig(name="tabular", options={"hidden": [16], "dropout": 0.0})
    task = TrainingTask(dataset.url, dataset.content_id, model, config, code or UserCode())
    return train(task, SoloCollective(), Notes(), lambda: False)


def before_and_after(**training: Any) -> tuple[np.ndarray, np.ndarray]:
    """All weights before and after one step of plain SGD at rate 1: they move by what became of the gradient."""
    learner = learner_for(SoloCollective(), **{**PLAIN, **training})

    def weights() -> np.ndarray:
        return torch.cat([p.detach().reshape(-1) for p in learner.model.parameters()]).numpy().copy()

    before = weights()
    train_step(learner, global_batch(0), 0, Wishes())
    learner.gradients.close()
    return before, weights()


def gradient() -> np.ndarray:
    before, after = before_and_after()
    return before - after


def test_clip_value_bounds_each_number_of_the_gradient() -> None:
    plain = gradient()
    bound = float(np.quantile(np.abs(plain), 0.7))
    before, after = before_and_after(clip_value=bound)
    assert before - after == pytest.approx(np.clip(plain, -bound, bound), abs=1e-12)


def test_clip_norm_bounds_the_length_of_the_gradient() -> None:
    plain = gradient()
    before, after = before_and_after(clip_norm=0.01)
    assert before - after == pytest.approx(plain * 0.01 / np.linalg.norm(plain), abs=1e-12)


def test_l1_pulls_every_weight_towards_zero_by_the_same_force() -> None:
    plain = gradient()
    before, after = before_and_after(l1=0.003)
    assert before - after == pytest.approx(plain + 0.003 * np.sign(before), abs=1e-12)


def test_the_learning_rate_grows_with_the_batch_as_said(dataset: Dataset, tmp_path: Path) -> None:
    config = {"learning_rate": 0.01, "base_batch_size": 50}
    rates = [scaled_learning_rate(OptimizerConfig(scaling=how, **config), 200) for how in ("none", "linear", "sqrt")]  # type: ignore[arg-type]
    assert rates == [0.01, 0.04, 0.02]
    scaled = trained(dataset, tmp_path / "scaled", global_batch_size=200, optimizer={"scaling": "linear", **config})
    plain = trained(dataset, tmp_path / "plain", global_batch_size=200, optimizer={"learning_rate": 0.04})
    assert scaled.best_metrics == plain.best_metrics


def test_the_step_schedule_falls_by_gamma_after_every_so_many_epochs() -> None:
    config = ScheduleConfig(name="step", gamma=0.5, every_epochs=2)
    factors = [learning_rate_factor(config, step, 12, epochs=6) for step in range(12)]
    assert factors == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]


def test_balanced_class_weights_are_those_that_give_each_class_the_same_total(dataset: Dataset, tmp_path: Path) -> None:
    counts = dataset.manifest.class_counts["train"]
    factors = {name: sum(counts.values()) / 2 / count for name, count in counts.items()}
    assert factors["0"] != pytest.approx(factors["1"], rel=0.1)
    balanced = trained(dataset, tmp_path / "balanced", class_weights="balanced")
    assert balanced.best_metrics == trained(dataset, tmp_path / "given", class_weights=factors).best_metrics
    assert balanced.best_metrics != trained(dataset, tmp_path / "without").best_metrics


def test_a_trace_of_so_many_steps_lies_in_the_run_folder(dataset: Dataset, tmp_path: Path) -> None:
    trained(dataset, tmp_path / "run", epochs=1, profile_steps=2)
    trace = json.loads((tmp_path / "run" / "profile" / "rank-0.json").read_text())
    assert {f"ProfilerStep#{n}" for n in (2, 3)} <= {event.get("name") for event in trace["traceEvents"]}


def tiny_loss(predictions: torch.Tensor, label: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return 1e-9 * F.binary_cross_entropy_with_logits(predictions, label, reduction="none") @ weight


def test_the_loss_scale_keeps_small_gradients_from_vanishing_in_fp16(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"precision": "fp16", "micro_batch_size": 10, "code": UserCode(loss=tiny_loss)}
    options["optimizer"] = {"name": "SGD", "learning_rate": 1e9}
    assert trained(dataset, tmp_path / "scaled", **options).best_metrics["roc_auc"] > 0.8
    monkeypatch.setattr(LossScale, "start", classmethod(lambda cls, config: cls(1.0)))
    assert trained(dataset, tmp_path / "plain", **options).best_metrics["roc_auc"] < 0.7


def test_the_loss_scale_is_halved_until_gradients_no_longer_overflow(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LossScale, "start", classmethod(lambda cls, config: cls(2.0**24)))
    trained(dataset, tmp_path, precision="fp16", max_skipped_steps=20, epochs=4)
    checkpoint = latest_good(str(tmp_path))
    assert checkpoint is not None
    progress = checkpoint.state()["progress"]
    skipped = (4 * 400 - progress["rows"]) // 50
    assert skipped >= 1
    scale, good = progress["loss_scale"]
    assert scale == 2.0 ** (24 - skipped)
    assert good > 0


def test_the_loss_scale_doubles_after_many_good_steps() -> None:
    config = TrainingConfig(run_url="run", precision="fp16")
    scale = LossScale(8.0, 1998)
    scale.update(config, finite=True)
    assert scale.value == 8
    scale.update(config, finite=True)
    assert scale.value == 16
    scale.update(config, finite=False)
    assert (scale.value, scale.good_steps) == (8, 0)
