"""Who fits the table of `benchmarks.fit`, in a process of its own: `python -m benchmarks.fit_contenders NAME FOLDER`.

All train the same perceptron (20-128-64-1, Adam, learning rate 0.001) on the same rows for the same epochs with two
ranks of one thread and 512 rows a step each, and say the loss on the validation rows. Seconds begin when Spark is up.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

FEATURES = [f"x{number}" for number in range(20)]
EPOCHS = 3
RANKS = 2
RANK_ROWS = 512
LEARNING_RATE = 0.001


def perceptron() -> torch.nn.Sequential:
    """The model that all train."""
    layer, relu = torch.nn.Linear, torch.nn.ReLU
    return torch.nn.Sequential(layer(len(FEATURES), 128), relu(), layer(128, 64), relu(), layer(64, 1))


class Perceptron(torch.nn.Module):
    """It, for rows of one matrix per batch, as this package gives them."""

    def __init__(self, schema: Any) -> None:
        super().__init__()
        self.layers = perceptron()

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits of (rows,)."""
        logits: torch.Tensor = self.layers(inputs["numeric"])
        return logits.squeeze(1)


class PerceptronOfColumns(torch.nn.Module):
    """It, for one tensor per column, as Horovod's estimator gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = perceptron()

    def forward(self, *columns: torch.Tensor) -> torch.Tensor:
        """Logits of (rows, 1)."""
        logits: torch.Tensor = self.layers(torch.cat([column.reshape(-1, 1) for column in columns], dim=1))
        return logits


def ours(folder: Path, collective: str) -> dict[str, float]:
    """This package with all that it does: accounting, checksums, publishing; MLflow; checkpoints; the model folder."""
    from pipeline import flow
    from pipeline.config import parse_config
    from pipeline.task import UserCode

    config = parse_config(
        {
            "source": {"inputs": {"table": {"path": str(folder / "table"), "format": "parquet"}}, "id": ["id"]},
            "features": {name: {"type": "numeric", "scale": "none"} for name in FEATURES},
            "label": {"column": "label"},
            "split": {"by": "column", "key": "split"},
            "dataset": {"url": str(folder / f"dataset-{collective}")},
            "model": {"factory": "benchmarks.fit_contenders:Perceptron"},
            "training": {
                "run_url": str(folder / f"run-{collective}"),
                "epochs": EPOCHS,
                "global_batch_size": RANKS * RANK_ROWS,
                "optimizer": {"name": "Adam", "learning_rate": LEARNING_RATE},
                "best_by": "loss",
            },
            "cluster": {"master": f"local[{RANKS}]", "num_proc": RANKS, "collective": collective},
        }
    )
    with flow.SparkOnDemand(config, for_inputs=True) as session:
        session().range(1).count()
        began = time.monotonic()
        dataset, _ = flow.prepare_stage(config, session)
        prepared = time.monotonic()
        run = flow.train_stage(config, dataset, session, UserCode())
        trained = time.monotonic()
    metrics = [json.loads(line) for line in Path(run.url, "metrics.jsonl").read_text().splitlines()]
    losses = [line["validation_loss"] for line in metrics]
    return {"prepare": prepared - began, "train": trained - prepared, "validation_loss": losses[-1]}


def estimator(folder: Path) -> dict[str, float]:
    """Horovod's `TorchEstimator`: it writes the table to its store, then trains with `horovod.spark.run`."""
    from horovod.spark.common.backend import SparkBackend
    from horovod.spark.common.store import LocalStore
    from horovod.spark.torch import TorchEstimator

    spark = _plain_session(folder)
    table = spark.read.parquet(str(folder / "table")).where("split != 'test'")
    table = table.selectExpr(*FEATURES, "label", "cast(split = 'validation' as boolean) as is_validation")
    model = PerceptronOfColumns()
    rate = LEARNING_RATE / RANKS  # it multiplies the rate by the number of ranks
    began = time.monotonic()
    fitted = TorchEstimator(
        backend=SparkBackend(num_proc=RANKS, verbose=0),
        store=LocalStore(str(folder / "estimator")),
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=rate),
        loss=torch.nn.functional.binary_cross_entropy_with_logits,
        feature_cols=FEATURES,
        label_cols=["label"],
        input_shapes=[[-1, 1]] * len(FEATURES),
        label_shapes=[[-1, 1]],
        validation="is_validation",
        batch_size=RANK_ROWS,
        val_batch_size=RANK_ROWS,
        epochs=EPOCHS,
        verbose=0,
    ).fit(table)
    seconds = time.monotonic() - began
    history = fitted.getHistory()
    spark.stop()
    return {"fit": seconds, "validation_loss": float(history[-1]["validation"]["loss"])}


def distributor(folder: Path) -> dict[str, float]:
    """The `TorchDistributor` of pyspark with DistributedDataParallel, reading the table's files with pyarrow."""
    from pyspark.ml.torch.distributor import TorchDistributor

    spark = _plain_session(folder)
    began = time.monotonic()
    loss = TorchDistributor(num_processes=RANKS, local_mode=False, use_gpu=False).run(
        distributed_data_parallel, str(folder / "table")
    )
    seconds = time.monotonic() - began
    spark.stop()
    return {"train": seconds, "validation_loss": loss}


def distributed_data_parallel(table: str) -> float:
    """A rank as a good user writes it: its share of the rows as tensors in memory, batches gathered by index.

    Without padding or accounting: ranks that have a row more than others leave it out.
    """
    import torch.distributed as dist
    import torch.nn.functional as F

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    x, y = _share(table, "train", rank, ranks)
    torch.manual_seed(0)
    model = torch.nn.parallel.DistributedDataParallel(perceptron())
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    sums = torch.zeros(2)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(RANK_ROWS):
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(model(x[rows]).squeeze(1), y[rows]).backward()
            optimizer.step()
        sums = _validated(model, *_share(table, "validation", rank, ranks))
    dist.all_reduce(sums)
    dist.destroy_process_group()
    return float(sums[0] / sums[1])


def _validated(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(x).squeeze(1), y, reduction="sum")
    return torch.stack([loss, torch.tensor(float(len(y)))])


def _share(table: str, split: str, rank: int, ranks: int) -> tuple[torch.Tensor, torch.Tensor]:
    import numpy as np
    import pyarrow.parquet as pq

    parts = pq.read_table(table, columns=[*FEATURES, "label"], filters=[("split", "==", split)])
    rows = parts.num_rows // ranks
    mine = parts.slice(rank * rows, rows)
    matrix = np.column_stack([mine[name].to_numpy() for name in FEATURES])
    return torch.from_numpy(matrix), torch.from_numpy(mine["label"].to_numpy().copy())


def _plain_session(folder: Path) -> Any:
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(f"local[{RANKS}]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.driver.memory", "4g").config("spark.local.dir", str(folder / "spark"))
    session = builder.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
    spark = session.getOrCreate()
    spark.range(1).count()
    return spark


CONTENDERS: dict[str, Callable[[Path], dict[str, float]]] = {
    "ours over horovod": lambda folder: ours(folder, "horovod"),
    "ours over torch": lambda folder: ours(folder, "torch"),
    "TorchDistributor with DDP": distributor,
    "Horovod's TorchEstimator": estimator,
}


def _told(name: str, folder: Path) -> Iterator[str]:
    began = time.monotonic()
    found = CONTENDERS[name](folder)
    yield json.dumps({**found, "process": time.monotonic() - began})


if __name__ == "__main__":
    from benchmarks import fit_contenders  # functions that ranks must be able to import by this name

    for line in fit_contenders._told(sys.argv[1], Path(sys.argv[2])):
        print(line)
