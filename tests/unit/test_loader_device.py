"""Copies to a device run one batch ahead of whoever takes the batches; the CPU stands for the device."""

from __future__ import annotations

import contextlib

import pytest
import torch

from pipeline.testing import tiny_dataset
from pipeline.training import loader as loader_module
from pipeline.training.device import lane_to, one_ahead
from pipeline.training.loader import Loader

has_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


class Logged:
    """A lane that writes down what it is asked for; copies are made at once."""

    pinned = False

    def __init__(self):
        self.log = []

    def start(self, unpack):
        self.log.append("start")
        return unpack(), len(self.log)

    def finish(self, batch, ticket):
        self.log.append("finish")
        return batch


def test_the_next_copy_begins_before_a_batch_is_given():
    lane = Logged()
    given = one_ahead(iter([1, 2, 3]), lambda host: host * 10, lane)
    assert next(given) == 10
    assert lane.log == ["start", "start", "finish"]
    assert list(given) == [20, 30]
    assert lane.log == ["start", "start", "finish", "start", "finish", "finish"]
    assert list(one_ahead(iter([]), lambda host: host, lane)) == []


@pytest.mark.parametrize("last_batch", ["keep", "drop", "pad"])
def test_one_ahead_the_batches_and_the_position_are_the_same(tmp_path, monkeypatch, last_batch):
    dataset = tiny_dataset(str(tmp_path / "data"), rows={"train": 200}, vectors={"v": ("float32", (3,))})
    options = {"global_batch_size": 32, "with_ids": True, "last_batch": last_batch}
    plain = Loader(dataset, **options)
    monkeypatch.setattr(loader_module, "lane_to", lambda device: Logged())
    ahead = Loader(dataset, **options)
    for _ in range(2):
        for expected, got in zip(plain, ahead, strict=True):
            assert plain.deals == ahead.deals
            assert expected.ids["id"].tolist() == got.ids["id"].tolist()
            assert all(torch.equal(a, b) for a, b in zip(expected.tensors(), got.tensors(), strict=True))


def test_leaving_one_ahead_does_not_count_the_batch_that_nobody_got(tmp_path, monkeypatch):
    dataset = tiny_dataset(str(tmp_path / "data"), rows={"train": 200})
    whole = [batch.ids["id"].tolist() for batch in Loader(dataset, global_batch_size=32, with_ids=True)]
    monkeypatch.setattr(loader_module, "lane_to", lambda device: Logged())
    first = Loader(dataset, global_batch_size=32, with_ids=True)
    with contextlib.closing(iter(first)) as batches:
        seen = [next(batches).ids["id"].tolist() for _ in range(3)]
    rest = Loader(dataset, global_batch_size=32, with_ids=True, deals=first.deals)
    assert seen + [batch.ids["id"].tolist() for batch in rest] == whole


def test_on_the_cpu_nothing_is_copied():
    assert lane_to(torch.device("cpu")) is None


@has_gpu
def test_batches_on_a_gpu_are_those_of_the_cpu(tmp_path):
    dataset = tiny_dataset(str(tmp_path / "data"), rows={"train": 5000}, vectors={"v": ("uint8", (64,))})
    there = Loader(dataset, global_batch_size=512, device="cuda")
    for expected, got in zip(Loader(dataset, global_batch_size=512), there, strict=True):
        assert all(tensor.is_cuda for tensor in got.tensors())
        assert all(torch.equal(a, b.cpu()) for a, b in zip(expected.tensors(), got.tensors(), strict=True))
