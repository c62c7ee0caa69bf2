"""Ranks that train apart are told so, by a loop's own optimizer step at once, otherwise when weights are saved."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.dataset import Dataset
from pipeline.errors import ConfigError, RankFailedError
from pipeline.testing import tiny_dataset
from pipeline.training.optimizers import optimizer_step
from pipeline.training.own_loop import TrainingContext
from pipeline.training.same_weights import agree_on_weights
from tests.own_loops import loss_of, trained
from tests.thread_ranks import ThreadCollective, on_thread_ranks


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(str(tmp_path_factory.mktemp("data")), rows=450)


def model_of_rank(rank: int, apart: float) -> torch.nn.Module:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2, dtype=torch.float64))
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(torch.arange(1, 1 + parameter.numel()).view_as(parameter) / (number + 3))
        if rank == 2:
            model[0].weight[1, 1] *= 1 + apart
    return model


@pytest.mark.parametrize("apart", [3e-3, float("nan"), float("inf")], ids=str)
def test_weights_of_ranks_that_are_apart_are_an_error_that_names_the_ranks_and_what_to_do(apart: float) -> None:
    def body(collective: ThreadCollective) -> None:
        agree_on_weights(model_of_rank(collective.rank, apart), collective, 70)

    with pytest.raises(RankFailedError, match=r"after step 70 the weights of rank 2 are not .*context\.step\(\) only"):
        on_thread_ranks(3, body)


def test_last_bits_that_hosts_round_differently_become_those_of_rank_0(caplog: pytest.LogCaptureFixture) -> None:
    def body(collective: ThreadCollective) -> bool:
        model = model_of_rank(collective.rank, 1e-6)
        agree_on_weights(model, collective, 70)
        same = zip(model.parameters(), model_of_rank(0, 0.0).parameters(), strict=True)
        return all(torch.equal(mine, first) for mine, first in same)

    with caplog.at_level(logging.WARNING):
        assert on_thread_ranks(3, body) == [True] * 3
    assert "after step 70 last bits of the weights differ" in caplog.text


def test_equal_weights_cost_one_exchange_of_a_number() -> None:
    def body(collective: ThreadCollective) -> list[str]:
        agree_on_weights(model_of_rank(0, 0.0), collective, 70)
        return collective.names

    assert on_thread_ranks(3, body) == [["gather objects"]] * 3


def plain_loop(context: TrainingContext) -> None:
    """As one writes it for a single process."""
    model = context.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    context.attach(model, optimizer)
    for _ in context.epochs():
        for batch in context.batches():
            loss_of(model, batch).backward()
            optimizer.step()


def test_a_loop_that_steps_its_optimizer_itself_is_told_to_use_the_context(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"called step\(\) of its optimizer.*context\.step\(\), and context\.backward"
    ):
        trained(dataset, tmp_path, loop=plain_loop)


def test_an_optimizer_is_given_back_when_the_loop_has_ended(dataset: Dataset, tmp_path: Path) -> None:
    kept: list[Any] = []

    def loop(context: TrainingContext) -> None:
        model = context.model()
        kept.append(torch.optim.SGD(model.parameters(), lr=0.1))
        context.attach(model, kept[0])
        for _ in context.epochs():
            for batch in context.batches():
                context.backward(loss_of(model, batch), batch.rows)
                context.step()

    trained(dataset, tmp_path, loop=loop, epochs=1)
    optimizer_step(kept[0])
