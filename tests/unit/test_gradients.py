"""Buckets, their reduction while backward runs, and what compression may and may not do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import RankFailedError
from pipeline.training.collective import SoloCollective
from pipeline.training.compression import SixteenBit, build_compression
from pipeline.training.gradients import Gradients, fixed_buckets
from tests.fifty_steps import FLOAT64, weights_after
from tests.thread_ranks import ThreadCollective, on_thread_ranks


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _parameters(*sizes: int) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.ones(size)) for size in sizes]


def test_buckets_hold_the_last_parameters_first_and_keep_to_their_size() -> None:
    buckets = fixed_buckets(_parameters(10, 20, 300, 5, 5), bucket_bytes=128)
    assert [[p.numel() for p in bucket.parameters] for bucket in buckets] == [[5, 5], [300], [20, 10]]


def test_a_bucket_has_one_dtype() -> None:
    parameters = [*_parameters(2, 2), torch.nn.Parameter(torch.ones(2, dtype=torch.float64))]
    assert [bucket.flat.dtype for bucket in fixed_buckets(parameters, 1024)] == [torch.float64, torch.float32]


class Watched(SoloCollective):
    """Notes what is summed, and the numbers as they are when the sum begins."""

    def __init__(self) -> None:
        self.started: dict[str, list[float]] = {}

    def sum_async(self, tensor: torch.Tensor, name: str):  # type: ignore[no-untyped-def]
        self.started[name] = tensor.tolist()
        return super().sum_async(tensor, name)


def _two_buckets(watched: Watched) -> tuple[Gradients, torch.nn.Parameter, torch.nn.Parameter]:
    first, last = _parameters(3, 3)
    return Gradients([first, last], build_compression("none", watched, 4), bucket_bytes=10), first, last


def test_reductions_start_during_backward_and_in_bucket_order_once_a_pass_was_counted() -> None:
    watched = Watched()
    gradients, first, last = _two_buckets(watched)
    for under_way in ([], ["gradients 0"]):
        watched.started.clear()
        gradients.zero()
        gradients.arm(lambda: 1.0)
        (last * 2).sum().backward()
        assert list(watched.started) == under_way, "the other bucket waits for its gradient"
        gradients.reduce()
        assert list(watched.started) == ["gradients 0", "gradients 1"], "no gradient does not hold the others up"
    assert first.grad is not None
    assert first.grad.tolist() == [0, 0, 0]
    gradients.close()


class _Recomputed(torch.autograd.Function):
    """What reentrant checkpointing of a product does: a backward pass of its own inside the backward pass."""

    @staticmethod
    def forward(context: Any, value: torch.Tensor, factor: torch.nn.Parameter) -> torch.Tensor:
        context.save_for_backward(value)
        context.factor = factor
        return value * factor

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> Any:
        (value,) = context.saved_tensors
        value = value.detach().requires_grad_()
        with torch.enable_grad():
            torch.autograd.backward(value * context.factor, gradient)
        return value.grad, None


def _used_twice_in_one_pass(parameter: torch.nn.Parameter, start: torch.Tensor) -> torch.Tensor:
    return _Recomputed.apply(_Recomputed.apply(start, parameter), parameter).sum()  # type: ignore[no-any-return]


def test_a_gradient_to_which_one_backward_pass_adds_several_times_is_summed_after_the_last_time() -> None:
    watched = Watched()
    gradients, first, last = _two_buckets(watched)
    start = torch.ones(3, requires_grad=True)
    with torch.no_grad():
        last.fill_(3.0)
    for step in range(3):
        watched.started.clear()
        gradients.zero()
        gradients.arm(lambda: 1.0)
        _used_twice_in_one_pass(last, first * start).backward()
        assert len(watched.started) == (2 if step else 0), "under way again when it is known how often"
        gradients.reduce()
        assert watched.started == {"gradients 0": [6.0] * 3, "gradients 1": [9.0] * 3}


def test_a_gradient_to_which_a_later_pass_adds_more_often_is_an_error_and_no_wrong_sum() -> None:
    gradients, _, last = _two_buckets(Watched())
    start = torch.ones(3, requires_grad=True)
    gradients.arm(lambda: 1.0)
    last.sum().backward()
    gradients.reduce()
    gradients.arm(lambda: 1.0)
    with pytest.raises(RankFailedError, match=r"added to a gradient of shape \(3,\) more often.*use_reentrant=False"):
        _used_twice_in_one_pass(last, start).backward()


def test_gradients_of_micro_batches_add_up_and_only_the_last_one_reduces() -> None:
    (parameter,) = _parameters(2)
    gradients = Gradients([parameter], build_compression("none", SoloCollective(), 4), 1024)
    for step in range(2):
        gradients.zero()
        (parameter * 1.0).sum().backward()
        gradients.arm(lambda: 1.0)
        (parameter * 10.0).sum().backward()
        gradients.reduce()
        assert parameter.grad is not None
        assert parameter.grad.tolist() == [11.0, 11.0], f"step {step}"
    parameter.grad = None  # as zero_grad(set_to_none=True) in somebody's own loop
    gradients.arm(lambda: 1.0)
    (parameter * 3.0).sum().backward()
    gradients.reduce()
    assert gradients.buckets[0].flat.tolist() == [3.0, 3.0]


def _reduced(compression: str, values: np.ndarray, ranks: int = 2) -> list[np.ndarray]:
    """What each rank holds after one reduction of its row of ``values``."""

    def body(collective: ThreadCollective) -> np.ndarray:
        parameter = torch.nn.Parameter(torch.zeros(values.shape[1:]))
        gradients = Gradients([parameter], build_compression(compression, collective, 4), 1 << 20)  # type: ignore[arg-type]
        gradients.arm(lambda: 1.0)
        (parameter * torch.from_numpy(values[collective.rank])).sum().backward()
        gradients.reduce()
        return gradients.buckets[0].flat.numpy().reshape(values.shape[1:])

    return on_thread_ranks(ranks, body)


@pytest.mark.parametrize(("compression", "error"), [("none", 1e-7), ("fp16", 1e-3), ("bf16", 1e-2)])
@pytest.mark.parametrize("ranks", [2, 3])
def test_sixteen_bits_give_the_sum_to_their_precision_alike_on_all_ranks(
    compression: str, error: float, ranks: int
) -> None:
    values = np.random.default_rng(0).normal(size=(ranks, 1001)).astype("float32")
    results = _reduced(compression, values, ranks)
    assert all(np.array_equal(result, results[0]) for result in results)
    assert np.abs(results[0] - values.sum(0)).max() < error * np.abs(values).max() * ranks


@pytest.mark.parametrize("scale", [1e6, 1e30, 1e-12])
def test_fp16_neither_overflows_nor_vanishes(scale: float) -> None:
    values = np.random.default_rng(0).normal(size=(2, 100)).astype("float32") * np.float32(scale)
    result = _reduced("fp16", values)[0]
    assert np.abs(result / scale - values.sum(0) / scale).max() < 1e-2


@pytest.mark.parametrize("compression", ["none", "fp16", "bf16", "powersgd"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_is_not_finite_on_one_rank_is_seen_by_all(compression: str, bad: float) -> None:
    values = np.ones((2, 40, 40), "float32")
    values[1, 3, 3] = bad
    for result in _reduced(compression, values):
        assert not np.isfinite(result).all()


def test_sixteen_bits_halve_the_bytes() -> None:
    rows = SixteenBit(SoloCollective(), torch.float16)._encode(torch.ones(2, 1000))
    assert rows.numel() * rows.element_size() == 2 * (1000 + 2) * 2


def test_powersgd_is_exact_for_a_gradient_of_low_rank() -> None:
    random = np.random.default_rng(1)
    left, right = random.normal(size=(60, 3)), random.normal(size=(3, 50))
    values = np.stack([left @ right, 2 * left @ right]).astype("float32")
    results = _reduced("powersgd", values)
    assert np.array_equal(results[0], results[1])
    assert np.abs(results[0] - values.sum(0)).max() < 1e-4 * np.abs(values).max()


def test_what_powersgd_leaves_out_comes_later() -> None:
    """With error feedback the sum of many steps comes near the sum of gradients, though each step is of rank 4."""
    values = np.random.default_rng(2).normal(size=(2, 30, 40)).astype("float32")

    def body(collective: ThreadCollective) -> float:
        parameter = torch.nn.Parameter(torch.zeros(30, 40))
        gradients = Gradients([parameter], build_compression("powersgd", collective, 4), 1 << 20)
        total = torch.zeros(30, 40)
        for _ in range(60):
            gradients.zero()
            gradients.arm(lambda: 1.0)
            (parameter * torch.from_numpy(values[collective.rank])).sum().backward()
            gradients.reduce()
            total += parameter.grad  # type: ignore[operator]
        mean = torch.from_numpy(values.sum(0))
        return float((total / 60 - mean).norm() / mean.norm())

    assert max(on_thread_ranks(2, body)) < 0.2


@pytest.mark.parametrize("compression", ["fp16", "bf16", "powersgd"])
def test_training_with_compression_comes_close_to_training_without(compression: str) -> None:
    exact = weights_after(SoloCollective(), **FLOAT64)
    results = on_thread_ranks(2, lambda collective: weights_after(collective, **FLOAT64, compression=compression))
    assert np.array_equal(results[0], results[1])
    assert np.abs(results[0] - exact).mean() < 0.05
