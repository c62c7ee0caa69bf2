"""How many bytes a rank sends in a step is counted, and compression shows in it."""

from __future__ import annotations

import pytest
import torch

from pipeline.training.compression import build_compression
from pipeline.training.gradients import Gradients
from pipeline.training.shared_memory import share_memory
from pipeline.training.timing import Clock
from tests.fifty_steps import learner_for
from tests.thread_ranks import ThreadCollective, on_thread_ranks

ROWS, COLUMNS = 64, 32
FULL = ROWS * COLUMNS * 4


def sent_by(ranks: int, compression: str, steps: int = 3) -> float:
    """Bytes per step, as the clock of each rank says after an epoch that sends these gradients and nothing else."""

    def epoch(together: ThreadCollective) -> float:
        collective = share_memory(together, 30.0)
        parameter = torch.nn.Parameter(torch.zeros(ROWS, COLUMNS))
        gradients = Gradients([parameter], build_compression(compression, collective, 2), 1 << 20)  # type: ignore[arg-type]
        learner, clock = learner_for(collective), Clock()
        collective.sum_async(torch.ones(1000), "before the epoch").wait()
        clock.start_epoch(learner)
        for _ in range(steps):
            gradients.zero()
            gradients.arm(lambda: 1.0)
            (parameter * torch.ones(ROWS, COLUMNS)).sum().backward()
            gradients.reduce()
            clock.steps += 1
        clock.end_training(learner)
        collective.sum_async(torch.ones(1000), "after the epoch").wait()
        value = clock.shares(learner)["bytes_per_step"]
        learner.gradients.close()
        gradients.close()
        collective.close()
        return value

    values = on_thread_ranks(ranks, epoch)
    assert len(set(values)) == 1
    return float(values[0])


@pytest.mark.parametrize(("ranks", "ring"), [(2, 1.0), (4, 1.5)])
def test_sums_count_what_a_ring_sends_and_sixteen_bits_half_of_it(ranks: int, ring: float) -> None:
    assert sent_by(ranks, "none") == FULL * ring
    for compression in ("fp16", "bf16"):
        assert sent_by(ranks, compression) == pytest.approx(FULL * ring / 2, rel=0.01)


def test_powersgd_sends_its_factors_only() -> None:
    assert sent_by(2, "powersgd") == pytest.approx((ROWS + COLUMNS) * 2 * 4, rel=0.1)
