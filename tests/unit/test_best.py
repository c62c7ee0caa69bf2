"""A lost best checkpoint is found when a run goes on, and the best one that is left takes its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.dataset import Dataset
from pipeline.errors import InterruptedRunError
from pipeline.task import TrainingResult
from pipeline.testing import tiny_dataset
from pipeline.training import checkpoint_writer, loop
from pipeline.training.checkpoint import open_checkpoint, published_steps, read_weights, step_url
from pipeline.training.progress import Progress
from tests import own_loops
from tests.one_rank import Notes, trained

STEPS_PER_EPOCH = 6
LOSSES = (0.5, 0.2, 0.4, 0.3, 0.6, 0.7)
"""Of the epochs, as `measured` makes validation find them: the second is best, the fourth the best after it."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(str(tmp_path_factory.mktemp("data")), rows={"train": 600, "validation": 200, "test": 10})


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def validate(learner: Any, *_: Any) -> dict[str, float]:
        step = int(next(iter(learner.optimizer.state.values()))["step"])
        return {"loss": LOSSES[step // STEPS_PER_EPOCH - 1]}

    monkeypatch.setattr(loop, "validate", validate)


def run(dataset: Dataset, folder: Path, notes: Notes | None = None, **options: Any) -> TrainingResult:
    defaults = {"epochs": len(LOSSES), "best_by": "loss", "checkpoint": {"keep": 3}}
    return trained(dataset, folder, notes, **{**defaults, **options})


def interrupted(dataset: Dataset, folder: Path, after: int, **options: Any) -> None:
    asked = iter(range(1, 1000))
    with pytest.raises(InterruptedRunError):
        run(dataset, folder, stop=lambda: next(asked) == after, **options)


def flip_a_bit(run_folder: Path, step: int) -> None:
    path = run_folder / "checkpoints" / f"step-{step}" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_corrupt_best_checkpoint_is_found_on_resuming_and_the_best_of_the_others_takes_its_place(
    dataset: Dataset, tmp_path: Path
) -> None:
    interrupted(dataset, tmp_path, after=4 * STEPS_PER_EPOCH + 2)
    assert published_steps(str(tmp_path)) == [12, 18, 24, 26]
    flip_a_bit(tmp_path, 12)
    notes = Notes()
    result = run(dataset, tmp_path, notes)
    assert (result.best_epoch, result.best_metrics) == (4, {"loss": 0.3})
    assert read_weights(result.best_checkpoint)
    assert any("step-12, is not usable; step-24 takes its place" in event for event in notes.events)


def test_a_finished_run_whose_best_checkpoint_is_corrupt_has_a_way_on(dataset: Dataset, tmp_path: Path) -> None:
    assert run(dataset, tmp_path).best_epoch == 2
    flip_a_bit(tmp_path, 12)
    result = run(dataset, tmp_path)
    assert (result.best_epoch, result.best_metrics) == (4, {"loss": 0.3})
    assert read_weights(result.best_checkpoint)
    assert run(dataset, tmp_path) == result, "once and for all"


def test_where_no_checkpoint_that_is_left_was_validated_the_newest_takes_its_place_until_there_is_a_better_one(
    dataset: Dataset, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"checkpoint": {"keep": 2, "every_steps": 1}, "best_by": "loss"}
    interrupted(dataset, tmp_path, after=2 * STEPS_PER_EPOCH + 3, **options)
    assert published_steps(str(tmp_path)) == [12, 14, 15]
    flip_a_bit(tmp_path, 12)
    notes = Notes()
    interrupted_again = iter(range(1, 100))
    with pytest.raises(InterruptedRunError):
        run(dataset, tmp_path, notes, stop=lambda: next(interrupted_again) == 1, **options)
    assert any("step-15 takes its place" in event for event in notes.events)
    assert run(dataset, tmp_path, **options).best_epoch == 4


def test_a_best_checkpoint_that_is_gone_is_replaced_too(dataset: Dataset, tmp_path: Path) -> None:
    run(dataset, tmp_path)
    (tmp_path / "checkpoints" / "step-12").rename(tmp_path / "elsewhere")
    assert run(dataset, tmp_path).best_epoch == 4


def test_an_own_loop_that_names_no_metric_goes_back_to_the_newest(dataset: Dataset, tmp_path: Path) -> None:
    def my_loop(context: Any) -> None:
        model, _ = own_loops.attached(context)
        for epoch in context.epochs():
            for batch in context.batches():
                own_loops.train_on(context, model, batch)
            if epoch < 2:
                context.report({"roc_auc": 1.0 - epoch})

    options: dict[str, Any] = {"loop": my_loop, "epochs": 3, "checkpoint": {"keep": 3}}
    assert own_loops.trained(dataset, tmp_path, **options).best_epoch == 3
    flip_a_bit(tmp_path, 18)
    assert own_loops.trained(dataset, tmp_path, **options).best_epoch == 3, "which was trained once more"


def test_a_checkpoint_of_the_previous_format_is_gone_on_from(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def to_json(progress: Progress) -> dict[str, Any]:
        value = now(progress)
        validated = value.pop("validated")
        del value["skipped"], value["epoch_skipped"]
        return {**value, "validated_step": validated["step"] if validated else 0}

    now = Progress.to_json
    with monkeypatch.context() as earlier:
        earlier.setattr(checkpoint_writer, "STATE_FORMAT", ("checkpoint-state", 1))
        earlier.setattr(Progress, "to_json", to_json)
        interrupted(dataset, tmp_path / "earlier", after=20)
        assert open_checkpoint(step_url(str(tmp_path / "earlier"), 20)).state()["progress"]["validated_step"] == 18
    resumed, through = run(dataset, tmp_path / "earlier"), run(dataset, tmp_path / "now")
    assert (resumed.rows, resumed.best_metrics) == (through.rows, through.best_metrics)
    one, other = read_weights(resumed.best_checkpoint), read_weights(through.best_checkpoint)
    assert all(one[name].equal(other[name]) for name in one)


def test_numbers_that_json_does_not_have_come_back_as_what_they_were() -> None:
    value = {"epoch": 1, "step": 6, "value": None, "metrics": {"loss": 0.5, "roc_auc": None}}
    progress = Progress.from_json({**Progress().to_json(), "best": value})
    assert progress.best is not None
    assert str(progress.best.value) == str(progress.best.metrics["roc_auc"]) == "nan"
