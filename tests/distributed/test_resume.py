"""A training that is stopped or killed and started again gives the very bits of one that was not."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.dataset import Dataset
from pipeline.testing import tiny_dataset
from pipeline.training.checkpoint import published_steps, read_weights, step_url
from tests.distributed.driver import killed_driver
from tests.distributed.ranks import fingerprints, run_ranks, spec, started_ranks
from tests.stacks import DEFAULT_COLLECTIVE, EXCHANGES, IN_MEMORY, exchange_settings, needs_horovod

STEPS_PER_EPOCH = 6  # 550 rows in batches of 96, the last one of 70
MID_EPOCH, EPOCH_END, LAST_STEP = 2, STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH

ALL_AT_ONCE: dict[str, Any] = {"ema_decay": 0.9, "clip_norm": 1.0, "schedule": {"name": "one_cycle"}}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(str(tmp_path_factory.mktemp("data")), rows={"train": 550, "validation": 130, "test": 10})


def _assert_equal_bits(
    ranks: int, dataset: Dataset, folder: Path, variants: list[dict[str, Any]], stack: str = DEFAULT_COLLECTIVE
) -> None:
    """For each variant: undisturbed, then stopped after some steps, then resumed."""
    specs: list[dict[str, Any]] = []
    for number, variant in enumerate(variants):
        stop_after, training = variant["stop_after"], {k: v for k, v in variant.items() if k != "stop_after"}
        broken = spec(dataset, folder / f"broken-{number}", **training)
        specs += [spec(dataset, folder / f"through-{number}", **training), {**broken, "stop_after": stop_after}, broken]
    outcomes = run_ranks(ranks, specs, folder, stack)
    for number, variant in enumerate(variants):
        undisturbed, stopped, resumed = outcomes[3 * number : 3 * number + 3]
        assert all("interrupted" in rank for rank in stopped), "every rank ends, though only one was told to"
        assert resumed[0]["result"]["best_metrics"] == undisturbed[0]["result"]["best_metrics"], variant
        assert resumed[0]["result"]["rows"] == undisturbed[0]["result"]["rows"] == 2 * 550
        assert fingerprints(str(folder / f"broken-{number}")) == fingerprints(str(folder / f"through-{number}")), (
            variant
        )


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("stop_after", [MID_EPOCH, EPOCH_END, LAST_STEP], ids=["mid-epoch", "epoch end", "last step"])
def test_one_rank_resumes_to_the_same_bits(
    dataset: Dataset, tmp_path: Path, stop_after: int, accumulation: int
) -> None:
    variant = {"stop_after": stop_after, "micro_batch_size": 96 // accumulation, **ALL_AT_ONCE}
    _assert_equal_bits(1, dataset, tmp_path, [variant])


@pytest.mark.distributed
@pytest.mark.parametrize("stack", EXCHANGES)
def test_two_ranks_resume_to_the_same_bits(dataset: Dataset, tmp_path: Path, stack: str) -> None:
    variants = [
        {"stop_after": MID_EPOCH, "compression": "none"},
        {"stop_after": EPOCH_END + 1, "compression": "fp16", "bucket_bytes": 1024, **ALL_AT_ONCE},
        {"stop_after": MID_EPOCH, "compression": "powersgd", "compression_rank": 1, "micro_batch_size": 17},
    ]
    _assert_equal_bits(2, dataset, tmp_path, variants, stack)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.distributed
@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("stack", [DEFAULT_COLLECTIVE, IN_MEMORY])
def test_ranks_resume_to_the_same_bits_wherever_they_stop_and_however_they_compress(
    dataset: Dataset, tmp_path: Path, ranks: int, stack: str
) -> None:
    variants = [
        {
            "stop_after": stop_after,
            "compression": compression,
            "micro_batch_size": size,
            "bucket_bytes": 1024,
            "compression_rank": 1,
        }
        | ALL_AT_ONCE
        for stop_after in (MID_EPOCH, EPOCH_END, LAST_STEP)
        for compression in ("none", "fp16", "powersgd")
        for size in (1024, 17)
    ]
    _assert_equal_bits(ranks, dataset, tmp_path, variants, stack)


DRIVER = -1


def _killed(dataset: Dataset, folder: Path, number: int, kill_after: int, kill_rank: int, stack: str) -> Path:
    """A run folder of which a rank, or the driver, was killed in a step."""
    run = folder / f"killed-{number}"
    killed = {**spec(dataset, run, checkpoint={"every_steps": 2}), "kill_after": kill_after, "kill_rank": kill_rank}
    if kill_rank == DRIVER:
        seconds = killed_driver({**killed, "cluster": exchange_settings(stack)}, folder)
        print(f"driver killed in step {kill_after} ({stack}): all that it had started was gone {seconds:.1f} s later")
        return run
    path = folder / "killed.json"
    path.write_text(json.dumps([killed]))
    with started_ranks(2, [str(path)], stack) as ranks:
        seconds, codes = _ends(ranks)
        assert -9 in codes
    print(f"rank {kill_rank} killed in step {kill_after} ({stack}): the other noticed after {seconds:.1f} s")
    return run


def _ends(ranks: list[subprocess.Popen[str]]) -> tuple[float, list[int]]:
    """Seconds between the first and the last end, and the exit codes."""
    ends: dict[int, float] = {}
    deadline = time.monotonic() + 200
    while len(ends) < len(ranks):
        assert time.monotonic() < deadline, "a rank hangs"
        for rank in ranks:
            if rank.pid not in ends and rank.poll() is not None:
                ends[rank.pid] = time.monotonic()
        time.sleep(0.02)
    return max(ends.values()) - min(ends.values()), [int(rank.returncode) for rank in ranks]


def _assert_survives(
    dataset: Dataset, folder: Path, kills: list[tuple[int, int]], stack: str = DEFAULT_COLLECTIVE
) -> None:
    runs = [_killed(dataset, folder, number, *kill, stack) for number, kill in enumerate(kills)]
    specs = [spec(dataset, run, checkpoint={"every_steps": 2}) for run in [folder / "through", *runs]]
    before = [published_steps(str(run)) for run in runs]
    run_ranks(2, specs, folder, stack)
    for run, (kill_after, _), steps in zip(runs, kills, before, strict=True):
        assert (steps or [0])[-1] >= kill_after - 5, "the checkpoint before last was on disk"
        assert fingerprints(str(run)) == fingerprints(str(folder / "through"))


@pytest.mark.distributed
@pytest.mark.parametrize("stack", EXCHANGES)
def test_a_killed_rank_costs_the_steps_since_the_last_checkpoint_and_no_bit(
    dataset: Dataset, tmp_path: Path, stack: str
) -> None:
    _assert_survives(dataset, tmp_path, [(10, 1)], stack)


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("stack", EXCHANGES)
def test_a_killed_driver_leaves_nothing_running_and_costs_no_bit(dataset: Dataset, tmp_path: Path, stack: str) -> None:
    _assert_survives(dataset, tmp_path, [(7, DRIVER)], stack)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.distributed
@pytest.mark.parametrize("stack", EXCHANGES)
def test_twenty_kills_at_random_steps_change_no_bit(dataset: Dataset, tmp_path: Path, stack: str) -> None:
    seed = int(os.environ.get("TEST_SEED", random.randrange(10**6)))
    print(f"TEST_SEED={seed}")
    dice = random.Random(seed)
    kills = [(dice.randint(1, LAST_STEP), dice.choice([0, 1, DRIVER])) for _ in range(20)]
    print("kills (step, rank):", ", ".join(f"{step} {'driver' if who == DRIVER else who}" for step, who in kills))
    _assert_survives(dataset, tmp_path, kills, stack)


@needs_horovod
@pytest.mark.distributed
@pytest.mark.parametrize(("first", "second"), [("horovod", "torch"), ("torch", "horovod")])
def test_a_run_can_change_from_one_stack_to_the_other(
    dataset: Dataset, tmp_path: Path, first: str, second: str
) -> None:
    sgd = {"optimizer": {"name": "SGD", "learning_rate": 0.05}}
    through, broken = (spec(dataset, tmp_path / name, **sgd) for name in ("through", "broken"))
    run_ranks(2, [through, {**broken, "stop_after": 5}], tmp_path, first)
    run_ranks(2, [broken], tmp_path, second)
    one, other = (read_weights(step_url(str(tmp_path / name), LAST_STEP)) for name in ("through", "broken"))
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)
