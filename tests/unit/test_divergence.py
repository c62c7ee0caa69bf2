"""Steps that move no weight are counted and said, and a training that comes to nothing ends with advice."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.dataset import Dataset
from pipeline.errors import ConfigError, DataError, InterruptedRunError, RankFailedError
from pipeline.task import UserCode
from pipeline.testing import tiny_dataset
from pipeline.training.checkpoint import latest_good, read_weights
from pipeline.training.own_loop import TrainingContext
from pipeline.training.progress import Progress
from tests import own_loops
from tests.one_rank import Notes, trained


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(str(tmp_path_factory.mktemp("data")), rows={"train": 600, "validation": 200, "test": 10})


class Exploding(torch.nn.Module):
    """Gives NaN in some steps of training, counted from 1, and in all of validation if asked to."""

    def __init__(self, schema: Any, bad_steps: tuple[int, ...] = (), bad_validation: bool = False) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(len(schema.numeric), 1)
        self.bad_steps, self.bad_validation, self.calls = bad_steps, bad_validation, 0

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        self.calls += self.training
        bad = self.calls in self.bad_steps if self.training else self.bad_validation
        return self.layer(inputs["numeric"]).squeeze(1) * (float("nan") if bad else 1.0)


def exploding(dataset: Dataset, run: Path, notes: Notes | None = None, **training: Any) -> Any:
    options = {name: training.pop(name) for name in ("bad_steps", "bad_validation") if name in training}
    return trained(dataset, run, notes, code=UserCode(model=Exploding), model={"options": options}, **training)


def test_a_step_that_is_not_finite_is_skipped_counted_and_said(dataset: Dataset, tmp_path: Path) -> None:
    notes = Notes()
    result = exploding(dataset, tmp_path, notes, bad_steps=(2, 3, 5, 8), epochs=3)
    assert (result.rows, result.skipped_steps) == (3 * 600 - 4 * 100, 4)
    assert all(torch.isfinite(tensor).all() for tensor in read_weights(result.best_checkpoint).values())
    assert [epoch["skipped_steps"] for epoch in notes.epochs] == [3, 1, 0]
    assert notes.events == [
        "step 2 is skipped: its loss or gradient is not finite",
        "3 of 6 steps of epoch 1 were skipped: loss or gradient was not finite",
        "step 8 is skipped: its loss or gradient is not finite",
    ]


def test_skipped_steps_are_counted_on_by_a_run_that_goes_on(dataset: Dataset, tmp_path: Path) -> None:
    asked = iter(range(100))
    options: dict[str, Any] = {"code": UserCode(model=Exploding), "model": {"options": {"bad_steps": (2, 3)}}}
    with pytest.raises(InterruptedRunError):
        trained(dataset, tmp_path, stop=lambda: next(asked) == 3, epochs=1, **options)
    notes = Notes()
    result = trained(dataset, tmp_path, notes, epochs=1, **options)  # calls count from 1 again: step 6 is its second
    assert (result.skipped_steps, notes.epochs[0]["skipped_steps"]) == (3, 3)


def test_the_progress_of_an_earlier_version_is_read() -> None:
    value = Progress(step=7, rows=70).to_json()
    for name in ("skipped", "epoch_skipped"):
        del value[name]
    assert Progress.from_json(json.loads(json.dumps(value))) == Progress(step=7, rows=70)


def test_a_training_that_diverges_ends_with_advice(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(RankFailedError, match=r"gradient of step 4 is not finite.*: 3 in a row; .*learning_rate"):
        exploding(dataset, tmp_path, bad_steps=(2, 3, 4), max_skipped_steps=2)


def test_an_epoch_that_moves_no_weight_ends_the_training(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(RankFailedError, match=r"no step of epoch 2 has moved the weights.* in 6 of 6; .*clip_norm"):
        exploding(dataset, tmp_path, bad_steps=tuple(range(7, 13)))


def nan_loss(predictions: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Its gradient is a number all the same."""
    losses = F.binary_cross_entropy_with_logits(predictions, label, reduction="none")
    return losses @ weight + torch.tensor(math.nan)


