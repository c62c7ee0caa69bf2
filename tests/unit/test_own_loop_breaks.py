"""What an own loop breaks out of, reports inside an epoch or leaves out is kept and counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.dataset import Dataset
from pipeline.task import TrainingResult
from pipeline.testing import tiny_dataset
from pipeline.training.checkpoint import read_weights, step_url
from pipeline.training.own_loop import TrainingContext
from tests.own_loops import attached, digests, interrupted, train_on, trained


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(str(tmp_path_factory.mktemp("data")), rows=450)


def test_breaking_out_of_the_epochs_saves_the_one_under_way(dataset: Dataset, tmp_path: Path) -> None:
    def loop(context: TrainingContext) -> None:
        model, _ = attached(context)
        for epoch in context.epochs():
            for batch in context.batches():
                train_on(context, model, batch)
            context.report({"loss": 1.0 / (epoch + 1)})
            if epoch == 1:
                break

    result = trained(dataset, tmp_path, loop=loop, best_by="loss")
    assert (result.steps, result.epochs, result.best_epoch) == (10, 2, 2)
    assert read_weights(result.best_checkpoint)
    assert trained(dataset, tmp_path, loop=loop, best_by="loss") == result, "a resumed run has nothing left to do"


def test_breaking_out_of_the_first_epoch_without_a_report_saves_it(dataset: Dataset, tmp_path: Path) -> None:
    def loop(context: TrainingContext) -> None:
        model, _ = attached(context)
        for _ in context.epochs():
            for batch in context.batches():
                train_on(context, model, batch)
                if context.progress.step == 3:
                    break
            break

    result = trained(dataset, tmp_path, loop=loop)
    assert (result.steps, result.rows, result.best_epoch) == (3, 300, 1)
    assert read_weights(result.best_checkpoint)


def test_breaking_out_of_batches_ends_the_epoch_early_and_counts_the_steps_made(
    dataset: Dataset, tmp_path: Path
) -> None:
    def loop(context: TrainingContext) -> None:
        model, _ = attached(context)
        for _ in context.epochs():
            for batch in context.batches():
                train_on(context, model, batch)
                if context.progress.steps_in_epoch == 2:
                    break

    result = trained(dataset, tmp_path / "through", loop=loop)
    assert (result.steps, result.rows, result.epochs) == (6, 600, 3)
    interrupted(dataset, tmp_path / "broken", 3, loop=loop)
    assert trained(dataset, tmp_path / "broken", loop=loop) == TrainingResult(
        **{**vars(result), "best_checkpoint": step_url(str(tmp_path / "broken"), 6)}
    )
    assert digests(tmp_path / "broken", 6) == digests(tmp_path / "through", 6)


def test_a_stop_in_the_step_that_ends_batches_by_break_is_heard(dataset: Dataset, tmp_path: Path) -> None:
    def loop(context: TrainingContext) -> None:
        model, _ = attached(context)
        for _ in context.epochs():
            for batch in context.batches():
                train_on(context, model, batch)
                break

    interrupted(dataset, tmp_path, 1, loop=loop)
    assert trained(dataset, tmp_path, loop=loop).steps == 3


def test_a_report_inside_an_epoch_that_is_the_best_is_saved_at_once(dataset: Dataset, tmp_path: Path) -> None:
    def loop(context: TrainingContext) -> None:
        model, _ = attached(context)
        for _ in context.epochs():
            for batch in context.batches():
                train_on(context, model, batch)
                context.report({"loss": abs(context.progress.step - 7.0)})

    result = trained(dataset, tmp_path, loop=loop, best_by="loss")
    assert (result.best_epoch, result.best_metrics) == (2, {"loss": 0.0})
    assert result.best_checkpoint == step_url(str(tmp_path), 7)
    assert read_weights(result.best_checkpoint)


def test_batches_that_the_loop_leaves_out_move_no_weight_and_count_no_row(dataset: Dataset, tmp_path: Path) -> None:
    def loop(context: TrainingContext) -> None:
        model, _ = attached(context)
        for _ in context.epochs():
            for batch in context.batches():
                if context.progress.step % 2:
                    continue
                train_on(context, model, batch)

    result = trained(dataset, tmp_path / "through", loop=loop)
    assert result.steps == 15
    assert result.rows == 6 * 100 + 2 * 50  # of the even steps
    interrupted(dataset, tmp_path / "broken", 4, loop=loop)
    trained(dataset, tmp_path / "broken", loop=loop)
    assert digests(tmp_path / "broken") == digests(tmp_path / "through")
