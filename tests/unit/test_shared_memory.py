"""Ranks of one host exchange through memory: the same sums, no row of memory read too late or written too soon."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import LostPeersError
from pipeline.training import host_meeting
from pipeline.training.collective import Collective
from pipeline.training.shared_memory import share_memory
from tests.thread_ranks import ThreadCollective, on_thread_ranks

DTYPES = [torch.float32, torch.float64, torch.int64, torch.int16, torch.uint8]


def _on_ranks(count: int, body: Callable[[Collective], Any], timeout_seconds: float = 30.0) -> list[Any]:
    """What ``body`` gives on each rank of a host; the ranks are threads, and share nothing else in memory."""

    def run(together: ThreadCollective) -> Any:
        collective = share_memory(together, timeout_seconds)
        assert collective.shares_memory
        try:
            return body(collective)
        finally:
            collective.close()

    return on_thread_ranks(count, run)


def _numbers(rank: int, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rank)
    return (torch.rand(shape, generator=generator, dtype=torch.float64) * 20).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_a_sum_adds_in_the_order_of_ranks_into_the_tensor_itself(ranks: int, dtype: torch.dtype) -> None:
    def add(collective: Collective) -> torch.Tensor:
        tensor = _numbers(collective.rank, dtype, (3, 5))
        result = collective.sum_async(tensor, "x").wait()
        assert result.data_ptr() == tensor.data_ptr()
        return tensor

    expected = _numbers(0, dtype, (3, 5))
    for rank in range(1, ranks):
        expected = expected + _numbers(rank, dtype, (3, 5))
    assert all(torch.equal(found, expected) for found in _on_ranks(ranks, add))


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=12), rounds=st.integers(1, 5))
def test_operations_under_way_together_do_not_touch_each_other(sizes: list[int], rounds: int) -> None:
    def train(collective: Collective) -> list[list[float]]:
        found = []
        for number in range(rounds):
            tensors = [torch.full((size,), float(number * 10 + collective.rank)) for size in sizes]
            handles = [collective.sum_async(tensor, str(i)) for i, tensor in enumerate(tensors)]
            found.append([float(handle.wait().sum()) for handle in reversed(handles)])
        return found

    expected = [[size * (20.0 * number + 1) for size in reversed(sizes)] for number in range(rounds)]
    assert _on_ranks(2, train) == [expected, expected]


def test_chunks_are_exchanged_and_tensors_gathered_by_rank() -> None:
    def exchange(collective: Collective) -> tuple[list[Any], list[Any]]:
        rows = torch.tensor([[collective.rank * 10 + to, -1] for to in range(3)], dtype=torch.int16)
        received = collective.exchange_async(rows, "rows").wait()
        gathered = collective.gather_async(torch.tensor([collective.rank, 7]), "all").wait()
        return received.tolist(), gathered.tolist()

    for rank, (received, gathered) in enumerate(_on_ranks(3, exchange)):
        assert received == [[sender * 10 + rank, -1] for sender in range(3)]
        assert gathered == [[0, 7], [1, 7], [2, 7]]


def test_the_root_s_tensors_and_objects_reach_everybody() -> None:
    def broadcast(collective: Collective) -> Any:
        tensors = [torch.full((2, 2), float(collective.rank)), torch.tensor(collective.rank)]
        collective.broadcast_(tensors, root=1)
        said = collective.broadcast_object({"from": collective.rank}, root=2)
        return [t.tolist() for t in tensors], said, collective.gather_objects("x" * collective.rank)

    expected = ([[[1.0, 1.0], [1.0, 1.0]], 1], {"from": 2}, ["", "x", "xx"])
    assert _on_ranks(3, broadcast) == [expected] * 3


def test_a_thousand_operations_before_anybody_waits_do_not_lock() -> None:
    """More than a socket's queue holds: all are sending, and nobody seems to listen."""

    def hurry(collective: Collective) -> float:
        handles = [collective.sum_async(torch.ones(4), str(i)) for i in range(1000)]
        return float(sum(handle.wait().sum() for handle in handles))

    assert _on_ranks(3, hurry) == [12000.0] * 3


def test_ranks_that_wait_at_different_places_do_not_lock() -> None:
    """The one that waits early must listen to the others too, or their lines to it fill up."""

    def wander(collective: Collective) -> list[float]:
        handles = []
        for number in range(600):
            handles.append(collective.sum_async(torch.tensor([float(number)]), str(number)))
            if (collective.rank, number) == (1, 450):
                handles[-1].wait()
        return [float(handle.wait()) for handle in handles]

    assert _on_ranks(3, wander, timeout_seconds=10) == [[3.0 * number for number in range(600)]] * 3


