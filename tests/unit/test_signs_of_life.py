"""Whoever reads, or runs a user's code, is seen to be alive by the driver's deadline of a step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config.training import DeadlineConfig
from pipeline.dataset import Dataset
from pipeline.errors import ConfigError
from pipeline.launch.channel import Message
from pipeline.launch.watch import Watch
from pipeline.task import SilentReporter
from pipeline.testing import tiny_dataset
from pipeline.training.own_loop import TrainingContext
from pipeline.training.progress import Progress
from tests.own_loops import attached, trained


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(str(tmp_path_factory.mktemp("data")), rows=450)


class _SignsOfLife(SilentReporter):
    def __init__(self) -> None:
        self.signs: list[int] = []
        self.events: list[str] = []

    def progress(self, *, step: int, **_: Any) -> None:
        self.signs.append(step)

    def event(self, message: str) -> None:
        self.events.append(message)


def test_whoever_reads_a_split_or_says_so_is_seen_to_be_alive(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter = _SignsOfLife()
    counts = []
    monkeypatch.setattr("pipeline.training.own_loop.context._PREPARING_SECONDS", 0.0)

    def loop(context: TrainingContext) -> None:
        context.alive()
        assert (reporter.signs, len(reporter.events)) == ([], 1), "no step that would void those of a run to resume"
        attached(context)
        for _ in context.epochs():
            for work in (lambda: list(context.loader("validation")), context.alive):
                before = len(reporter.signs)
                work()
                counts.append(len(reporter.signs) - before)

    trained(dataset, tmp_path, loop=loop, reporter=reporter, epochs=1)
    assert counts == [2, 1]  # 112 rows of validation in batches of 100


class _Watched(SilentReporter):
    """A rank under a driver's watch, whose clock moves where the test says so."""

    def __init__(self) -> None:
        self.now, self.watch = 0.0, Watch(1, DeadlineConfig(step=5), begun=0.0)
        for kind, body in (("hello", {"host": "here", "pid": 1}), ("started", {})):
            self.watch.note(Message(0, kind, body), self.now)

    def progress(self, *, step: int, **_: Any) -> None:
        self.watch.note(Message(0, "progress", {"step": step}), self.now)

    def hangs_after(self, seconds: float) -> bool:
        self.now += seconds
        self.watch.note(Message(0, "heartbeat", {"where": "the user's code"}), self.now)
        return self.watch.overdue(self.now) is not None


def test_a_long_validation_of_a_loop_is_no_hang(dataset: Dataset, tmp_path: Path) -> None:
    rank = _Watched()
    judged: list[bool] = []

    def loop(context: TrainingContext) -> None:
        attached(context)
        for _ in context.epochs():
            context.alive()
            judged.extend(rank.hangs_after(4) for _ in context.loader("validation", global_batch_size=10))
            context.alive()
            judged.append(rank.hangs_after(4))
            judged.append(rank.hangs_after(4))

    trained(dataset, tmp_path, loop=loop, reporter=rank, epochs=1)
    assert judged == [*[False] * 12, False, True], "only who says nothing for longer than the deadline hangs"


def test_loaders_of_the_context_give_batches_on_its_device(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.setattr("pipeline.training.own_loop.context.OwnLoader", lambda *_, **options: given.append(options))

    def loop(context: TrainingContext) -> None:
        context.device = torch.device("cuda", 1)
        context.loader("train")
        context.loader("validation", device="cpu", shuffle=True)
        context.device = torch.device("cpu")

    with pytest.raises(ConfigError, match="attach"):
        trained(dataset, tmp_path, loop=loop)
    assert [(str(options["device"]), options["shuffle"]) for options in given] == [("cuda:1", True), ("cpu", True)]


def test_a_callback_is_preceded_and_followed_by_a_sign(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.training.loop.REPORT_SECONDS", -1.0)
    reporter = _SignsOfLife()
    heard: list[int] = []

    def callback(progress: Progress, metrics: Mapping[str, float]) -> None:
        heard.append(len(reporter.signs))

    trained(dataset, tmp_path / "without", loop=None, reporter=reporter, epochs=1)
    without = len(reporter.signs)
    reporter.signs.clear()
    trained(dataset, tmp_path / "with", loop=None, callback=callback, reporter=reporter, epochs=1)
    assert (heard, len(reporter.signs)) == ([without + 1], without + 2)
