"""Buffers that a step changes become their mean over the ranks; all others keep every bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.training.buffers import SharedBuffers
from pipeline.training.gradients import Gradients
from pipeline.training.step import Wishes, train_step
from tests.fifty_steps import global_batch, learner_for, share
from tests.thread_ranks import ThreadCollective, on_thread_ranks

PLAIN: dict[str, Any] = {"precision": "float64", "clip_norm": None, "optimizer": {"name": "SGD"}}


class Holder(torch.nn.Module):
    """A model that is nothing but its buffers."""

    def __init__(self, **buffers: Tensor) -> None:
        super().__init__()
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer)


def test_batch_norm_keeps_the_mean_of_what_the_ranks_have_seen() -> None:
    def buffers(collective: Any) -> tuple[list[float], list[float]]:
        learner = learner_for(collective, **PLAIN)
        norm = torch.nn.BatchNorm1d(5, dtype=torch.float64)
        body = learner.model

        class Normed(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.norm, self.body = norm, body

            def forward(self, inputs: dict[str, Tensor]) -> Tensor:
                return self.body({**inputs, "numeric": self.norm(inputs["numeric"])})

        learner.gradients.close()
        learner.model = Normed()
        learner.gradients = Gradients(learner.model.parameters(), learner.gradients.compression, 1 << 20)
        learner.buffers = SharedBuffers(learner.model, collective)
        part = share(global_batch(0), collective.rank, collective.world_size)
        mine = 0.1 * part.inputs["numeric"].double().mean(0)  # momentum 0.1, from 0
        train_step(learner, part, 0, Wishes())
        learner.gradients.close()
        return mine.tolist(), norm.running_mean.tolist()

    ranks = on_thread_ranks(3, buffers)
    mean = np.mean([mine for mine, _ in ranks], axis=0)
    for mine, after in ranks:
        assert after == pytest.approx(mean, abs=1e-9)
        assert mine != pytest.approx(mean, abs=1e-4)


def constants() -> dict[str, Tensor]:
    """What is not its own mean over three ranks if it is added up and divided."""
    return {
        "mask": torch.full((2,), torch.finfo(torch.float32).min),
        "hidden": torch.tensor([-torch.inf, 0.0]),
        "narrow": torch.tensor([60000.0], dtype=torch.float16),
        "table": torch.rand(100, generator=torch.Generator().manual_seed(0)) * 0.1,
        "wide": torch.rand(100, generator=torch.Generator().manual_seed(1), dtype=torch.float64),
    }


def test_constants_keep_every_bit_and_do_not_travel_beside_a_buffer_that_changes() -> None:
    def body(collective: ThreadCollective) -> tuple[dict[str, Tensor], list[int], list[float]]:
        model = Holder(**constants(), steps=torch.zeros(1))
        sizes, sum_async = [], collective.sum_async

        def noted(tensor: Tensor, name: str) -> Any:
            sizes.append(tensor.numel())
            return sum_async(tensor, name)

        collective.sum_async = noted  # type: ignore[method-assign]
        buffers = SharedBuffers(model, collective)
        means = []
        for step in range(3):
            if step < 2:
                model.get_buffer("steps").add_(collective.rank)
            buffers.share()
            means.append(float(model.get_buffer("steps")))
        return dict(model.named_buffers()), sizes, means

    for buffers, sizes, means in on_thread_ranks(3, body):
        assert all(torch.equal(buffers[name], value) for name, value in constants().items())
        assert sizes == [6, 1, 7, 7], "a vote for each, and numbers of the one that has ever changed"
        assert means == [1.0, 2.0, 2.0]


def test_a_change_on_one_rank_counts_and_the_mean_of_large_numbers_is_no_infinity() -> None:
    def body(collective: ThreadCollective) -> list[float]:
        model = Holder(large=torch.tensor([60000.0], dtype=torch.float16), largest=torch.zeros(1))
        buffers = SharedBuffers(model, collective)
        if collective.rank == 1:
            model.get_buffer("large").sub_(3000)
        model.get_buffer("largest").fill_(torch.finfo(torch.float32).max)
        buffers.share()
        return [float(buffer) for buffer in model.buffers()]

    assert on_thread_ranks(3, body) == [[59008.0, torch.finfo(torch.float32).max]] * 3


def test_what_a_checkpoint_brings_is_no_change() -> None:
    def body(collective: ThreadCollective) -> list[str]:
        model = Holder(table=torch.zeros(3))
        buffers = SharedBuffers(model, collective)
        model.load_state_dict({"table": torch.rand(3, generator=torch.Generator().manual_seed(0))})
        buffers.keep()
        collective.names.clear()
        buffers.share()
        return collective.names

    assert on_thread_ranks(2, body) == [["buffers"]] * 2
