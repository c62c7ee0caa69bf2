"""A user's own loop resumes exactly, accumulates, and training's settings do in it what they do in ours."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from pipeline.dataset import Dataset
from pipeline.errors import RankFailedError
from pipeline.testing import tiny_dataset
from pipeline.training.batches import Batch
from pipeline.training.checkpoint import open_checkpoint, published_steps, read_weights, step_url
from pipeline.training.own_loop import TrainingContext
from tests.own_loops import Average, attached, digests, interrupted, loss_of, my_loop, train_on, trained, weights


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(str(tmp_path_factory.mktemp("data")), rows=450)


SCHEDULES: dict[str, Any] = {
    "LambdaLR": lambda optimizer, context: lr_scheduler.LambdaLR(optimizer, lambda step: 0.8**step),
    "OneCycleLR": lambda optimizer, context: lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=context.total_steps),
    "MultiStepLR": lambda optimizer, context: lr_scheduler.MultiStepLR(optimizer, [3, 7, 11]),
    "an average of weights": lambda optimizer, context: Average(optimizer),
}


@pytest.mark.parametrize("stop_after", [2, 5, 15], ids=["mid-epoch", "epoch end", "last step"])
@pytest.mark.parametrize("schedule", [None, *SCHEDULES])
def test_an_own_loop_resumes_to_the_same_bits(
    dataset: Dataset, tmp_path: Path, stop_after: int, schedule: str | None
) -> None:
    def loop(context: TrainingContext) -> None:
        my_loop(context, SCHEDULES[schedule] if schedule else None)

    undisturbed = trained(dataset, tmp_path / "through", loop=loop)
    interrupted(dataset, tmp_path / "broken", stop_after, loop=loop)
    resumed = trained(dataset, tmp_path / "broken", loop=loop)
    assert resumed.rows == undisturbed.rows == 3 * 450
    assert digests(tmp_path / "broken") == digests(tmp_path / "through")


@pytest.mark.parametrize("last_part", [1, 2, 3])
def test_accumulated_gradients_are_those_of_one_big_batch(dataset: Dataset, tmp_path: Path, last_part: int) -> None:
    def in_parts(context: TrainingContext) -> None:
        model, _ = attached(context)
        for _ in context.epochs():
            for batch in context.batches():
                for number in range(1, last_part + 1):
                    rows = slice((number - 1) * batch.rows // last_part, number * batch.rows // last_part)
                    part = Batch({"numeric": batch.inputs["numeric"][rows]}, batch.label[rows])
                    context.backward(loss_of(model, part), part.rows, last=number == last_part)
                context.step()

    sure = {"model": {"options": {"dropout": 0.0}}}
    trained(dataset, tmp_path / "whole", **sure)
    trained(dataset, tmp_path / "parts", loop=in_parts, **sure)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.allclose(whole[name], parts[name], atol=1e-5) for name in whole)


@pytest.mark.parametrize(
    "settings",
    [
        {"clip_norm": 0.05},
        {"clip_value": 0.01},
        {"l1": 0.01},
        {"ema_decay": 0.9},
        {"precision": "float64"},
        {"clip_norm": 0.05, "clip_value": 0.02, "l1": 0.01, "ema_decay": 0.8},
    ],
    ids=lambda settings: " ".join(settings),
)
def test_a_setting_of_training_does_in_an_own_loop_what_it_does_in_ours(
    dataset: Dataset, tmp_path: Path, settings: dict[str, Any]
) -> None:
    def like_ours(context: TrainingContext) -> None:
        model = context.model()
        context.attach(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
        for _ in context.epochs():
            for batch in context.batches():
                train_on(context, model, batch)

    trained(dataset, tmp_path / "own", loop=like_ours, **settings)
    optimizer = {"name": "SGD", "learning_rate": 0.1, "options": {"momentum": 0.9}}
    trained(dataset, tmp_path / "ours", loop=None, optimizer=optimizer, **settings)
    trained(dataset, tmp_path / "without", loop=like_ours)
    own, ours, without = (weights(tmp_path / name) for name in ("own", "ours", "without"))
    assert all(
        own[name].dtype == ours[name].dtype and torch.allclose(own[name], ours[name], atol=1e-6) for name in ours
    )
    changed = [not torch.allclose(own[name], without[name].to(own[name].dtype), atol=1e-4) for name in own]
    assert any(changed) or own["layers.0.weight"].dtype == torch.float64


def test_the_averaged_weights_can_be_validated_and_are_saved_beside_the_others(
    dataset: Dataset, tmp_path: Path
) -> None:
    live: list[torch.Tensor] = []
    averages: list[torch.Tensor] = []

    def loop(context: TrainingContext) -> None:
        model, _ = attached(context)
        weight = model.get_parameter("layers.0.weight")
        live.append(weight.detach().clone())
        for _ in context.epochs():
            for batch in context.batches():
                train_on(context, model, batch)
                with context.averaged():
                    averages.append(weight.detach().clone())
                    context.report({"loss": 10.0 - context.progress.step})  # the best so far: saved at once
                live.append(weight.detach().clone())

    trained(dataset, tmp_path, loop=loop, ema_decay=0.15, best_by="loss", epochs=1, checkpoint={"keep": 9})
    expected = live[0]
    for step in range(3):
        decay = min(0.15, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * live[step + 1]
        assert torch.allclose(averages[step], expected, atol=1e-6)
    inside = open_checkpoint(step_url(str(tmp_path), 3))
    assert torch.equal(inside.tensors("model")["layers.0.weight"], live[3])
    assert torch.equal(read_weights(inside.url)["layers.0.weight"], averages[2])


def test_reported_metrics_choose_the_best_epoch(dataset: Dataset, tmp_path: Path) -> None:
    assert trained(dataset, tmp_path, best_by="score", best_is="max").best_epoch == 2
    assert trained(dataset, tmp_path / "least", best_by="score", best_is="min").best_epoch == 1
    assert trained(dataset, tmp_path / "last").best_epoch == 3


def test_an_epoch_without_a_report_does_not_replace_the_best_one(dataset: Dataset, tmp_path: Path) -> None:
    def reports_once(context: TrainingContext) -> None:
        model, _ = attached(context)
        for epoch in context.epochs():
            for batch in context.batches():
                train_on(context, model, batch)
            if epoch == 1:
                context.report({"loss": 7.0})

    result = trained(dataset, tmp_path, loop=reports_once, best_by="loss")
    assert (result.best_epoch, result.best_metrics) == (2, {"loss": 7.0})
    assert weights(tmp_path, 10)


def test_checkpoints_fall_where_the_configuration_says(dataset: Dataset, tmp_path: Path) -> None:
    trained(dataset, tmp_path, checkpoint={"every_steps": 2, "keep": 20})
    assert published_steps(str(tmp_path)) == [2, 4, 5, 6, 8, 10, 12, 14, 15]


def test_a_gradient_that_is_not_finite_is_skipped_and_too_many_end_the_training(
    dataset: Dataset, tmp_path: Path
) -> None:
    def loop(context: TrainingContext) -> None:
        model, _ = attached(context)
        for _ in context.epochs():
            for batch in context.batches():
                bad = context.progress.step in (1, 2)
                context.backward(loss_of(model, batch) * (math.nan if bad else 1.0), weight=batch.rows)
                context.step()

    result = trained(dataset, tmp_path / "skips", loop=loop, max_skipped_steps=2)
    assert result.rows == 3 * 450 - 2 * 100
    assert all(tensor.isfinite().all() for tensor in read_weights(result.best_checkpoint).values())
    with pytest.raises(RankFailedError, match="gradient of step 3 is not finite"):
        trained(dataset, tmp_path / "ends", loop=loop, max_skipped_steps=1)


def test_gradients_that_were_set_to_none_are_back_for_the_step(dataset: Dataset, tmp_path: Path) -> None:
    def loop(context: TrainingContext) -> None:
        model, _ = attached(context)
        for _ in context.epochs():
            for batch in context.batches():
                for parameter in model.parameters():  # as the optimizer's zero_grad does
                    parameter.grad = None
                context.backward(None, weight=batch.rows)  # as on a rank without rows
                assert all(parameter.grad is not None for parameter in model.parameters())
                context.step()

    trained(dataset, tmp_path, loop=loop, epochs=1)
