"""DRIVER. The stages as functions for notebooks and programs; the command line runs the very same ones.

Each stage starts from the files that the one before left, and returns at once when its own are there already.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline import storage
from pipeline.before_launch import check_training
from pipeline.config import PipelineConfig, with_sections
from pipeline.dataset import Dataset
from pipeline.dataset.holds import hold
from pipeline.errors import StorageError, UsageError
from pipeline.run_folder import RunFolder
from pipeline.spark_on_demand import SparkOnDemand as SparkOnDemand
from pipeline.spark_on_demand import spark_session as spark_session
from pipeline.stack import chosen_by, collective_of, reader_of
from pipeline.stage_values import Evaluated, Model, Run
from pipeline.starting_point import with_starting_point
from pipeline.status_file import StatusFile
from pipeline.task import TrainingTask, UserCode

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

logger = logging.getLogger(__name__)


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
        UsageError: there are two configurations.
        DataError: the data cannot be used; says why, with counts.
        StorageError: reading or writing failed.
    """
    from pipeline.launch.progress import narrated

    if not isinstance(table, PipelineConfig):
        from pipeline.preparation.prepare import prepare_dataset

        with narrated(progress):
            return prepare_dataset(spark or table.sparkSession, with_sections(config or {}, sections), table)
    if config is not None:
        raise UsageError("prepare is given two configurations; expected one; give what differs as keywords")
    config = with_sections(table, sections)
    with narrated(progress), SparkOnDemand(config, spark, for_inputs=True) as session:
        return prepare_stage(config, session)[0]


def prepare_stage(
    config: PipelineConfig, session: Callable[[], SparkSession], status: StatusFile | None = None
) -> tuple[Dataset, bool]:
    """The dataset of a configuration, and whether it had been published before; the status tells the step."""
    from pipeline.preparation.prepare import log_steps, prepare_dataset, published

    def told(step: str, done: int, total: int) -> None:
        log_steps(step, done, total)
        if status is not None:
            status.update(at_once=total == 0, doing=step, done=done, total=total)

    if (dataset := published(config)) is not None:
        logger.info("prepare: already published as %s", dataset.content_id[:12])
        return dataset, True
    return prepare_dataset(session(), config, progress=told), False


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


def train_stage(
    config: PipelineConfig,
    dataset: Dataset,
    session: SparkOnDemand,
    code: UserCode | None = None,
    *,
    quiet: bool = True,
    status: StatusFile | None = None,
) -> Run:
    """Train, or give the finished run of the very same training."""
    status = status or StatusFile(config.training.run_url)
    with status.stage("train", "starting"):
        return _trained(config, dataset, session, code or UserCode(), quiet, status)


def _trained(
    config: PipelineConfig, dataset: Dataset, session: SparkOnDemand, code: UserCode, quiet: bool, status: StatusFile
) -> Run:
    started = with_starting_point(config)
    task = _task(started, dataset, code)
    folder = RunFolder(config.training.run_url)
    if (finished := folder.finished(task)) is not None:
        logger.info("train: already trained in %s", folder.url)
        return Run(config, dataset, *finished, reused=True)
    stack = {"collective": collective_of(config.cluster), "reader": reader_of(config.dataset.reader)}
    folder.refuse_other_training(task)
    check_training(started, dataset, code)

    from pipeline.inference.predictor import export_model
    from pipeline.launch import launch_training
    from pipeline.lease import Lease
    from pipeline.tracking import Tracker
    from pipeline.training.checkpoint import read_weights

    with Lease(folder.url) as lease, hold(dataset), Tracker(config.tracking, folder.url) as tracker:
        folder.begin(task, config)
        tracker.parameters(config, dataset, stack)
        logger.info("train: part files are read with %s", chosen_by(config.dataset.reader, stack["reader"]))
        spark = None if config.cluster.launcher == "in_process" else session()
        result = launch_training(spark, task, config.cluster, tracker=tracker, status=status, quiet=quiet)
        weights = read_weights(result.best_checkpoint)
        lease.check()
        export_model(dataset, config.model, weights, storage.join(folder.url, "model"), code, made_with=stack)
        lease.check()
        folder.finish(task, result, tracker.run_id)
    return Run(config, dataset, result, tracker.run_id)


