"""Where a rank computes. There may be no GPU here: what torch says of its GPUs is set."""

from __future__ import annotations

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.training.precision import take_device
from pipeline.training.randomness import random_states


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """A host with two; gives the devices that were made torch's current one."""
    taken: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    return taken


@pytest.mark.parametrize(("local_rank", "number"), [(0, 0), (1, 1), (2, 0)])
def test_ranks_of_a_host_take_its_gpus_in_turn_and_seed_the_one_they_took(
    two_gpus: list[torch.device], local_rank: int, number: int
) -> None:
    device = take_device("auto", local_rank)
    assert device == torch.device("cuda", number)
    assert two_gpus == [device]


def test_no_gpu_is_touched_when_the_processor_is_wanted(two_gpus: list[torch.device]) -> None:
    assert take_device("cpu", 1) == torch.device("cpu")
    assert two_gpus == []


def test_a_wanted_gpu_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert take_device("auto", 0) == torch.device("cpu")
    with pytest.raises(ConfigError, match="expected a GPU that torch can use"):
        take_device("cuda", 0)


def test_taking_random_states_starts_no_gpu(two_gpus: list[torch.device], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: pytest.fail("that would start CUDA on the first GPU"))
    tensors, _ = random_states()
    assert sorted(tensors) == ["numpy", "python", "torch"]
