"""Whole trainings on one rank: best epoch, early stopping, divergence, refusals, and what is left behind."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.dataset import Dataset
from pipeline.errors import ConfigError, DataError, InterruptedRunError
from pipeline.task import UserCode
from pipeline.testing import tiny_dataset
from pipeline.training import validation
from pipeline.training.checkpoint import latest_good, published_steps, read_weights, step_url
from pipeline.training.validation import validation_step
from tests.one_rank import Notes, trained


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(str(tmp_path_factory.mktemp("data")), rows={"train": 600, "validation": 200, "test": 10})


def test_a_model_learns_and_every_epoch_is_reported(dataset: Dataset, tmp_path: Path) -> None:
    notes = Notes()
    result = trained(dataset, tmp_path, notes, epochs=5)
    assert result.steps == 5 * 6
    assert result.rows == 5 * 600
    assert result.best_metrics["roc_auc"] > 0.9
    losses = [epoch["train_loss"] for epoch in notes.epochs]
    assert losses[0] > losses[-1]
    assert len(losses) == 5
    assert {"validation_roc_auc", "validation_loss", "rows_per_second"} <= set(notes.epochs[0])


@pytest.mark.parametrize(("label_type", "metric"), [("multiclass", "accuracy"), ("regression", "r2")])
def test_other_labels_have_their_own_metrics(tmp_path: Path, label_type: Any, metric: str) -> None:
    dataset = tiny_dataset(str(tmp_path / "data"), rows=600, label_type=label_type)
    result = trained(dataset, tmp_path / "run", epochs=6, optimizer={"learning_rate": 0.03})
    assert result.best_metrics[metric] > 0.5
    notes = Notes()
    trained(dataset, tmp_path / "run", notes, epochs=6, optimizer={"learning_rate": 0.03})
    assert notes.epochs == [], "a finished run has nothing to do"


def test_the_best_epoch_is_chosen_by_validation_and_kept(dataset: Dataset, tmp_path: Path) -> None:
    notes = Notes()
    result = trained(dataset, tmp_path, notes, epochs=6, optimizer={"learning_rate": 0.3})
    aucs = [epoch["validation_roc_auc"] for epoch in notes.epochs]
    assert result.best_epoch == 1 + int(np.argmax(aucs))
    assert result.best_metrics["roc_auc"] == max(aucs)
    assert result.best_checkpoint == step_url(str(tmp_path), 6 * result.best_epoch)
    assert read_weights(result.best_checkpoint)


def test_training_stops_when_epochs_no_longer_get_better(dataset: Dataset, tmp_path: Path) -> None:
    result = trained(dataset, tmp_path, epochs=50, early_stopping=2, optimizer={"learning_rate": 0.1})
    assert result.epochs < 50
    assert result.epochs == result.best_epoch + 2


def test_early_stopping_ends_an_epoch_right_after_the_validation_that_was_one_too_many(
    dataset: Dataset, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"validate_every_steps": 2, "early_stopping": 2, "epochs": 50, "best_by": "loss"}
    options["optimizer"] = {"learning_rate": 1e-9, "options": {"maximize": True}}  # it gets worse from the start
    notes = Notes()
    result = trained(dataset, tmp_path / "through", notes, **options, global_batch_size=20)
    assert (result.steps, result.epochs, result.best_epoch) == (6, 0, 1)
    assert result.best_checkpoint.endswith("step-2")
    assert (
        notes.events[-1] == "stopped early, after step 6: 2 validations without a better one (training.early_stopping)"
    )
    assert published_steps(str(tmp_path / "through"))[-1] == 6
    notes = Notes()
    assert trained(dataset, tmp_path / "through", notes, **options, global_batch_size=20).steps == 6
    assert notes.epochs == [], "a training that was stopped early stays so"
    asked = iter(range(100))
    with pytest.raises(InterruptedRunError):
        trained(dataset, tmp_path / "broken", stop=lambda: next(asked) == 4, **options, global_batch_size=20)
    assert trained(dataset, tmp_path / "broken", **options, global_batch_size=20).steps == 6


def test_the_loss_can_choose_the_best_epoch(dataset: Dataset, tmp_path: Path) -> None:
    notes = Notes()
    result = trained(dataset, tmp_path, notes, best_by="loss")
    assert result.best_metrics["loss"] == min(epoch["validation_loss"] for epoch in notes.epochs)
    with pytest.raises(ConfigError, match=r"best_by is beauty; expected auto or one of accuracy"):
        trained(dataset, tmp_path / "other", best_by="beauty")


def test_checkpoints_fall_where_the_configuration_says(dataset: Dataset, tmp_path: Path) -> None:
    trained(dataset, tmp_path, checkpoint={"every_steps": 2, "keep": 20})
    assert published_steps(str(tmp_path)) == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    trained(dataset, tmp_path / "often", checkpoint={"every_seconds": 1e-9, "keep": 30})
    assert published_steps(str(tmp_path / "often")) == list(range(1, 19))


def test_a_stop_is_followed_by_a_checkpoint_at_once(dataset: Dataset, tmp_path: Path) -> None:
    asked = iter(range(100))
    with pytest.raises(InterruptedRunError, match="after step 4"):
        trained(dataset, tmp_path, stop=lambda: next(asked) == 3)
    assert published_steps(str(tmp_path)) == [4]
    notes = Notes()
    assert trained(dataset, tmp_path, notes).steps == 18
    assert notes.resumed_at == 4


def test_the_run_folder_of_another_training_is_refused_and_all_differences_are_named(
    dataset: Dataset, tmp_path: Path
) -> None:
    trained(dataset, tmp_path, epochs=1)
    with pytest.raises(ConfigError) as caught:
        trained(
            dataset, tmp_path, epochs=1, seed=2, optimizer={"learning_rate": 0.5}, model={"options": {"hidden": [8]}}
        )
    named = {offence.split()[0] for offence in caught.value.offences}
    assert {"training.seed", "training.optimizer.learning_rate", "model.options.hidden"} <= named
    trained(dataset, tmp_path, epochs=1, checkpoint={"every_steps": 1})  # how often to save changes nothing


def test_a_damaged_newest_checkpoint_costs_the_steps_since_the_one_before(dataset: Dataset, tmp_path: Path) -> None:
    undisturbed = trained(dataset, tmp_path / "through", epochs=2)
    asked = iter(range(100))
    with pytest.raises(InterruptedRunError):
        trained(dataset, tmp_path / "broken", epochs=2, stop=lambda: next(asked) == 10, checkpoint={"every_steps": 3})
    newest = tmp_path / "broken" / "checkpoints" / "step-9" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    notes = Notes()
    result = trained(dataset, tmp_path / "broken", notes, epochs=2, checkpoint={"every_steps": 3})
    assert notes.resumed_at == 6
    assert any("step-9" in event for event in notes.events)
    assert result.best_metrics == undisturbed.best_metrics
    one, other = (read_weights(step_url(str(tmp_path / name), 12)) for name in ("through", "broken"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_split_without_one_full_batch_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"600 rows.*global_batch_size 601"):
        trained(dataset, tmp_path, global_batch_size=601, last_batch="drop")
    assert trained(dataset, tmp_path, global_batch_size=250, last_batch="drop").dropped_rows == 100


def test_torch_is_left_as_it_was_found_and_two_runs_in_one_process_are_alike(dataset: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(99)
    before = torch.get_rng_state(), torch.get_num_threads(), random.getstate(), np.random.get_state()[1].tolist()
    first = trained(dataset, tmp_path / "first")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_num_threads(), random.getstate(), np.random.get_state()[1].tolist()) == before[1:]
    torch.manual_seed(7)
    second = trained(dataset, tmp_path / "second")
    one, other = read_weights(first.best_checkpoint), read_weights(second.best_checkpoint)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_validation_inside_an_epoch_can_be_the_best_one_and_survives_a_stop(dataset: Dataset, tmp_path: Path) -> None:
    options: dict[str, Any] = {"validate_every_steps": 2, "epochs": 2, "optimizer": {"learning_rate": 0.1}}
    notes = Notes()
    undisturbed = trained(dataset, tmp_path / "through", notes, **options)
    assert len(notes.epochs) == 2 * 3
    asked = iter(range(100))
    with pytest.raises(InterruptedRunError):
        trained(dataset, tmp_path / "broken", stop=lambda: next(asked) == 3, **options)
    resumed = trained(dataset, tmp_path / "broken", **options)
    assert resumed.best_metrics == undisturbed.best_metrics
    assert resumed.best_checkpoint.endswith(undisturbed.best_checkpoint.rsplit("/", 1)[1])


@pytest.mark.parametrize("every_steps", [2, None], ids=["inside an epoch", "at its end"])
def test_a_stop_ends_a_validation_which_is_done_again_when_training_goes_on(
    dataset: Dataset, tmp_path: Path, every_steps: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"validate_every_steps": every_steps, "epochs": 2, "global_batch_size": 20}
    undisturbed = trained(dataset, tmp_path / "through", **options)
    measured: list[int] = []

    def measure(*of: Any) -> Any:
        measured.append(1)
        return validation_step(*of)

    monkeypatch.setattr(validation, "validation_step", measure)
    step = every_steps or 30
    with pytest.raises(InterruptedRunError, match=f"after step {step};"):
        trained(dataset, tmp_path / "broken", stop=lambda: len(measured) == 3, **options)
    assert len(measured) == 3, "of ten"
    assert published_steps(str(tmp_path / "broken")) == [step]
    resumed = trained(dataset, tmp_path / "broken", **options)
    assert (resumed.best_epoch, resumed.best_metrics) == (undisturbed.best_epoch, undisturbed.best_metrics)
    one, other = read_weights(undisturbed.best_checkpoint), read_weights(resumed.best_checkpoint)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_class_weights_move_the_predictions_towards_the_heavier_class(dataset: Dataset, tmp_path: Path) -> None:
    plain = trained(dataset, tmp_path / "plain")
    heavy = trained(dataset, tmp_path / "heavy", class_weights={"1": 5.0})
    assert heavy.best_metrics["recall"] > plain.best_metrics["recall"]
    with pytest.raises(ConfigError, match=r"class_weights\.yes is no class; expected one of 0, 1"):
        trained(dataset, tmp_path / "wrong", class_weights={"yes": 2.0})


def test_a_training_starts_from_the_weights_of_another(dataset: Dataset, tmp_path: Path) -> None:
    first = trained(dataset, tmp_path / "first", epochs=8)
    notes = Notes()
    frozen = {"name": "SGD", "learning_rate": 1e-12}
    trained(dataset, tmp_path / "second", notes, epochs=1, optimizer=frozen, init_from=first.best_checkpoint)
    assert notes.epochs[0]["validation_loss"] == pytest.approx(first.best_metrics["loss"], rel=1e-4)
    with pytest.raises(ConfigError, match="no tensor fits"):
        trained(dataset, tmp_path / "third", model={"name": "linear"}, init_from=first.best_checkpoint)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_learns_too_and_resumes(dataset: Dataset, tmp_path: Path, precision: str) -> None:
    asked = iter(range(100))
    with pytest.raises(InterruptedRunError):
        trained(dataset, tmp_path, precision=precision, stop=lambda: next(asked) == 3)
    assert trained(dataset, tmp_path, precision=precision).best_metrics["roc_auc"] > 0.8


def test_own_loss_metrics_and_callback_take_part(dataset: Dataset, tmp_path: Path) -> None:
    seen: list[float] = []

    def loss(predictions: torch.Tensor, label: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return (torch.relu(1 - predictions * (2 * label - 1)) * weight).sum()

    def metrics(predictions: torch.Tensor, label: torch.Tensor, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"margin": (predictions * (2 * label - 1)) @ weight}

    def callback(progress: Any, values: Mapping[str, float]) -> None:
        seen.append(values["validation_margin"])

    code = UserCode(loss=loss, metrics=metrics, callback=callback)
    result = trained(dataset, tmp_path, code=code, best_by="margin", best_is="max")
    assert len(seen) == 3
    assert result.best_metrics["margin"] == max(seen)


def test_what_is_best_of_an_own_metric_is_said_and_early_stopping_follows_it(dataset: Dataset, tmp_path: Path) -> None:
    def metrics(predictions: torch.Tensor, label: torch.Tensor, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"my_error": (predictions.sigmoid() - label).abs() @ weight}  # falls with every epoch

    options: dict[str, Any] = {"code": UserCode(metrics=metrics), "epochs": 4, "best_by": "my_error"}
    assert trained(dataset, tmp_path / "min", **options, best_is="min", early_stopping=1).best_epoch == 4
    stopped = trained(dataset, tmp_path / "max", **options, best_is="max", early_stopping=1)
    assert (stopped.best_epoch, stopped.epochs) == (1, 2)
    with pytest.raises(ConfigError, match=r"best_is is auto, but training.best_by my_error is no metric of ours"):
        trained(dataset, tmp_path / "auto", **options)


def test_the_plateau_schedule_lowers_the_rate_when_nothing_gets_better(dataset: Dataset, tmp_path: Path) -> None:
    schedule = {"name": "plateau", "patience": 1, "gamma": 0.5}
    trained(dataset, tmp_path, epochs=8, schedule=schedule, optimizer={"learning_rate": 0.3})
    checkpoint = latest_good(str(tmp_path))
    assert checkpoint is not None
    progress = checkpoint.state()["progress"]
    assert progress["rate_drops"] >= 1
    group = checkpoint.state()["optimizer"]["groups"][0]
    assert group["lr"] in (0.3 * 0.5 ** progress["rate_drops"], 0.3 * 0.5 ** (progress["rate_drops"] - 1))


def test_the_reported_shares_say_where_the_time_went(dataset: Dataset, tmp_path: Path) -> None:
    notes = Notes()
    trained(dataset, tmp_path, notes, epochs=1)
    values = notes.epochs[0]
    assert 0 <= values["data_wait_share"] <= 1
    assert values["straggler_ratio"] == 1.0
    assert values["bytes_per_step"] == 0
