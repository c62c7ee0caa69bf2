"""How fast the engine trains, what goes where, and how long a fit takes beside others.

    python -m benchmarks.training [scaling] [steps] [checkpoint] [compression] [fit]

Each part takes some minutes and keeps its result beside those of the others. The ceiling of scaling is the sum of
independent single-process trainings at the same time: the same cores and memory, and no word between them. A model of
24 features, embeddings and a perceptron of 256-128, one thread a rank; 1,024 rows a step and rank where nothing else is
said. Rounds are interleaved, so that a noisy machine is noisy for all.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import ddp, fit
from benchmarks.results_file import Goal, document, keep, table
from benchmarks.step_times import parts_of_a_step, timed
from pipeline.config.training import ClusterConfig, ModelConfig, TrainingConfig
from pipeline.dataset import Dataset
from pipeline.launch import launch_training
from pipeline.launch.python_daemon import keep_freed_memory
from pipeline.launch.session import spark_session
from pipeline.task import SilentReporter, TrainingTask
from pipeline.testing import tiny_dataset
from pipeline.training.collective import SoloCollective
from pipeline.training.worker import train

ROWS = 300_000
BATCH_PER_RANK = 1024
BATCHES = (1024, 4096)
EPOCHS = 4
ROUNDS = 5
EXCHANGES = ("horovod", "torch", "horovod in memory", "torch in memory")
COMPRESSIONS = ("none", "fp16", "bf16", "powersgd")
SHARES = ("rows_per_second", "data_wait_share", "communication_share", "checkpoint_share", "straggler_ratio")

STEPS_READ = """\
* In memory an exchange takes a tenth of a millisecond: a copy, a message, a wake-up, an addition. What is left to two
  independent processes is waiting, since a step lasts as long as the longer of two, and what driver and JVM do
  meanwhile.
* Over torch.distributed a third of what is missing is the exchange itself; the rest is computing that is slower,
  because Gloo's threads want the cores too, and ranks that therefore wait longer for each other.
* Over Horovod its own thread comes on top. It wakes up every millisecond and talks to the other rank whether there is
  something to sum or not, which takes a fifth to a quarter of a core from each rank; and what there is waits for it.
* Where ranks have cores of their own for that (`cluster.cores_per_rank`), or steps are longer, both shrink. Here two
  ranks share two cores with the driver. One rank has both cores, and therefore beats one process of one thread.
"""

_BARE = "2 in a bare loop"
_KINDS = {name: name for name in ("1 independent", "2 independent", "1 rank")}
_KINDS[_BARE] = f"{_BARE} with DDP over Gloo"

Values = dict[str, float]


def task_for(dataset: Dataset, run: Path, ranks: int, batch: int = BATCH_PER_RANK, **training: Any) -> TrainingTask:
    """The same model and rows a rank, whatever the number of ranks."""
    values = {"epochs": EPOCHS, "optimizer": {"name": "AdamW", "learning_rate": 0.002}, **training}
    config = TrainingConfig(run_url=str(run), global_batch_size=batch * ranks, micro_batch_size=batch, **values)
    return TrainingTask(dataset.url, dataset.content_id, ModelConfig(name="tabular"), config, threads=1)


class _Metrics(SilentReporter):
    def __init__(self) -> None:
        self.epochs: list[Values] = []

    def metrics(self, values: Any, step: int) -> None:
        self.epochs.append(dict(values))


def summary(epochs: list[Values]) -> Values:
    """Medians over the epochs after the first, and the last AUC."""
    values = {name: statistics.median(epoch[name] for epoch in epochs[1:]) for name in (*SHARES, "bytes_per_step")}
    return {**values, "roc_auc": epochs[-1]["validation_roc_auc"]}


def alone(dataset_url: str, batch: str, run: str) -> Values:
    """One process on its own; it keeps freed memory as the ranks do, so that what they lose is each other's doing."""
    keep_freed_memory()
    reporter = _Metrics()
    train(task_for(Dataset.open(dataset_url), Path(run), 1, int(batch)), SoloCollective(), reporter, lambda: False)
    return summary(reporter.epochs)


def independent(dataset: Dataset, run: Path, processes: int, batch: int) -> list[Values]:
    """So many processes at once that know nothing of each other."""
    command = [sys.executable, "-m", "benchmarks.training", "--alone", dataset.url, str(batch)]
    started = [
        subprocess.Popen([*command, f"{run}-{number}"], stdout=subprocess.PIPE, text=True)
        for number in range(processes)
    ]
    return [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]