def _task(config: PipelineConfig, dataset: Dataset, code: UserCode) -> TrainingTask:
    reader = config.dataset.reader
    return TrainingTask(dataset.url, dataset.content_id, config.model, config.training, code, reader=reader)


def finished_run(config: PipelineConfig, dataset: Dataset) -> Run:
    """The finished run in the configuration's run folder.

    Raises:
        StorageError: it is not finished, or is of another configuration.
    """
    folder = RunFolder(config.training.run_url)
    if (finished := folder.finished(_task(with_starting_point(config), dataset, UserCode()))) is None:
        raise StorageError(
            f"{folder.url} holds no finished training of this configuration; expected one; run `pipeline train` first"
        )
    return Run(config, dataset, *finished, reused=True)


def evaluate(run: Run, *, spark: SparkSession | None = None, progress: bool | None = None) -> Evaluated:
    """Measure a run's model on the test split, beside baselines on the very same rows; ``progress`` as of `train`."""
    from pipeline.launch.progress import narrated

    status = StatusFile(run.url, goes_on=True)
    with narrated(progress), status.stage("evaluate"), SparkOnDemand(run.config, spark) as session:
        return evaluate_stage(run, session)


def evaluate_stage(run: Run, session: SparkOnDemand) -> Evaluated:
    """Evaluate, or give the evaluation that the run folder holds of this very model."""
    from pipeline.inference.evaluate import Evaluation
    from pipeline.inference.evaluate import evaluate as evaluate_predictor
    from pipeline.inference.predictor import Predictor

    url = storage.join(run.url, "evaluation.json")
    predictor = Predictor.load(run.model_url, allow_factories=run.allow_factories)
    request = storage.sha256_of(
        {"model": predictor.digest, "dataset": run.dataset.content_id, "options": run.config.evaluation.model_dump()}
    )
    if storage.exists(url):
        value = storage.read_json(url, *Evaluation.FORMAT)
        if value.get("request") == request:
            logger.info("evaluate: already evaluated in %s", url)
            return Evaluated(run, Evaluation.from_json(value), reused=True)
    with hold(run.dataset):
        found = evaluate_predictor(run.dataset, predictor, run.config.evaluation, spark=session)
    evaluation = dataclasses.replace(found, request=request)
    storage.write_json(url, *Evaluation.FORMAT, evaluation.to_json())
    return Evaluated(run, evaluation)


def register(evaluated: Evaluated) -> Model:
    """Put a model that meets its gate into the MLflow registry, and move the alias to it.

    Raises:
        GateError: a metric of the test split misses its bound; nothing is registered.
    """
    return register_stage(evaluated, StatusFile(evaluated.run.url, goes_on=True))


def register_stage(evaluated: Evaluated, status: StatusFile) -> Model:
    """The same as a part of a command."""
    from pipeline.inference.gate import check_gate

    with status.command("register"):
        with status.stage("gate"):
            check_gate(evaluated.metrics, evaluated.run.config.gate)
        with status.stage("register"):
            return _registered(evaluated)


def _registered(evaluated: Evaluated) -> Model:
    from pipeline.tracking import register_model

    run = evaluated.run
    tracking, allowed = run.config.tracking, run.allow_factories
    if tracking.registered_model is None:
        logger.info("register: nothing is registered: tracking.registered_model is not set")
        return Model(run.model_url, allow_factories=allowed)
    version = register_model(tracking, run.url, run.mlflow_run_id, evaluated.metrics, allow_factories=allowed)
    return Model(run.model_url, tracking.registered_model, version, allowed)


def score(frame: DataFrame, model: Model | Run | str, *, allow_factories: Sequence[str] = ()) -> DataFrame:
    """Append ``prediction`` and ``probability``, or those of each label, to every row of a table of raw columns.

    Args:
        frame: at least the raw columns that the model's features need.
        model: what a stage gave, or the URL of a model folder.
        allow_factories: ``package.module:function`` names that a model may import beside those of its configuration.
    """
    from pipeline.inference.score import score as score_frame

    if isinstance(model, str):
        return score_frame(frame, model, allow_factories)
    url = model.model_url if isinstance(model, Run) else model.url
    return score_frame(frame, url, (*model.allow_factories, *allow_factories))
