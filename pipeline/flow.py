"""DRIVER. The stages as functions for notebooks and programs; the command line does the same work.

Each stage starts from the files that the one before left, and returns at once when its own are there already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.config import PipelineConfig, with_sections
from pipeline.dataset import Dataset
from pipeline.errors import UsageError
from pipeline.spark_on_demand import SparkOnDemand as SparkOnDemand
from pipeline.spark_on_demand import spark_session as spark_session
from pipeline.stage_values import Evaluated, Model, Run
from pipeline.stage_work import evaluate_stage, prepare_rows, prepare_stage, register_stage, train_stage
from pipeline.status_file import StatusFile
from pipeline.task import UserCode

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def prepare(
    table: PipelineConfig | DataFrame,
    /,
    config: PipelineConfig | Mapping[str, Any] | None = None,
    *,
    spark: SparkSession | None = None,
    progress: bool | None = None,
    **sections: Any,
) -> Dataset:
    """Clean, split, encode and publish a table as a dataset.

    Args:
        table: a configuration that names its inputs, or a DataFrame, which takes the place of them.
        config: with a DataFrame, the configuration; or give its sections as keywords:
            ``prepare(df, features={...}, label={...}, dataset={...}, source={"id": [...]})``.
        spark: the session; by default the DataFrame's, the active one, or our own.
        progress: whether to show what goes on; by default in a notebook and on a terminal.
        **sections: sections of the configuration, laid over a given one.

    Raises:
        UsageError: there are two configurations, or the table is of another kind.
        DataError: the data cannot be used; says why, with counts.
        StorageError: reading or writing failed.
    """
    from pipeline.launch.progress import narrated

    if not isinstance(table, PipelineConfig):
        _check_frame("prepare", table, "a Spark DataFrame or a configuration")
        with narrated(progress) as shown:
            made = with_sections(config or {}, sections)
            return prepare_rows(made, spark or table.sparkSession, table, quiet=not shown)
    if config is not None:
        raise UsageError("prepare is given two configurations; expected one; give what differs as keywords")
    config = with_sections(table, sections)
    with narrated(progress) as shown, SparkOnDemand(config, spark, for_inputs=True) as session:
        return prepare_stage(config, session, quiet=not shown)[0]


def _check_frame(verb: str, table: Any, expected: str) -> None:
    if not hasattr(table, "sparkSession"):
        raise UsageError(
            f"{verb} is given a {type(table).__module__}.{type(table).__qualname__}; expected {expected}; of a pandas "
            "DataFrame make one by spark.createDataFrame"
        )


def train(
    source: Dataset | PipelineConfig,
    /,
    *,
    model: Callable[..., Any] | str | None = None,
    loss: Callable[..., Any] | None = None,
    optimizer: Callable[..., Any] | Mapping[str, Any] | None = None,
    metrics: Callable[..., Any] | None = None,
    callback: Callable[..., Any] | None = None,
    loop: Callable[..., Any] | None = None,
    spark: SparkSession | None = None,
    cluster: Mapping[str, Any] | None = None,
    tracking: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    progress: bool | None = None,
    **training: Any,
) -> Run:
    """Train on every rank of the cluster, and leave the best epoch's model in the run folder.

    Args:
        source: a prepared dataset, or a configuration whose dataset is published already; keywords are laid over it.
        model: ``model(schema, **options)`` gives a ``torch.nn.Module`` whose forward takes the dict of inputs;
            classes and functions of a notebook cell work. Or the name of a built-in architecture, which takes the
            place of the configured one, its options included.
        loss: ``loss(predictions, label, weight)`` gives the weighted sum over the rows.
        optimizer: ``optimizer(parameters)`` gives a torch optimizer; or keys of the ``training.optimizer`` section.
        metrics: ``metrics(predictions, label, weight)`` gives further weighted sums by name.
        callback: ``callback(progress, metrics)`` after every validation, on every rank; for one that takes longer
            than ``cluster.deadlines.step``, raise that.
        loop: ``loop(context)`` instead of the built-in loop: it trains ``context.model()``, the one of ``model``, with
            a loss, an optimizer and metrics of its own, see `pipeline.training.own_loop`.
        cluster: keys of the ``cluster`` section, such as ``{"num_proc": 2}``.
        spark: the session; by default the active one, or our own.
        tracking: keys of the ``tracking`` section.
        options: keywords for the model.
        progress: whether to show epochs, and what rank 0 prints; by default in a notebook and on a terminal.
        **training: keys of the ``training`` section, such as ``epochs=5``.

    Raises:
        RankFailedError: the model's code failed; shows the first failing rank's traceback.
        InterruptedRunError: stopped; the same call resumes.
    """
    if isinstance(optimizer, Mapping):
        training["optimizer"], optimizer = dict(optimizer), None
    named = {"name": model} if isinstance(model, str) else {}
    architecture = {**named, **({"options": options} if options else {})}
    sections = {"model": architecture, "training": training, "cluster": cluster, "tracking": tracking}
    config = with_sections(
        source if isinstance(source, PipelineConfig) else _data_sections(source),
        {name: dict(section) for name, section in sections.items() if section},
        anew=["model"] if named else [],
    )
    dataset = source if isinstance(source, Dataset) else Dataset.open(config.dataset.url)
    code = UserCode(None if isinstance(model, str) else model, loss, optimizer, metrics, callback, loop)
    from pipeline.launch.progress import narrated

    with narrated(progress) as shown, SparkOnDemand(config, spark) as session:
        return train_stage(config, dataset, session, code, quiet=not shown)


def _data_sections(dataset: Dataset) -> dict[str, Any]:
    """The configuration of a training as far as its dataset says it, and the model that is taken if none is named."""
    features, label = dataset.manifest.semantic["features"], dataset.manifest.semantic["label"]
    return {"features": features, "label": label, "dataset": {"url": dataset.url}, "model": {"name": "tabular"}}


def evaluate(run: Run, *, spark: SparkSession | None = None, progress: bool | None = None) -> Evaluated:
    """Measure a run's model on the test split, beside baselines on the very same rows; ``progress`` as of `train`."""
    from pipeline.launch.progress import narrated

    status = StatusFile(run.url, goes_on=True)
    with narrated(progress), status.stage("evaluate"), SparkOnDemand(run.config, spark) as session:
        return evaluate_stage(run, session)


def register(evaluated: Evaluated) -> Model:
    """Put a model that meets its gate into the MLflow registry, and move the alias to it.

    Without ``tracking.registered_model`` nothing is registered, and the model is that of the run folder.

    Raises:
        GateError: a metric of the test split misses its bound; nothing is registered.
    """
    return register_stage(evaluated, StatusFile(evaluated.run.url, goes_on=True))


def score(frame: DataFrame, model: Model | Run | str, *, allow_factories: Sequence[str] = ()) -> DataFrame:
    """Append ``prediction``, of classes its ``probability``, and ``model_version`` to every row of raw columns.

    With several labels there is a ``prediction_<label>`` of each.

    Args:
        frame: at least the raw columns that the model's features need.
        model: what a stage gave, or the URL of a model folder.
        allow_factories: ``package.module:function`` names that a model may import beside those of its configuration.

    Raises:
        UsageError: the table is of another kind.
        DataError: columns are missing, or one has the name of a new one.
        StorageError: the model is corrupt.
    """
    _check_frame("score", frame, "a Spark DataFrame")
    from pipeline.inference.score import score as score_frame

    if isinstance(model, str):
        return score_frame(frame, model, allow_factories)
    url = model.model_url if isinstance(model, Run) else model.url
    return score_frame(frame, url, (*model.allow_factories, *allow_factories))