def test_a_loss_that_is_no_number_is_no_step_even_if_its_gradient_is_one(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(RankFailedError, match="no step of epoch 1 has moved the weights"):
        trained(dataset, tmp_path, code=UserCode(loss=nan_loss))


def test_a_loss_that_is_never_finite_in_validation_ends_the_training(dataset: Dataset, tmp_path: Path) -> None:
    notes = Notes()
    for _ in range(2):  # the same command says the same again
        with pytest.raises(RankFailedError, match=r"loss on the validation split is nan, after epoch 1 and after eve"):
            exploding(dataset, tmp_path, notes, bad_validation=True)
    assert notes.events[0] == "the loss on the validation split is nan after step 6"


def test_a_metric_that_the_validation_rows_do_not_define_is_no_reason_to_end(tmp_path: Path) -> None:
    one_class = tiny_dataset(str(tmp_path / "data"), rows={"train": 600, "validation": 1, "test": 10})
    assert math.isnan(trained(one_class, tmp_path / "run").best_metrics["roc_auc"])


def weightless(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, steps: range) -> None:
    """Let the rows of some steps of an epoch weigh nothing."""
    from pipeline.training.loader import Loader

    read = Loader.__iter__

    def batches(self: Loader) -> Any:
        for number, batch in enumerate(read(self)):
            if self.split == "train" and number in steps:
                assert batch.weight is not None
                batch.weight.zero_()
            yield batch

    monkeypatch.setattr(Loader, "__iter__", batches)


@pytest.mark.parametrize("compression", ["none", "fp16", "powersgd"])
def test_a_batch_whose_rows_weigh_nothing_moves_nothing_and_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    dataset = tiny_dataset(str(tmp_path / "data"), rows=600, weight="times")
    weightless(dataset, monkeypatch, range(2, 6))
    notes = Notes()
    momentum = {"name": "SGD", "learning_rate": 0.1, "options": {"momentum": 0.9}}
    options: dict[str, Any] = {"optimizer": momentum, "max_skipped_steps": 0}
    options |= {"checkpoint": {"every_steps": 1, "keep": 9}, "compression": compression, "compression_rank": 1}
    result = trained(dataset, tmp_path / "run", notes, epochs=1, **options)
    assert (result.steps, result.rows, result.skipped_steps) == (6, 600, 0)
    steps = [read_weights(str(tmp_path / "run" / "checkpoints" / f"step-{step}")) for step in (1, 2, 6)]
    name = next(iter(steps[0]))
    assert not torch.equal(steps[0][name], steps[1][name])
    assert torch.equal(steps[1][name], steps[2][name]), "not even by momentum"
    assert notes.events == []


def test_a_train_split_whose_rows_all_weigh_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = tiny_dataset(str(tmp_path / "data"), rows=600, weight="times")
    weightless(dataset, monkeypatch, range(6))
    with pytest.raises(DataError, match="rows of the train split weigh 0 together"):
        trained(dataset, tmp_path / "run")


def test_a_loop_from_code_that_says_its_rows_weigh_nothing_is_told_so(dataset: Dataset, tmp_path: Path) -> None:
    def loop(context: TrainingContext) -> None:
        model, _ = own_loops.attached(context)
        for _ in context.epochs():
            for batch in context.batches():
                context.backward(own_loops.loss_of(model, batch), weight=0)
                context.step()

    with pytest.raises(ConfigError, match=r"rows of step 1 weigh 0 together, but .*context\.backward\(loss, weight\)"):
        own_loops.trained(dataset, tmp_path, loop=loop)


def test_a_loop_from_code_without_a_step_that_moves_weights_ends_too(dataset: Dataset, tmp_path: Path) -> None:
    def loop(context: TrainingContext) -> None:
        model, _ = own_loops.attached(context)
        for _ in context.epochs():
            for batch in context.batches():
                context.backward(own_loops.loss_of(model, batch) + math.nan, weight=batch.rows)
                context.step()

    with pytest.raises(RankFailedError, match="no step of epoch 1 has moved the weights"):
        own_loops.trained(dataset, tmp_path, loop=loop)
    assert latest_good(str(tmp_path)) is None, "nothing that is no training is kept"
