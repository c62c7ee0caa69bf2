"""A loop from code through `pipeline.train`, on two real ranks: its model is evaluated, and it resumes exactly."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pyspark import cloudpickle

import pipeline
from pipeline.dataset import Dataset
from pipeline.testing import publish
from pipeline.training.batches import Batch
from pipeline.training.checkpoint import open_checkpoint
from pipeline.training.own_loop import TrainingContext
from tests.small_model import small_dataset
from tests.stacks import DEFAULT_COLLECTIVE, IN_MEMORY, exchange_settings

pytestmark = pytest.mark.distributed

EPOCHS, STEPS_PER_EPOCH = 4, 8  # 750 rows in batches of 96, the last one of 78


@pytest.fixture(autouse=True)
def code_travels_by_value() -> Iterator[None]:
    """Workers cannot import test modules."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    manifest = small_dataset(folder := str(tmp_path_factory.mktemp("data")), rows=750).manifest
    semantic = {**manifest.semantic, "features": {"amount": {"type": "numeric"}}}
    return publish(folder, dataclasses.replace(manifest, semantic=semantic, content_id="e" * 64))


class Net(torch.nn.Module):
    def __init__(self, schema: Any, noisy: bool = False) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(16, 4)
        width = len(schema.numeric) + 4 * len(schema.cardinalities)
        noise = [torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.2)] if noisy else []
        self.layers = torch.nn.Sequential(torch.nn.Linear(width, 8), *noise, torch.nn.Tanh(), torch.nn.Linear(8, 1))

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        ids = self.embedding(inputs["categorical"].clamp(max=15)).flatten(1)
        return self.layers(torch.cat([inputs["numeric"], ids], 1)).squeeze(1)


def _halves(batch: Batch) -> list[Batch]:
    middle = batch.rows // 2
    return [
        Batch({name: tensor[part] for name, tensor in batch.inputs.items()}, batch.label[part])
        for part in (slice(0, middle), slice(middle, None))
    ]


def _validation_loss(context: TrainingContext, model: torch.nn.Module) -> float:
    sums = torch.zeros(2, dtype=torch.float64)
    model.eval()
    with context.averaged(), torch.no_grad():
        for batch in context.loader("validation"):
            losses = F.binary_cross_entropy_with_logits(model(batch.inputs), batch.label, reduction="sum")
            sums += torch.tensor([float(losses), batch.rows])
    model.train()
    loss, rows = context.collective.sum(sums.numpy())
    return float(loss / rows)


def _loop(preempted_once: str | None = None) -> Callable[[TrainingContext], None]:
    def loop(context: TrainingContext) -> None:
        model = context.model()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=context.total_steps)
        context.attach(model, optimizer, schedule=schedule)
        for _ in context.epochs():
            for batch in context.batches():
                for number, part in enumerate(_halves(batch)):
                    losses = F.binary_cross_entropy_with_logits(model(part.inputs), part.label, reduction="none")
                    context.backward(losses.sum(), weight=part.rows, last=number == 1)
                context.step()
                schedule.step()
                if preempted_once is not None and context.rank == 1 and context.progress.step == 11:
                    _be_preempted(preempted_once)
            context.report({"loss": _validation_loss(context, model)})

    return loop


def _be_preempted(mark: str) -> None:
    """The first time, as a cluster does it that wants its executor back."""
    if not os.path.exists(mark):
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGTERM)


def _train(
    spark: Any, dataset: Dataset, folder: Path, loop: Any, noisy: bool = False, exchange: str = IN_MEMORY
) -> Any:
    return pipeline.train(
        dataset,
        model=Net,
        options={"noisy": noisy},
        loop=loop,
        spark=spark,
        cluster={"master": "local[2]", "num_proc": 2, **exchange_settings(exchange)},
        tracking={"uri": f"sqlite:///{folder.parent}/mlflow.db"},
        run_url=str(folder),
        epochs=EPOCHS,
        global_batch_size=96,
        ema_decay=0.9,
        clip_norm=1.0,
        best_by="loss",
    )


def test_a_loop_on_two_ranks_gives_a_model_that_is_evaluated(spark: Any, dataset: Dataset, tmp_path: Path) -> None:
    run = _train(spark, dataset, tmp_path / "run", _loop(), exchange=DEFAULT_COLLECTIVE)
    assert (run.result.steps, run.result.rows) == (EPOCHS * STEPS_PER_EPOCH, EPOCHS * 750)
    evaluated = pipeline.evaluate(run, spark=spark)
    assert evaluated.metrics["roc_auc"] > 0.8
    reported = [json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert run.result.best_metrics["loss"] == min(reported)


def test_a_loop_whose_rank_is_preempted_goes_on_to_the_same_bits(spark: Any, dataset: Dataset, tmp_path: Path) -> None:
    undisturbed = _train(spark, dataset, tmp_path / "through", _loop(), noisy=True)
    preempted = _train(spark, dataset, tmp_path / "broken", _loop(str(tmp_path / "mark")), noisy=True)
    assert json.loads((tmp_path / "broken" / "status.json").read_text())["restarts"] == 1
    assert preempted.result.best_metrics == undisturbed.result.best_metrics
    through, broken = (open_checkpoint(run.result.best_checkpoint) for run in (undisturbed, preempted))
    names = {name for name in through.files if name.endswith(".safetensors") and not name.startswith("rank")}
    assert names == {"model.safetensors", "optimizer.safetensors", "ema.safetensors"}
    assert {name: broken.files[name].sha256 for name in names} == {name: through.files[name].sha256 for name in names}
    assert broken.state()["others"] == through.state()["others"]