class Bench:
    """A dataset and a Spark session to train with, as often as wanted; smaller for a try."""

    def __init__(
        self,
        folder: Path,
        spark: Any,
        rows: int = ROWS,
        rounds: int = ROUNDS,
        batches: Sequence[int] = BATCHES,
        exchanges: Sequence[str] = EXCHANGES,
    ) -> None:
        self.folder, self.spark, self.runs = folder, spark, 0
        self.rounds, self.batches, self.exchanges = rounds, batches, exchanges
        self.dataset = tiny_dataset(
            str(folder / "data"), rows, 20, 4, rows_per_row_group=4096, rows_per_file=32768, wide=False
        )

    def run_folder(self) -> Path:
        """A new one."""
        self.runs += 1
        return self.folder / f"run-{self.runs}"

    def together(self, exchange: str, ranks: int = 2, **training: Any) -> Values:
        """Ranks in a barrier stage."""
        reporter = _Metrics()
        cluster = _cluster(exchange, ranks)
        task = task_for(self.dataset, self.run_folder(), ranks, **training)
        launch_training(self.spark, task, cluster, tracker=reporter)  # type: ignore[arg-type]
        return summary(reporter.epochs)

    def steps(self, exchange: str, batch: int) -> Values:
        """What a step of two ranks consists of."""
        cluster = _cluster(exchange, 2)
        task = task_for(self.dataset, self.run_folder(), 2, batch)
        launch_training(self.spark, task, cluster, body=timed)
        return parts_of_a_step(Path(task.training.run_url), 2)

    def apart(self, processes: int, batch: int) -> Values:
        """Independent processes: the sum of their rates, the median of the rest."""
        each = independent(self.dataset, self.run_folder(), processes, batch)
        values = {name: statistics.median(one[name] for one in each) for name in each[0]}
        return {**values, "rows_per_second": sum(one["rows_per_second"] for one in each)}


def _cluster(exchange: str, ranks: int) -> ClusterConfig:
    collective, _, memory = exchange.partition(" in ")
    settings: dict[str, Any] = {"collective": collective, "shared_memory": bool(memory)}
    return ClusterConfig(master="local[2]", num_proc=ranks, **settings)


def _medians(rounds: list[dict[str, Values]]) -> dict[str, Values]:
    return {
        name: {key: round(statistics.median(one[name][key] for one in rounds), 5) for key in rounds[0][name]}
        for name in rounds[0]
    }


def scaling(bench: Bench) -> dict[str, Any]:
    """One and two ranks against as many independent processes."""
    rounds: dict[int, list[dict[str, Values]]] = {batch: [] for batch in bench.batches}
    for _ in range(bench.rounds):
        for batch, found in rounds.items():
            one = {f"{count} independent": bench.apart(count, batch) for count in (1, 2)}
            one["1 rank"] = bench.together(bench.exchanges[0], 1, batch=batch)
            one |= {f"2 {name}": bench.together(name, batch=batch) for name in bench.exchanges}
            one[_BARE] = {"rows_per_second": ddp.both(bench.dataset.url, batch)}
            found.append(one)
            print(batch, {name: round(values["rows_per_second"]) for name, values in one.items()}, file=sys.stderr)
    return {"rounds": bench.rounds, "medians": {str(batch): _medians(found) for batch, found in rounds.items()}}


def steps(bench: Bench) -> dict[str, Any]:
    """The parts of a step of two ranks."""
    rounds = [
        {f"{batch:,} rows over {name}": bench.steps(name, batch) for batch in bench.batches for name in bench.exchanges}
        for _ in range(bench.rounds)
    ]
    return {"rounds": bench.rounds, "medians": _medians(rounds)}


def checkpoint(bench: Bench) -> dict[str, Any]:
    """A checkpoint every second, which is far more often than anybody needs."""
    often = {"checkpoint": {"every_seconds": 1.0}}
    rounds = [{name: bench.together(name, **often) for name in bench.exchanges} for _ in range(bench.rounds)]
    return {"medians": _medians(rounds)}


def compression(bench: Bench) -> dict[str, Any]:
    """Bytes that a rank sends in a step, and what the model reaches."""
    return {
        exchange: {name: bench.together(exchange, compression=name) for name in COMPRESSIONS}
        for exchange in bench.exchanges
    }


def _scaling_page(values: Mapping[str, Any]) -> list[str]:
    return [
        "## One and two ranks against independent processes",
        "",
        f"{ROWS:,} rows, {EPOCHS} epochs; medians of {values['rounds']} interleaved rounds.",
        "",
        *(line for batch, medians in values["medians"].items() for line in _scaling_table(int(batch), medians)),
    ]


