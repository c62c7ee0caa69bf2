"""An own loop that would lose gradients or states is told so, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.dataset import Dataset
from pipeline.errors import ConfigError
from pipeline.testing import tiny_dataset
from pipeline.training.own_loop import TrainingContext
from tests.own_loops import Average, attached, interrupted, loss_of, my_loop, train_on, trained


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(str(tmp_path_factory.mktemp("data")), rows=450)


def _not_attached(context: TrainingContext) -> None:
    list(context.epochs())


def _other_model(context: TrainingContext) -> None:
    model = torch.nn.Linear(4, 1)
    context.attach(model, torch.optim.SGD(model.parameters(), 0.1))


def _closure(context: TrainingContext) -> None:
    model = context.model()
    context.attach(model, torch.optim.LBFGS(model.parameters()))


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
        (_closure, r"LBFGS, which evaluates the loss several times in a step \(closure\)"),
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
        trained(dataset, tmp_path, loop=loop, **best_by)


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
        trained(dataset, tmp_path, loop=loop)
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

    interrupted(dataset, tmp_path, 2, loop=loop)
    with pytest.raises(ConfigError, match=r"attach\(\) got average beside .*; expected schedule as in the checkpoint"):
        trained(dataset, tmp_path, loop=loop)
