"""A user's own loop resumes exactly, loses nothing that it broke out of, and its gradients are those of the mean."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.optim import lr_scheduler

from pipeline.config.training import ModelConfig, TrainingConfig
from pipeline.dataset import Dataset, DatasetSchema
from pipeline.errors import ConfigError, InterruptedRunError, RankFailedError
from pipeline.task import SilentReporter, TrainingResult, TrainingTask, UserCode
from pipeline.testing import tiny_dataset
from pipeline.training.batches import Batch
from pipeline.training.checkpoint import open_checkpoint, published_steps, read_weights, step_url
from pipeline.training.collective import SoloCollective
from pipeline.training.own_loop import TrainingContext
from pipeline.training.worker import train

STEPS_PER_EPOCH = 5
"""450 rows in batches of 100, the last one of 50."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(str(tmp_path_factory.mktemp("data")), rows=450)


class Net(torch.nn.Module):
    def __init__(self, schema: DatasetSchema, dropout: float = 0.3) -> None:
        super().__init__()
        width = len(schema.numeric)
        self.layers = torch.nn.Sequential(torch.nn.Linear(width, 8), torch.nn.Dropout(dropout), torch.nn.Linear(8, 1))

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.layers(inputs["numeric"]).squeeze(1)


def loss_of(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(model(batch.inputs), batch.label, reduction="sum")


def attached(context: TrainingContext, schedule: Any = None, lr: float = 0.5) -> tuple[torch.nn.Module, Any]:
    model = context.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    if schedule is None:
        context.attach(model, optimizer)
        return model, None
    scheduler = schedule(optimizer, context)
    context.attach(model, optimizer, schedule=scheduler)
    return model, scheduler


def train_on(context: TrainingContext, model: torch.nn.Module, batch: Batch) -> None:
    context.backward(loss_of(model, batch), weight=batch.rows)
    context.step()


def my_loop(context: TrainingContext, schedule: Any = None) -> None:
    model, scheduler = attached(context, schedule)
    for epoch in context.epochs():
        for batch in context.batches():
            train_on(context, model, batch)
            if scheduler is not None:
                scheduler.step()
        context.report({"score": float(-abs(epoch - 1))})


def _run(
    dataset: Dataset, run: Path, stop: Any = lambda: False, loop: Any = my_loop, reporter: Any = None, **training: Any
) -> TrainingResult:
    model = training.pop("model", {"options": {"dropout": 0.3}})
    config = TrainingConfig.model_validate({"run_url": str(run), "epochs": 3, "global_batch_size": 100, **training})
    code = UserCode(model=Net, loop=loop)
    task = TrainingTask(dataset.url, dataset.content_id, ModelConfig.model_validate(model), config, code)
    return train(task, SoloCollective(), reporter or SilentReporter(), stop)


def _interrupted(dataset: Dataset, run: Path, after: int, **options: Any) -> None:
    asked = iter(range(1, 100))
    with pytest.raises(InterruptedRunError, match=f"after step {after};"):
        _run(dataset, run, stop=lambda: next(asked) == after, **options)


def _digests(run: Path, step: int = 3 * STEPS_PER_EPOCH) -> dict[str, str]:
    """The sha256 of weights, optimizer, average and attached states, and the attached states that are no tensors."""
    checkpoint = open_checkpoint(step_url(str(run), step))
    digests = {name: digest.sha256 for name, digest in checkpoint.files.items() if name.endswith(".safetensors")}
    digests.pop("rank-0.safetensors")  # random states, which no later step uses
    return {**digests, "states": str(checkpoint.state()["others"])}


def _weights(run: Path, step: int = 3 * STEPS_PER_EPOCH) -> dict[str, torch.Tensor]:
    return read_weights(step_url(str(run), step))


class Average:
    """An average of a weight by hand: a state of a tensor, a number and a tuple."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.seen = optimizer, (0,)
        self.mean = torch.zeros_like(optimizer.param_groups[0]["params"][0])

    def step(self) -> None:
        weight = self.optimizer.param_groups[0]["params"][0].detach()
        self.seen = (self.seen[0] + 1,)
        self.mean += (weight - self.mean) / self.seen[0]

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen, "mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen, self.mean = state["seen"], state["mean"]


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

    undisturbed = _run(dataset, tmp_path / "through", loop=loop)
    _interrupted(dataset, tmp_path / "broken", stop_after, loop=loop)
    resumed = _run(dataset, tmp_path / "broken", loop=loop)
    assert resumed.rows == undisturbed.rows == 3 * 450
    assert _digests(tmp_path / "broken") == _digests(tmp_path / "through")


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
    _run(dataset, tmp_path / "whole", **sure)
    _run(dataset, tmp_path / "parts", loop=in_parts, **sure)
    whole, parts = _weights(tmp_path / "whole"), _weights(tmp_path / "parts")
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

    _run(dataset, tmp_path / "own", loop=like_ours, **settings)
    optimizer = {"name": "SGD", "learning_rate": 0.1, "options": {"momentum": 0.9}}
    _run(dataset, tmp_path / "ours", loop=None, optimizer=optimizer, **settings)
    _run(dataset, tmp_path / "without", loop=like_ours)
    own, ours, without = (_weights(tmp_path / name) for name in ("own", "ours", "without"))
    assert all(
        own[name].dtype == ours[name].dtype and torch.allclose(own[name], ours[name], atol=1e-6) for name in ours
    )
    changed = [not torch.allclose(own[name], without[name].to(own[name].dtype), atol=1e-4) for name in own]
    assert any(changed) or own["layers.0.weight"].dtype == torch.float64


def test_the_averaged_weights_can_be_validated_and_are_saved_apart(dataset: Dataset, tmp_path: Path) -> None:
    seen: dict[str, torch.Tensor] = {}

    def loop(context: TrainingContext) -> None:
        model, _ = attached(context)
        for _ in context.epochs():
            for batch in context.batches():
                train_on(context, model, batch)
                with context.averaged():
                    seen["average"] = model.layers[0].weight.detach().clone()
                    context.report({"loss": 10.0 - context.progress.step})  # the best so far: saved at once
                seen["live"] = model.layers[0].weight.detach().clone()

    _run(dataset, tmp_path, loop=loop, ema_decay=0.9, best_by="loss", epochs=1, checkpoint={"keep": 9})
    checkpoint = open_checkpoint(step_url(str(tmp_path), 5))
    assert torch.equal(checkpoint.tensors("model")["layers.0.weight"], seen["live"])
    assert torch.equal(read_weights(checkpoint.url)["layers.0.weight"], seen["average"])
    assert not torch.equal(seen["live"], seen["average"])


def test_reported_metrics_choose_the_best_epoch(dataset: Dataset, tmp_path: Path) -> None:
    assert _run(dataset, tmp_path, best_by="score", best_is="max").best_epoch == 2
    assert _run(dataset, tmp_path / "least", best_by="score", best_is="min").best_epoch == 1
    assert _run(dataset, tmp_path / "last").best_epoch == 3


def test_an_epoch_without_a_report_does_not_replace_the_best_one(dataset: Dataset, tmp_path: Path) -> None:
    def reports_once(context: TrainingContext) -> None:
        model, _ = attached(context)
        for epoch in context.epochs():
            for batch in context.batches():
                train_on(context, model, batch)
            if epoch == 1:
                context.report({"loss": 7.0})

    result = _run(dataset, tmp_path, loop=reports_once, best_by="loss")
    assert (result.best_epoch, result.best_metrics) == (2, {"loss": 7.0})
    assert _weights(tmp_path, 10)


def test_checkpoints_fall_where_the_configuration_says(dataset: Dataset, tmp_path: Path) -> None:
    _run(dataset, tmp_path, checkpoint={"every_steps": 2, "keep": 20})
    assert published_steps(str(tmp_path)) == [2, 4, 5, 6, 8, 10, 12, 14, 15]


def test_breaking_out_of_the_epochs_saves_the_one_under_way(dataset: Dataset, tmp_path: Path) -> None:
    def loop(context: TrainingContext) -> None:
        model, _ = attached(context)
        for epoch in context.epochs():
            for batch in context.batches():
                train_on(context, model, batch)
            context.report({"loss": 1.0 / (epoch + 1)})
            if epoch == 1:
                break

    result = _run(dataset, tmp_path, loop=loop, best_by="loss")
    assert (result.steps, result.epochs, result.best_epoch) == (10, 2, 2)
    assert read_weights(result.best_checkpoint)
    assert _run(dataset, tmp_path, loop=loop, best_by="loss") == result, "a resumed run has nothing left to do"


def test_breaking_out_of_the_first_epoch_without_a_report_saves_it(dataset: Dataset, tmp_path: Path) -> None:
    def loop(context: TrainingContext) -> None:
        model, _ = attached(context)
        for _ in context.epochs():
            for batch in context.batches():
                train_on(context, model, batch)
                if context.progress.step == 3:
                    break
            break

    result = _run(dataset, tmp_path, loop=loop)
    assert (result.steps, result.rows, result.best_epoch) == (3, 300, 1)
    assert read_weights(result.best_checkpoint)


def test_breaking_out_of_batches_ends_the_epoch_early_and_counts_the_steps_made(
    dataset: Dataset, tmp_path: Path
) -> None:
    def loop(context: TrainingContext) -> None:
        model, _ = attached(context)
        for _ in context.epochs():
            for batch in context.batches():
                train_on(context, model, batch)
                if context.progress.steps_in_epoch == 2:
                    break

    result = _run(dataset, tmp_path / "through", loop=loop)
    assert (result.steps, result.rows, result.epochs) == (6, 600, 3)
    _interrupted(dataset, tmp_path / "broken", 3, loop=loop)
    assert _run(dataset, tmp_path / "broken", loop=loop) == TrainingResult(
        **{**vars(result), "best_checkpoint": step_url(str(tmp_path / "broken"), 6)}
    )
    assert _digests(tmp_path / "broken", 6) == _digests(tmp_path / "through", 6)


def test_a_stop_in_the_step_that_ends_batches_by_break_is_heard(dataset: Dataset, tmp_path: Path) -> None:
    def loop(context: TrainingContext) -> None:
        model, _ = attached(context)
        for _ in context.epochs():
            for batch in context.batches():
                train_on(context, model, batch)
                break

    _interrupted(dataset, tmp_path, 1, loop=loop)
    assert _run(dataset, tmp_path, loop=loop).steps == 3


def test_a_report_inside_an_epoch_that_is_the_best_is_saved_at_once(dataset: Dataset, tmp_path: Path) -> None:
    def loop(context: TrainingContext) -> None:
        model, _ = attached(context)
        for _ in context.epochs():
            for batch in context.batches():
                train_on(context, model, batch)
                context.report({"loss": abs(context.progress.step - 7.0)})

    result = _run(dataset, tmp_path, loop=loop, best_by="loss")
    assert (result.best_epoch, result.best_metrics) == (2, {"loss": 0.0})
    assert result.best_checkpoint == step_url(str(tmp_path), 7)
    assert read_weights(result.best_checkpoint)


def test_batches_that_the_loop_leaves_out_move_no_weight_and_count_no_row(dataset: Dataset, tmp_path: Path) -> None:
    def loop(context: TrainingContext) -> None:
        model, _ = attached(context)
        for _ in context.epochs():
            for batch in context.batches():
                if context.progress.step % 2:
                    continue
                train_on(context, model, batch)

    result = _run(dataset, tmp_path / "through", loop=loop)
    assert result.steps == 15
    assert result.rows == 6 * 100 + 2 * 50  # of the even steps
    _interrupted(dataset, tmp_path / "broken", 4, loop=loop)
    _run(dataset, tmp_path / "broken", loop=loop)
    assert _digests(tmp_path / "broken") == _digests(tmp_path / "through")


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

    result = _run(dataset, tmp_path / "skips", loop=loop, max_skipped_steps=2)
    assert result.rows == 3 * 450 - 2 * 100
    assert all(tensor.isfinite().all() for tensor in read_weights(result.best_checkpoint).values())
    with pytest.raises(RankFailedError, match="gradient of step 3 is not finite"):
        _run(dataset, tmp_path / "ends", loop=loop, max_skipped_steps=1)


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

    _run(dataset, tmp_path, loop=loop, epochs=1)


def _not_attached(context: TrainingContext) -> None:
    list(context.epochs())


def _other_model(context: TrainingContext) -> None:
    model = torch.nn.Linear(4, 1)
    context.attach(model, torch.optim.SGD(model.parameters(), 0.1))


def _no_epochs(context: TrainingContext) -> None:
    attached(context)


def _batches_outside(context: TrainingContext) -> None:
    attached(context)
    list(context.batches())


def _two_last_backwards(context: TrainingContext) -> None:
    model, _ = attached(context)
    for _ in context.epochs():
        for batch in context.batches():
            context.backward(loss_of(model, batch), batch.rows)
            context.backward(loss_of(model, batch), batch.rows)


def _no_last_backward(context: TrainingContext) -> None:
    model, _ = attached(context)
    for _ in context.epochs():
        for batch in context.batches():
            context.backward(loss_of(model, batch), batch.rows, last=False)


def _no_step(context: TrainingContext) -> None:
    model, _ = attached(context)
    for _ in context.epochs():
        for batch in context.batches():
            context.backward(loss_of(model, batch), batch.rows)


def _two_steps(context: TrainingContext) -> None:
    model, _ = attached(context)
    for _ in context.epochs():
        for batch in context.batches():
            train_on(context, model, batch)
            context.step()


def _saves_inside_a_step(context: TrainingContext) -> None:
    model, _ = attached(context)
    for _ in context.epochs():
        for batch in context.batches():
            context.backward(loss_of(model, batch), batch.rows)
            context.checkpoint()


def _reports_something_else(context: TrainingContext) -> None:
    my_loop(context)


@pytest.mark.parametrize(
    ("loop", "message"),
    [
        (_not_attached, r"has not called context.attach\(model, optimizer\)"),
        (_other_model, r"another model than context.model\(\) gave"),
        (_no_epochs, "returned without an epoch"),
        (_batches_outside, "outside an epoch"),
        (_two_last_backwards, "after the last one of a batch.*say last=False"),
        (_no_last_backward, r"a batch ended without its last context.backward\(\)"),
        (_no_step, r"a batch ended without its context.step\(\)"),
        (_two_steps, r"context.step\(\) was called without a last context.backward"),
        (_saves_inside_a_step, "inside a step"),
        (_reports_something_else, "best_by is accuracy; expected auto or one of score"),
    ],
    ids=lambda value: getattr(value, "__name__", "").strip("_").replace("_", " ") or None,
)
def test_a_loop_that_calls_things_in_a_wrong_order_is_told_so(
    dataset: Dataset, tmp_path: Path, loop: Any, message: str
) -> None:
    best_by = {"best_by": "accuracy"} if loop is _reports_something_else else {}
    with pytest.raises(ConfigError, match=message):
        _run(dataset, tmp_path, loop=loop, **best_by)


def test_states_that_would_have_to_be_pickled_are_refused_by_name_and_all_at_once(
    dataset: Dataset, tmp_path: Path
) -> None:
    class Bad:
        def state_dict(self) -> dict[str, Any]:
            return {"fine": [1, {"function": print}], "also": {1, 2}}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            raise AssertionError

    def loop(context: TrainingContext) -> None:
        model = context.model()
        context.attach(model, torch.optim.SGD(model.parameters(), 0.1), bad=Bad(), totals={"rows": 1})

    with pytest.raises(ConfigError) as caught:
        _run(dataset, tmp_path, loop=loop)
    named = [offence.split(";")[0] for offence in caught.value.offences]
    assert named == [
        "the state of bad.fine.1.function is a builtin_function_or_method",
        "the state of bad.also is a set",
        "totals is a dict",
    ]


def test_a_checkpoint_with_other_states_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    names = iter(["schedule", "average"])

    def loop(context: TrainingContext) -> None:
        model = context.model()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        context.attach(model, optimizer, **{next(names): Average(optimizer)})
        for _ in context.epochs():
            for batch in context.batches():
                train_on(context, model, batch)

    _interrupted(dataset, tmp_path, 2, loop=loop)
    with pytest.raises(ConfigError, match=r"attach\(\) got average beside .*; expected schedule as in the checkpoint"):
        _run(dataset, tmp_path, loop=loop)


class _SignsOfLife(SilentReporter):
    def __init__(self) -> None:
        self.signs: list[int] = []
        self.events: list[str] = []

    def progress(self, *, step: int, **_: Any) -> None:
        self.signs.append(step)

    def event(self, message: str) -> None:
        self.events.append(message)


def test_whoever_reads_a_split_or_says_so_is_seen_to_be_alive(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter = _SignsOfLife()
    counts = []
    monkeypatch.setattr("pipeline.training.own_loop._PREPARING_SECONDS", 0.0)

    def loop(context: TrainingContext) -> None:
        context.alive()
        assert (reporter.signs, len(reporter.events)) == ([], 1), "no step that would void those of a run to resume"
        attached(context)
        for _ in context.epochs():
            for work in (lambda: list(context.loader("validation")), context.alive):
                before = len(reporter.signs)
                work()
                counts.append(len(reporter.signs) - before)

    _run(dataset, tmp_path, loop=loop, reporter=reporter, epochs=1)
    assert counts == [2, 1]  # 112 rows of validation in batches of 100


def test_loaders_of_the_context_give_batches_on_its_device(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.setattr("pipeline.training.own_loop.OwnLoader", lambda *_, **options: given.append(options))

    def loop(context: TrainingContext) -> None:
        context.device = torch.device("cuda", 1)
        context.loader("train")
        context.loader("validation", device="cpu", shuffle=True)
        context.device = torch.device("cpu")

    with pytest.raises(ConfigError, match="attach"):
        _run(dataset, tmp_path, loop=loop)
    assert [(str(options["device"]), options["shuffle"]) for options in given] == [("cuda:1", True), ("cpu", True)]