def _scaling_goals(values: Mapping[str, Any]) -> list[Goal]:
    shares = [
        Goal(f"two ranks over {name}, of two independent processes, {int(batch):,} rows a step and rank", share, 0.9)
        for batch, medians in values["medians"].items()
        for name, share in _of_ceiling(medians).items()
    ]
    waits = [
        medians[f"2 {name}"]["data_wait_share"]
        for medians in values["medians"].values()
        for name in _of_ceiling(medians)
    ]
    return [*shares, Goal("% of a step waiting for data", 100 * max(waits), 5, at_most=True)]


def _of_ceiling(medians: Mapping[str, Values]) -> dict[str, float]:
    """Exchange -> what two ranks reach of two independent processes."""
    ceiling = medians["2 independent"]["rows_per_second"]
    return {name: one["rows_per_second"] / ceiling for key, one in medians.items() if (name := key[2:]) in EXCHANGES}


def _scaling_table(batch: int, medians: Mapping[str, Values]) -> list[str]:
    ceiling = {count: medians[f"{count} independent"]["rows_per_second"] for count in (1, 2)}

    def row(name: str, one: Values) -> list[Any]:
        share = one["rows_per_second"] / ceiling[int(name[0])]
        shares = (f"{100 * one[key]:.1f} %" if key in one else "" for key in SHARES[1:3])
        return [
            _KINDS.get(name, f"2 ranks over {name[2:]}"),
            f"{one['rows_per_second']:,.0f}",
            f"{share:.2f}",
            *shares,
        ]

    bare = medians[_BARE]["rows_per_second"] / ceiling[2]
    return [
        f"{batch:,} rows a step and rank; torch's DistributedDataParallel in a bare loop over tensors in memory "
        f"reaches {bare:.2f} of the ceiling.",
        "",
        *table(
            ["", "rows/s", "of the ceiling", "waiting for data", "waiting for the other rank"],
            [row(name, one) for name, one in medians.items()],
        ),
    ]


def _steps_page(values: Mapping[str, Any]) -> list[str]:
    parts = list(next(iter(values["medians"].values())))
    return [
        "## What a step of two ranks consists of",
        "",
        f"Milliseconds, means over the steps of a run, medians of {values['rounds']} runs.",
        "",
        *table(["a step and rank", *parts], [[name, *one.values()] for name, one in values["medians"].items()]),
        *STEPS_READ.splitlines(),
        "",
    ]


def _checkpoint_page(values: Mapping[str, Any]) -> list[str]:
    stalls = ", ".join(f"{100 * one['checkpoint_share']:.2f} % over {name}" for name, one in values["medians"].items())
    return ["## Checkpoints", "", f"A checkpoint every second holds training up for {stalls} of the time.", ""]


def _checkpoint_goals(values: Mapping[str, Any]) -> list[Goal]:
    most = max(one["checkpoint_share"] for one in values["medians"].values())
    return [Goal("% of the time held up by a checkpoint every second", 100 * most, 3.5, at_most=True)]


def _compression_page(values: Mapping[str, Any]) -> list[str]:
    rows = [
        [name, collective, f"{one['bytes_per_step']:,.0f}", f"{one['roc_auc']:.5f}", f"{one['rows_per_second']:,.0f}"]
        for collective, found in values.items()
        for name, one in found.items()
    ]
    head = ["compression", "over", "bytes a rank sends per step", "validation ROC AUC", "rows/s"]
    return ["## Compression", "", *table(head, rows)]


PAGES = {
    "scaling": _scaling_page,
    "steps": _steps_page,
    "checkpoint": _checkpoint_page,
    "compression": _compression_page,
    "fit": fit.page,
}
GOALS = {"scaling": _scaling_goals, "checkpoint": _checkpoint_goals, "fit": fit.goals}


def page(sections: Mapping[str, Any]) -> list[str]:
    """All that has been measured so far."""
    parts = [line for name, write in PAGES.items() if name in sections for line in write(sections[name])]
    goals = [goal for name, of in GOALS.items() if name in sections for goal in of(sections[name])]
    return document("Training", sections["machine"], goals, parts)


def main(arguments: list[str]) -> None:
    """Measure the named parts, or all."""
    if arguments[:1] == ["--alone"]:
        print(json.dumps(alone(*arguments[1:])))
        return
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        wanted = arguments or list(PAGES)
        if "fit" in wanted:
            keep("training", {"fit": fit.measure(folder / "fit")}, page)
        if engine := [part for part in (scaling, steps, checkpoint, compression) if part.__name__ in wanted]:
            spark = stack.enter_context(spark_session(ClusterConfig(master="local[2]"), str(folder)))
            bench = Bench(folder, spark)
            for part in engine:
                keep("training", {part.__name__: part(bench)}, page)


if __name__ == "__main__":
    main(sys.argv[1:])
