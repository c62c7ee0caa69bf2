"""How fast the engine trains: two ranks against two processes that know nothing of each other, and what goes where.

python -m benchmarks.training [ROWS]

The ceiling is the sum of two independent single-process trainings at the same time: the same cores and memory, and no
word between them. A model of 24 features, batch 1,024 a rank, embeddings and an MLP of 256-128, one thread a rank.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pipeline.config.training import ClusterConfig, ModelConfig, TrainingConfig
from pipeline.dataset import Dataset
from pipeline.launch import launch_training
from pipeline.launch.session import spark_session
from pipeline.task import SilentReporter, TrainingTask
from pipeline.testing import tiny_dataset
from pipeline.training.collective import SoloCollective
from pipeline.training.worker import train

BATCH_PER_RANK = 1024
EPOCHS = 4
SHARES = ("rows_per_second", "data_wait_share", "communication_share", "checkpoint_share", "straggler_ratio")


def task_for(dataset: Dataset, run: str, ranks: int, **training: Any) -> TrainingTask:
    """The same model and rows a rank, whatever the number of ranks."""
    values = {"epochs": EPOCHS, "optimizer": {"name": "AdamW", "learning_rate": 0.002}, **training}
    config = TrainingConfig(run_url=run, global_batch_size=BATCH_PER_RANK * ranks, **values)
    return TrainingTask(dataset.url, dataset.content_id, ModelConfig(name="tabular"), config, threads=1)


class _Metrics(SilentReporter):
    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def metrics(self, values: Any, step: int) -> None:
        self.epochs.append(dict(values))


def summary(epochs: list[dict[str, float]]) -> dict[str, float]:
    """Medians over the epochs after the first, and the last AUC."""
    values = {name: statistics.median(epoch[name] for epoch in epochs[1:]) for name in (*SHARES, "bytes_per_step")}
    return {**{n: round(v, 4) for n, v in values.items()}, "roc_auc": round(epochs[-1]["validation_roc_auc"], 5)}


def alone(dataset_url: str, run: str) -> dict[str, float]:
    """One process on its own."""
    reporter = _Metrics()
    train(task_for(Dataset.open(dataset_url), run, 1), SoloCollective(), reporter, lambda: False)
    return summary(reporter.epochs)


def independent(dataset: Dataset, folder: Path, processes: int) -> list[dict[str, float]]:
    """So many processes at once that know nothing of each other."""
    commands = [[sys.executable, "-m", "benchmarks.training", "--alone", dataset.url] for _ in range(processes)]
    started = [
        subprocess.Popen([*command, str(folder / f"alone-{processes}-{number}")], stdout=subprocess.PIPE, text=True)
        for number, command in enumerate(commands)
    ]
    return [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]


def ranks_together(spark: Any, dataset: Dataset, run: Path, **training: Any) -> dict[str, float]:
    """Two Horovod ranks in a barrier stage."""
    reporter = _Metrics()
    cluster = ClusterConfig(master="local[2]", num_proc=2)
    launch_training(spark, task_for(dataset, str(run), 2, **training), cluster, tracker=reporter)  # type: ignore[arg-type]
    return summary(reporter.epochs)


def measure(rows: int) -> dict[str, Any]:
    """Everything, as JSON values."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        dataset = tiny_dataset(
            str(folder / "data"), rows, 20, 4, rows_per_row_group=4096, rows_per_file=32768, wide=False
        )
        one = independent(dataset, folder, 1)[0]
        ceiling = sum(process["rows_per_second"] for process in independent(dataset, folder, 2))
        spark = stack.enter_context(spark_session(ClusterConfig(master="local[2]"), str(folder)))
        plain = ranks_together(spark, dataset, folder / "plain")
        saving = ranks_together(spark, dataset, folder / "saving", checkpoint={"every_seconds": 1.0})
        compressed = {
            name: ranks_together(spark, dataset, folder / name, compression=name)
            for name in ("fp16", "bf16", "powersgd")
        }
    return {
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "one process": one,
        "two independent processes, rows/s": round(ceiling),
        "two ranks": plain,
        "two ranks / ceiling": round(plain["rows_per_second"] / ceiling, 3),
        "a checkpoint every second": saving,
        "compression": {
            name: {"bytes_per_step": values["bytes_per_step"], "roc_auc": values["roc_auc"]}
            for name, values in {"none": plain, **compressed}.items()
        },
    }


def main(arguments: list[str]) -> None:
    """Print the measurement as JSON."""
    if arguments[:1] == ["--alone"]:
        print(json.dumps(alone(*arguments[1:])))
    else:
        print(json.dumps(measure(int(arguments[0]) if arguments else 100_000), indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
