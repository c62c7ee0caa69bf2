"""A training that is stopped or killed and started again gives the very bits of one that was not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.dataset import Dataset
from pipeline.testing import tiny_dataset
from pipeline.training.checkpoint import published_steps
from tests.distributed.ranks import fingerprints, run_ranks, spec, started_ranks

STEPS_PER_EPOCH = 6  # 550 rows in batches of 96, the last one of 70


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(str(tmp_path_factory.mktemp("data")), rows={"train": 550, "validation": 130, "test": 10})


def _stopped_and_resumed(ranks: int, dataset: Dataset, folder: Path, stop_after: int, **training: object) -> None:
    through = spec(dataset, folder / "through", **training)
    broken = spec(dataset, folder / "broken", **training)
    undisturbed = run_ranks(ranks, through, folder)
    stopped = run_ranks(ranks, {**broken, "stop_after": stop_after}, folder)
    assert all("interrupted" in rank for rank in stopped), "every rank ends, though only one was told to"
    resumed = run_ranks(ranks, broken, folder)
    assert resumed[0]["result"]["best_metrics"] == undisturbed[0]["result"]["best_metrics"]
    assert resumed[0]["result"]["rows"] == undisturbed[0]["result"]["rows"] == 2 * 550
    assert fingerprints(str(folder / "broken")) == fingerprints(str(folder / "through"))


@pytest.mark.parametrize("stop_after", [2, STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH], ids=["mid-epoch", "epoch end", "end"])
def test_one_rank_resumes_to_the_same_bits(dataset: Dataset, tmp_path: Path, stop_after: int) -> None:
    _stopped_and_resumed(1, dataset, tmp_path, stop_after, ema_decay=0.9, clip_norm=1.0, micro_batch_size=40)


@pytest.mark.distributed
@pytest.mark.parametrize("compression", ["none", "fp16"])
def test_two_ranks_resume_to_the_same_bits(dataset: Dataset, tmp_path: Path, compression: str) -> None:
    _stopped_and_resumed(2, dataset, tmp_path, 8, compression=compression, ema_decay=0.9, bucket_bytes=1024)


@pytest.mark.distributed
def test_a_rank_that_is_killed_costs_the_steps_since_the_last_checkpoint_and_no_bit(
    dataset: Dataset, tmp_path: Path
) -> None:
    through = spec(dataset, tmp_path / "through", checkpoint={"every_steps": 2})
    broken = spec(dataset, tmp_path / "broken", checkpoint={"every_steps": 2})
    run_ranks(2, through, tmp_path)
    path = tmp_path / "kill.json"
    path.write_text(json.dumps({**broken, "kill_after": 10, "kill_rank": 1}))
    with started_ranks(2, [str(path)]) as ranks:
        codes = sorted(rank.wait(timeout=60) for rank in ranks)
    assert codes[0] == -9
    assert published_steps(str(tmp_path / "broken"))[-1] >= 6, "killed in the tenth step: the eighth may be under way"
    run_ranks(2, broken, tmp_path)
    assert fingerprints(str(tmp_path / "broken")) == fingerprints(str(tmp_path / "through"))