def test_parameters_and_inference_tensors_are_summed_and_overwritten_as_they_are() -> None:
    def own_loop(collective: Collective) -> list[float]:
        parameter = torch.nn.Parameter(torch.full((2,), 1.0 + collective.rank))
        with torch.inference_mode():
            inference = torch.full((2,), 1.0 + collective.rank)
        collective.sum_async(inference, "inference").wait()
        collective.broadcast_([parameter], root=1)
        collective.sum_async(parameter, "parameter").wait()
        (parameter * 3).sum().backward()
        assert parameter.grad is not None
        return [*inference.tolist(), *parameter.tolist(), *parameter.grad.tolist()]

    assert _on_ranks(2, own_loop) == [[3.0, 3.0, 4.0, 4.0, 3.0, 3.0]] * 2


def test_a_tensor_with_gaps_is_refused_and_a_copy_of_it_is_not() -> None:
    def add(collective: Collective) -> list[list[float]]:
        columns = torch.arange(6.0).view(2, 3).T
        with pytest.raises(ValueError, match="not contiguous"):
            collective.sum_async(columns, "x")
        return collective.sum_async(columns.contiguous(), "x").wait().tolist()

    assert _on_ranks(2, add) == [(2 * np.arange(6.0).reshape(2, 3).T).tolist()] * 2


@pytest.mark.parametrize(
    ("one", "other"),
    [(torch.ones(1), torch.ones(4)), (torch.ones(1), torch.ones(1, dtype=torch.int32))],
    ids=["size", "dtype"],
)
def test_ranks_that_are_out_of_step_are_told_so(one: torch.Tensor, other: torch.Tensor) -> None:
    def add(collective: Collective) -> None:
        tensor = (one, other)[collective.rank].clone()
        handle = collective.sum_async(tensor, "loss")
        with pytest.raises(ValueError, match=r"the collective 'loss' of rank \d is not what another rank does"):
            handle.wait()

    _on_ranks(2, add)


def test_a_rank_that_has_ended_does_not_keep_others_from_ending() -> None:
    def end_one_after_the_other(collective: Collective) -> float:
        handle = collective.sum_async(torch.ones(1), "last")
        if collective.rank == 2:
            time.sleep(0.2)
        return float(handle.wait())

    assert _on_ranks(3, end_one_after_the_other) == [3.0] * 3


def test_memory_stays_as_it_is_after_the_first_steps() -> None:
    def sizes_of_memory(collective: Any) -> list[int]:
        found = []
        for _ in range(20):
            for handle in [collective.sum_async(torch.ones(size), str(size)) for size in (10, 5000, 100_000)]:
                handle.wait()
            collective.sum(np.zeros(1))
            found.append(collective._blocks._end)
        return found

    for sizes in _on_ranks(2, sizes_of_memory):
        assert sizes[-1] == sizes[3]


def test_a_rank_that_goes_is_noticed_at_once() -> None:
    def leave(collective: Collective) -> str:
        collective.barrier()
        if collective.rank == 1:
            return "gone"
        with pytest.raises(LostPeersError, match="another rank is gone"):
            collective.sum(np.zeros(1))
        return "noticed"

    assert _on_ranks(2, leave) == ["noticed", "gone"]


def test_a_silent_rank_is_given_up_after_the_time_out() -> None:
    noticed = threading.Event()

    def wait(collective: Collective) -> None:
        if collective.rank == 1:
            assert noticed.wait(30)
            return
        with pytest.raises(LostPeersError, match=r"not written for 0\.2 s"):
            collective.sum(np.zeros(1))
        noticed.set()

    _on_ranks(2, wait, timeout_seconds=0.2)


def test_a_rank_that_listens_to_nothing_is_given_up_after_the_time_out() -> None:
    noticed = threading.Event()

    def flood(collective: Collective) -> None:
        if collective.rank == 1:
            assert noticed.wait(30)
            return
        with pytest.raises(LostPeersError, match=r"not listened for 0\.2 s"):
            [collective.sum_async(torch.ones(1), str(number)) for number in range(10_000)]
        noticed.set()

    _on_ranks(2, flood, timeout_seconds=0.2)


def _stay_apart(together: ThreadCollective) -> None:
    assert share_memory(together, 30.0) is together
    assert together.gather_objects(together.rank) == list(range(together.world_size)), "and still works"


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("step", ["_listen", "_call_lower", "_accept", "_greeted"])
def test_where_one_rank_cannot_reach_another_all_keep_what_they_have_and_leave_nothing_open(
    monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """As on another host, where the name of a rank's socket is unknown."""
    done, lock, real = [], threading.Lock(), getattr(host_meeting, step)

    def fails_once(*arguments: Any) -> Any:
        with lock:
            done.append(step)
            first = len(done) == 1
        if first:
            raise ConnectionRefusedError("nobody there")
        return real(*arguments)

    monkeypatch.setattr(host_meeting, step, fails_once)
    before = _descriptors()
    on_thread_ranks(3, _stay_apart)
    assert done
    assert _descriptors() == before


def test_many_ranks_keep_their_rings() -> None:
    on_thread_ranks(9, _stay_apart)


def test_strangers_are_not_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    on_thread_ranks(2, _stay_apart)


def test_nothing_is_left_open() -> None:
    before = _descriptors()
    _on_ranks(3, lambda collective: collective.barrier())
    assert _descriptors() == before
