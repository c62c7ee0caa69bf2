"""k ranks with batch b, one rank with batch k*b and accumulation over k micro-batches are the same mathematics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.training.collective import SoloCollective
from tests.distributed.ranks import run_ranks
from tests.fifty_steps import FLOAT32, FLOAT64, ROWS, weights_after
from tests.stacks import EXCHANGES
from tests.thread_ranks import on_thread_ranks

BOUNDS = [pytest.param(FLOAT64, 1e-12, id="AdamW in float64"), pytest.param(FLOAT32, 1e-6, id="SGD in float32")]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def alone(one_thread: None) -> dict[str, np.ndarray]:
    """The weights after one rank's training, by precision."""
    return {config["precision"]: weights_after(SoloCollective(), **config) for config in (FLOAT64, FLOAT32)}


@pytest.mark.parametrize(("config", "bound"), BOUNDS)
@pytest.mark.parametrize("accumulation", [2, 3, 7])
def test_accumulation_changes_nothing(alone: Any, config: dict[str, Any], bound: float, accumulation: int) -> None:
    weights = weights_after(SoloCollective(), **config, micro_batch_size=-(-ROWS // accumulation))
    assert np.abs(weights - alone[config["precision"]]).max() < bound


@pytest.mark.parametrize(("config", "bound"), BOUNDS)
@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_the_number_of_ranks_changes_nothing(alone: Any, config: dict[str, Any], bound: float, ranks: int) -> None:
    """With seven ranks, two of them have no row of the short batches of five."""
    results = on_thread_ranks(ranks, lambda collective: weights_after(collective, **config, bucket_bytes=1024))
    assert np.abs(results[0] - alone[config["precision"]]).max() < bound
    assert all(np.array_equal(weights, results[0]) for weights in results), "all ranks hold the same bits"


def test_the_short_batches_matter(alone: Any) -> None:
    """The bound is not met by chance: one row more or less is far beyond it."""
    weights = weights_after(SoloCollective(), steps=45, **FLOAT64)
    assert np.abs(weights - alone["float64"]).max() > 1e-6


@pytest.mark.distributed
@pytest.mark.parametrize("stack", EXCHANGES)
def test_two_real_ranks_equal_one(alone: Any, tmp_path: Path, stack: str) -> None:
    specs = [{"fifty_steps": {**config, "bucket_bytes": 1024}} for config in (FLOAT64, FLOAT32)]
    for (first, second), bound, precision in zip(
        run_ranks(2, specs, tmp_path, stack), (1e-12, 1e-6), ("float64", "float32"), strict=True
    ):
        assert first["weights"] == second["weights"], "all ranks hold the same bits"
        assert np.abs(np.array(first["weights"]) - alone[precision]).max() < bound
