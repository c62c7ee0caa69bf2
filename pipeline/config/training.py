"""ANYWHERE. The sections that say how to train and on what: model, training, cluster."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from pipeline.config.section import ModelReference, Section, Url

CollectiveName = Literal["horovod", "torch", "none"]
"""What carries sums between ranks; `none` where there is one rank in the driver's process."""

# Each of them reads what all have written: traffic grows with the square of their number, that of a ring does not.
MOST_RANKS_IN_MEMORY = 8

CoresPerRank = Literal["task", "executor"] | Annotated[int, Field(ge=1)]
"""Cores of the task that a rank is: `spark.task.cpus`, all that an executor has, or so many."""


DottedName = Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
"""A function in a module that every rank can import, `package.module:function`; the same given from code wins."""


class ModelConfig(Section):
    """The architecture: a built-in name, or a factory `package.module:function(schema, **options)`."""

    name: Literal["tabular", "wide_deep", "linear", "cnn"] | None = None
    """A built-in architecture; by default tabular."""
    factory: DottedName | None = None
    """A function of your own instead, which every rank can import."""
    options: dict[str, Any] = {}
    """Keywords of the architecture or factory."""

    @model_validator(mode="after")
    def _one_of(self) -> ModelConfig:
        if self.name is not None and self.factory is not None:
            raise ValueError("name and factory are both set; expected one of them")
        return self


class OptimizerConfig(Section):
    """A torch optimizer by name; further keywords go to it as they are."""

    name: str = "Adam"
    """A class of `torch.optim`."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Before scaling and schedule."""
    weight_decay: float = Field(default=0.0, ge=0)
    """As the optimizer of that name understands it."""
    scaling: Literal["none", "linear", "sqrt"] = "none"
    """How the learning rate grows with `global_batch_size / base_batch_size`; what comes out is written to the log."""
    base_batch_size: int = Field(default=256, ge=1)
    """The `global_batch_size` for which the learning rate is meant."""
    options: dict[str, Any] = {}
    """Further keywords of the optimizer."""
    factory: DottedName | None = None
    """`package.module:function(parameters, **options)` gives the optimizer, and it its own learning rates."""

    @model_validator(mode="after")
    def _factory_alone(self) -> OptimizerConfig:
        own = {name: getattr(self, name) for name in ("name", "learning_rate", "weight_decay", "scaling")}
        odd = [f"{name} {value}" for name, value in own.items() if value != type(self).model_fields[name].default]
        if self.factory is not None and odd:
            raise ValueError(
                f"factory is set beside {', '.join(odd)}; expected options only, which it gets as keywords"
            )
        return self


class ScheduleConfig(Section):
    """How the learning rate moves over all steps of the run; a pure function of the step."""

    name: Literal["constant", "cosine", "one_cycle", "step", "plateau"] = "constant"
    """The form; cosine falls towards zero, which it would reach one step after the last; one_cycle rises over three
    tenths of the steps from 1/25 of the rate to all of it, and falls to 1/250000 at the last."""
    warmup_fraction: float = Field(default=0.0, ge=0, lt=1)
    """The part of all steps over which the rate rises linearly from zero; one_cycle brings its own."""
    gamma: float = Field(default=0.1, gt=0, lt=1)
    """What `step` multiplies the rate by every `every_epochs`, and `plateau` after `patience` validations in vain."""
    every_epochs: int = Field(default=10, ge=1)
    """Epochs between two drops of `step`."""
    patience: int = Field(default=3, ge=1)
    """Validations without progress before `plateau` drops."""


class CheckpointConfig(Section):
    """When training state is saved; always at the end of an epoch too."""

    every_seconds: float = Field(default=600.0, gt=0)
    """Seconds from one to the next, about."""
    every_steps: int | None = Field(default=None, ge=1)
    """Steps from one to the next."""
    keep: int = Field(default=2, ge=2)
    """How many of the newest stay; the best one stays beside them."""


class LoaderConfig(Section):
    """How a rank reads its rows; nothing of it changes what is computed."""

    reader_threads: int = Field(default=1, ge=1)
    """Beside the thread that computes."""
    cache_bytes: int = Field(default=0, ge=0)
    """A split that takes no more stays in the memory of every rank: later epochs read nothing."""
    cache_folder: str | None = None
    """A folder on every host where the files of a remote dataset are kept; by default they go with the rank."""
    cache_folder_bytes: int | None = Field(default=None, ge=1)
    """Most bytes kept there; by default 2 GiB if they go with the rank, any number in a folder of that name."""


