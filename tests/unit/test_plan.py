from __future__ import annotations

import time

import numpy as np
import pytest

from pipeline.plan import EpochPlan

BATCH = 8


def rows_of(plan: EpochPlan, row_groups: list[int], rank: int) -> list[int]:
    """The rows, counted along the files, that a rank reads, in order."""
    first = np.concatenate([[0], np.cumsum(row_groups)])
    rows: list[int] = []
    for part in plan.slices(rank):
        window = np.concatenate([np.arange(first[g], first[g + 1]) for g in part.row_groups])
        order = plan.window_order(part.window)
        assert len(window) == len(order) == part.rows
        for start, stop in part.intervals:
            rows.extend(window[order[start:stop]].tolist())
    return rows


def batches_of(plan: EpochPlan, row_groups: list[int], rank: int) -> list[list[int]]:
    rows, sizes = rows_of(plan, row_groups, rank), list(plan.batch_rows(rank))
    assert sum(sizes) == len(rows) == plan.rank_rows(rank)
    ends = np.cumsum(sizes).tolist()
    return [rows[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def groups_of(rows: int, size: int) -> list[int]:
    return [min(size, rows - start) for start in range(0, rows, size)]


def plan_of(groups: list[int], **options) -> EpochPlan:
    return EpochPlan(groups, **{"global_batch_size": BATCH, "window_rows": 20, **options})


AWKWARD = [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 63, 100, 101, 168, 169]


@pytest.mark.parametrize("rows", AWKWARD)
@pytest.mark.parametrize("world_size", range(1, 8))
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_row_is_read_once_in_equal_steps_of_full_global_batches(rows, world_size, shuffle):
    groups = groups_of(rows, 7)
    plan = plan_of(groups, world_size=world_size, shuffle=shuffle, seed=3)
    per_rank = [batches_of(plan, groups, rank) for rank in range(world_size)]
    assert {len(batches) for batches in per_rank} == {plan.steps} == {-(-rows // BATCH)}
    for step in range(plan.steps):
        sizes = [len(batches[step]) for batches in per_rank]
        assert sum(sizes) == min(BATCH, rows - step * BATCH)
        assert max(sizes) - min(sizes) <= 1
    assert sorted(row for batches in per_rank for batch in batches for row in batch) == list(range(rows))


def test_the_sequence_does_not_depend_on_the_number_of_ranks():
    groups = groups_of(170, 7)
    sequences = []
    for world_size in range(1, 8):
        plan = plan_of(groups, world_size=world_size, seed=5, epoch=2)
        sequences.append([row for rank in range(world_size) for row in rows_of(plan, groups, rank)])
    assert all(sequence == sequences[0] for sequence in sequences)


def test_which_rows_meet_in_a_step_depends_on_the_number_of_ranks_since_each_reads_a_stretch_of_its_own():
    groups = groups_of(170, 7)

    def rows_of_step(world_size: int, step: int) -> set[int]:
        plan = plan_of(groups, world_size=world_size)
        return {row for rank in range(world_size) for row in batches_of(plan, groups, rank)[step]}

    assert len(rows_of_step(1, 0)) == len(rows_of_step(2, 0)) == BATCH
    assert rows_of_step(1, 0) & rows_of_step(2, 0) == set(rows_of(plan_of(groups), groups, 0)[: BATCH // 2])
    assert set.union(*(rows_of_step(2, step) for step in range(22))) == set(range(170))


def test_epochs_and_seeds_and_datasets_differ_and_runs_agree():
    groups = groups_of(170, 7)

    def order(**options):
        return tuple(rows_of(plan_of(groups, **options), groups, 0))

    assert order(seed=0, epoch=0) == order(seed=0, epoch=0)
    different = [order(seed=s, epoch=e, identity=i) for s in (0, 1) for e in (0, 1) for i in ("a", "b")]
    assert len(set(different)) == 8
    assert order(shuffle=False) == tuple(range(170))


def test_the_order_is_the_same_with_every_version_of_numpy():
    plan = EpochPlan([3, 3, 3, 2], identity="golden", seed=7, epoch=1, global_batch_size=4, window_rows=6)
    assert rows_of(plan, [3, 3, 3, 2], 0) == [2, 9, 10, 0, 1, 6, 3, 5, 8, 4, 7]


@pytest.mark.parametrize("rows", [9, 64, 101])
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("last_batch", ["keep", "drop"])
def test_a_stop_at_any_step_resumes_with_exactly_the_batches_that_were_left(rows, world_size, last_batch):
    groups = groups_of(rows, 7)
    options = {"world_size": world_size, "last_batch": last_batch}
    whole = plan_of(groups, **options)
    for done in range(whole.steps + 1):
        rest = plan_of(groups, deals=[[world_size, done]], **options)
        assert rest.steps == whole.steps - done
        for rank in range(world_size):
            assert batches_of(rest, groups, rank) == batches_of(whole, groups, rank)[done:]


@pytest.mark.parametrize("rows", [100, 163, 168])
@pytest.mark.parametrize("last_batch", ["keep", "drop"])
def test_after_changes_of_world_size_each_remaining_row_is_read_once(rows, last_batch):
    groups = groups_of(rows, 7)
    total = plan_of(groups, last_batch=last_batch).steps
    for first in range(0, total + 1, 3):
        for second in range(0, total - first + 1, 4):
            seen: list[int] = []
            deals: list[list[int]] = []
            for world_size, steps in ((4, first), (3, second), (5, total)):
                plan = plan_of(groups, world_size=world_size, deals=deals, last_batch=last_batch)
                steps = min(steps, plan.steps)
                for rank in range(world_size):
                    for batch in batches_of(plan, groups, rank)[:steps]:
                        seen.extend(batch)
                deals.append([world_size, steps])
            assert sum(steps for _, steps in deals) == total
            assert len(set(seen)) == len(seen) == (rows if last_batch == "keep" else total * BATCH)


def test_a_rank_opens_little_more_than_its_share_of_the_files():
    row_groups, files = np.full(640, 10), np.repeat(np.arange(40), 16)
    plan = plan_of(row_groups, files=files, world_size=10, global_batch_size=100)
    for rank in range(10):
        groups = np.concatenate([part.row_groups for part in plan.slices(rank)])
        assert len(set(files[groups])) <= 4 + 4
    assert len({tuple(plan_of(row_groups, files=files, epoch=e)._order) for e in range(3)}) == 3


def test_a_position_beyond_the_epoch_is_refused():
    with pytest.raises(ValueError, match="at most 13 steps"):
        plan_of(groups_of(100, 7), deals=[[2, 14]])


def test_rows_of_a_dropped_last_batch_go_to_no_rank():
    plan = plan_of(groups_of(101, 7), last_batch="drop", world_size=3)
    assert plan.steps == 12
    assert sum(plan.rank_rows(rank) for rank in range(3)) == 96


def test_a_rank_finds_its_slice_of_a_million_row_groups_within_a_second():
    row_groups = np.full(1_000_000, 100_000)
    started = time.process_time()
    plan = EpochPlan(
        row_groups,
        files=np.repeat(np.arange(62_500), 16),
        seed=1,
        global_batch_size=1 << 20,
        world_size=1024,
        deals=[[1000, 40_000], [1023, 20_000]],
        window_rows=400_000,
    )
    slices = list(plan.slices(517))
    assert time.process_time() - started < 1.0
    assert sum(part.taken_rows for part in slices) == plan.rank_rows(517)