class TrainingConfig(Section):
    """How to train. A step takes the mean gradient over `global_batch_size` rows, the same however ranks and
    micro-batches divide them, but for layers such as batch norm and dropout. An epoch takes each row once, but for
    those that `last_batch: drop` leaves out. Which rows meet in a step depends on the number of ranks: each reads a
    stretch of the epoch of its own.
    """

    run_url: Url
    """The run folder: checkpoints, model, report. By default `<dataset.url>-run`."""
    epochs: int = Field(default=10, ge=1)
    """How often each row is seen."""
    seed: int = Field(default=0, ge=0)
    """Of first weights, dropout and the order of rows."""
    global_batch_size: int = Field(default=2048, ge=1)
    """Rows per optimizer step over all ranks."""
    micro_batch_size: int = Field(default=1024, ge=1)
    """Most rows in one forward on one rank, also in validation; accumulation follows from it."""
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    loss: DottedName | None = None
    """A function `(predictions, label, weight)` that gives the weighted SUM over the rows."""
    metrics: DottedName | None = None
    """A function `(predictions, label, weight)` that gives further weighted sums by name."""
    callback: DottedName | None = None
    """A function `(progress, metrics)` for after every validation, on every rank, within `cluster.deadlines.step`."""
    clip_norm: float | None = Field(default=None, gt=0)
    """The greatest norm of all gradients together."""
    clip_value: float | None = Field(default=None, gt=0)
    """The greatest size of one gradient."""
    l1: float = Field(default=0.0, ge=0)
    """Weight of the sum of absolute weights in the loss; `optimizer.weight_decay` is its squared brother."""
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(ge=0)]] | None = None
    """Factors of the row weights by class, in the loss (that of validation too); metrics are of the rows as they weigh
    in the data. `balanced` gives every class the same total in the train split."""
    init_from: ModelReference | None = None
    """A model folder, run folder or checkpoint, or `models:/<name>@<alias>` or `models:/<name>/<version>` of the
    registry, whose weights are the start; tensors of other shapes keep their random start, and the log names them."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Exponential moving average of the weights, used for validation and the model."""
    compression: Literal["none", "fp16", "bf16", "powersgd"] = "none"
    """How gradients travel: as they are, in 16 bits, or as factors of rank `compression_rank`."""
    compression_rank: int = Field(default=4, ge=1)
    """Of powersgd: more is closer to the gradients, and slower."""
    bucket_bytes: int = Field(default=4 << 20, ge=1024)
    """About how many bytes of gradients travel together."""
    last_batch: Literal["keep", "drop"] = "keep"
    """Whether the rows that fill no batch at the end of an epoch are used."""
    best_by: str = "auto"
    """The validation metric that chooses the best epoch; `auto` is roc_auc, or loss where there is none: the mean of
    what is minimized, with `class_weights`."""
    best_is: Literal["auto", "min", "max"] = "auto"
    """Whether the least or the greatest value of `best_by` is best; `auto` knows it of our own metrics."""
    early_stopping: int | None = Field(default=None, ge=1)
    """Stop after so many validations without a better one."""
    validate_every_steps: int | None = Field(default=None, ge=1)
    """Also inside an epoch; each of these validations can be the best one."""
    max_skipped_steps: int = Field(default=10, ge=0)
    """Most steps in a row that may be skipped because loss or gradient is not finite. Each epoch says how many were
    (`skipped_steps`); one without any other step ends training, as does a loss of validation that is never finite."""
    precision: Literal["float32", "float64", "bf16", "fp16"] = "float32"
    """bf16 and fp16: mixed precision, weights stay float32; fp16 with a loss scale that adapts."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU if the rank has one."""
    profile_steps: int = Field(default=0, ge=0)
    """So many steps of each rank go into a trace of torch's profiler below `<run>/profile`."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    loader: LoaderConfig = LoaderConfig()

    @model_validator(mode="before")
    @classmethod
    def _no_batch_size(cls, values: Any) -> Any:
        if isinstance(values, dict) and "batch_size" in values:
            raise ValueError(
                "batch_size is ambiguous; expected global_batch_size (rows per step over all ranks) "
                "and micro_batch_size (most rows in one forward on one rank)"
            )
        return values


class DeadlineConfig(Section):
    """Seconds after which a silent stage is an error instead of a hang."""

    launch: float = Field(default=300.0, gt=0)
    """For executors to come, and until all ranks have found each other."""
    step: float = Field(default=300.0, gt=0)
    """Without any rank making progress: a step, a batch of validation, or a whole callback."""
    silence: float = Field(default=60.0, gt=2)
    """Without a sign of life of a rank's process; it gives one every second."""
    stage: float = Field(default=7 * 86400.0, gt=0)
    """The whole training, with all its restarts; ranks save before they end."""
    save: float = Field(default=60.0, ge=0)
    """For ranks to save their state when training is stopped; a second Ctrl-C ends them at once."""


def _known_master(master: str) -> str:
    local = r"local(\[([1-9]\d*|\*)(, *[1-9]\d*)?\])?|local-cluster\[ *\d+ *, *\d+ *, *\d+ *\]"
    if master.startswith("local") and not re.fullmatch(local, master):
        raise ValueError(f"{master!r} is no master; expected local, local[cores] or local[*]")
    return master


class ClusterConfig(Section):
    """Where to run. An existing Spark session, or the master given to spark-submit, always wins over `master`."""

    master: Annotated[str, AfterValidator(_known_master)] = "local[2]"
    """`local[cores]`, `yarn`, or the URL of a stand-alone or Kubernetes master."""
    num_proc: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Ranks; `auto` takes every slot that the cluster has, once the executors that are to come are there."""
    min_proc: int | None = Field(default=None, ge=1)
    """A restart makes do with so many ranks when executors are gone; by default 1 with `auto`, else `num_proc`."""
    launcher: Literal["barrier", "horovod", "in_process"] = "barrier"
    """`barrier`: a Spark barrier stage; `horovod`: `horovod.spark.run`; `in_process`: one rank, for debugging."""
    collective: Literal["auto", "horovod", "torch"] = "auto"
    """What carries sums between ranks; `auto` takes Horovod where it is installed, else torch.distributed."""
    shared_memory: bool = True
    """Ranks that are all on one Linux host (no GPU, at most eight) exchange through its memory, and `collective` only
    brings them together; false where your code calls `horovod.torch` or `torch.distributed` by itself."""
    cores_per_rank: CoresPerRank = "task"
    """Cores of a rank, and its threads: `task` is `spark.task.cpus`; a number, or `executor` for all of an executor's
    and its memory with them, while the other stages keep to tasks of `spark.task.cpus`."""
    horovod_timeline: bool = False
    """Horovod writes when it summed what, for all ranks, below `<run>/timeline`; takes a core of rank 0's."""
    spark: dict[str, str] = {}
    """Spark settings for the session that we create."""
    max_failures: int = Field(default=3, ge=0)
    """How many times training restarts by itself after a rank was killed or hung."""
    max_preemptions: int = Field(default=20, ge=0)
    """How many times it restarts after an executor was taken away."""
    deadlines: DeadlineConfig = DeadlineConfig()

    @model_validator(mode="after")
    def _agreed(self) -> ClusterConfig:
        if self.num_proc != "auto" and self.min_proc is not None and self.min_proc > self.num_proc:
            raise ValueError(f"min_proc is {self.min_proc}; expected at most num_proc={self.num_proc}")
        if self.launcher == "horovod" and self.collective == "torch":
            raise ValueError("collective is torch with launcher horovod; expected horovod or auto; or use barrier")
        if self.launcher == "horovod" and self.cores_per_rank != "task":
            raise ValueError(
                f"cores_per_rank is {self.cores_per_rank} with launcher horovod, which takes slots of spark.task.cpus; "
                "expected task; or use barrier"
            )
        if self.horovod_timeline and (self.collective == "torch" or self.launcher == "in_process"):
            other = "launcher in_process" if self.launcher == "in_process" else "collective torch"
            raise ValueError(f"horovod_timeline is true with {other}; expected false; or let Horovod carry the sums")
        return self

    @property
    def known_ranks(self) -> int | None:
        """The number of ranks to begin with; None where the cluster decides."""
        if self.launcher == "in_process":
            return 1
        return None if self.num_proc == "auto" else self.num_proc

    @property
    def fewest_ranks(self) -> int:
        """The smallest number of ranks that training may go on with."""
        return self.min_proc or (1 if self.num_proc == "auto" else self.num_proc)
