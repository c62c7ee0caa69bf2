"""DRIVER. What each stage does, for programs and for the command alike: its work, or the finds of the last time.

A stage is given what the one before left, and the session as something to ask for, which it does only if it has to.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline import storage
from pipeline.before_launch import check_training
from pipeline.config import PipelineConfig
from pipeline.dataset import Dataset
from pipeline.dataset.holds import hold, mark_run
from pipeline.errors import InputMissingError
from pipeline.run_folder import EVALUATION, MODEL, RunFolder
from pipeline.spark_on_demand import SparkOnDemand
from pipeline.stack import chosen_by, collective_of, reader_of
from pipeline.stage_values import Evaluated, Model, Run
from pipeline.starting_point import with_starting_point
from pipeline.status_file import StatusFile
from pipeline.task import TrainingTask, UserCode

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

logger = logging.getLogger(__name__)


def prepare_stage(
    config: PipelineConfig, session: Callable[[], SparkSession], status: StatusFile | None = None, quiet: bool = True
) -> tuple[Dataset, bool]:
    """The dataset of a configuration, and whether it had been published before; the status tells the step."""
    from pipeline.preparation.prepare import published

    if (dataset := published(config)) is not None:
        logger.info("prepare: already published as %s", dataset.content_id[:12])
        return dataset, True
    return prepare_rows(config, session(), None, status, quiet), False


def prepare_rows(
    config: PipelineConfig,
    session: SparkSession,
    frame: DataFrame | None,
    status: StatusFile | None = None,
    quiet: bool = True,
) -> Dataset:
    """Prepare a dataset; the log tells the steps, a terminal beside it the tasks of Spark, and the status both."""
    from pipeline.launch.progress import ProgressDisplay
    from pipeline.preparation.prepare import log_steps, prepare_dataset

    with ProgressDisplay("prepare", quiet) as display:

        def told(step: str, done: int, total: int) -> None:
            log_steps(step, done, total)
            display.tasks(step, done, total)
            if status is not None:
                status.update(at_once=total == 0, doing=step, done=done, total=total)

        return prepare_dataset(session, config, frame, progress=told)


def train_stage(
    config: PipelineConfig,
    dataset: Dataset,
    session: SparkOnDemand,
    code: UserCode | None = None,
    *,
    quiet: bool = True,
    status: StatusFile | None = None,
) -> Run:
    """Train, or give the finished run of the very same training; what is refused leaves the folder as it is."""
    code = code or UserCode()
    started = with_starting_point(config)
    task = _task(started, dataset.url, dataset.content_id, code)
    if (run := _found_run(config, dataset, task)) is not None:
        logger.info("train: already trained in %s", run.url)
        if status is not None:
            status.found()
        return run
    check_training(started, dataset, code)
    status = status or StatusFile(config.training.run_url)
    with status.stage("train", "starting"):
        return _trained(config, dataset, session, task, quiet, status)


def _trained(
    config: PipelineConfig,
    dataset: Dataset,
    session: SparkOnDemand,
    task: TrainingTask,
    quiet: bool,
    status: StatusFile,
) -> Run:
    from pipeline.inference.predictor import export_model
    from pipeline.launch import launch_training
    from pipeline.lease import Lease
    from pipeline.tracking import Tracker
    from pipeline.training.checkpoint import read_weights

    folder = RunFolder(config.training.run_url)
    stack = {"collective": collective_of(config.cluster), "reader": reader_of(config.dataset.reader)}
    with Lease(folder.url) as lease, hold(dataset), Tracker(config.tracking, folder.url) as tracker:
        status.owned()
        folder.begin(task, config)
        mark_run(dataset, folder.url)
        tracker.parameters(config, dataset, stack)
        logger.info("train: part files are read with %s", chosen_by(config.dataset.reader, stack["reader"]))
        spark = None if config.cluster.launcher == "in_process" else session()
        result = launch_training(spark, task, config.cluster, tracker=tracker, status=status, quiet=quiet)
        weights = read_weights(result.best_checkpoint)
        lease.check()
        model_url = storage.join(folder.url, MODEL)
        export_model(dataset, config.model, weights, model_url, task.user_code, made_with=stack)
        lease.check()
        folder.finish(task, result, tracker.run_id)
    return Run(config, dataset, result, tracker.run_id)


def _task(config: PipelineConfig, dataset_url: str, content_id: str, code: UserCode) -> TrainingTask:
    reader = config.dataset.reader
    return TrainingTask(dataset_url, content_id, config.model, config.training, code, reader=reader)


def _configured_task(config: PipelineConfig, content_id: str) -> TrainingTask:
    return _task(with_starting_point(config), config.dataset.url, content_id, UserCode())


def found_run(config: PipelineConfig, dataset: Dataset) -> Run | None:
    """The finished run of this very configuration, if the run folder holds it.

    Raises:
        ConfigError: the folder holds another training, finished or not; names everything that differs.
    """
    return _found_run(config, dataset, _configured_task(config, dataset.content_id))


def _found_run(config: PipelineConfig, dataset: Dataset, task: TrainingTask) -> Run | None:
    folder = RunFolder(config.training.run_url)
    folder.refuse_other_training(task)
    finished = folder.finished(task)
    return None if finished is None else Run(config, dataset, *finished, reused=True)


def refuse_other_training(config: PipelineConfig) -> None:
    """Make sure that the run folder does not hold another training, whichever dataset there will be.

    Raises:
        ConfigError: it does; names everything that differs.
    """
    folder = RunFolder(config.training.run_url)
    if (content_id := folder.content_id()) is not None:
        folder.refuse_other_training(_configured_task(config, content_id))


def finished_run(config: PipelineConfig, dataset: Dataset) -> Run:
    """The finished run in the configuration's run folder.

    Raises:
        InputMissingError: it is not finished, or is of another configuration.
    """
    folder = RunFolder(config.training.run_url)
    if (finished := folder.finished(_configured_task(config, dataset.content_id))) is None:
        raise InputMissingError(
            f"{folder.url} holds no finished training of this configuration; expected one; run `pipeline train` first"
        )
    return Run(config, dataset, *finished, reused=True)


def evaluate_stage(run: Run, session: SparkOnDemand) -> Evaluated:
    """Evaluate, or give the evaluation that the run folder holds of this very model."""
    from pipeline.inference.evaluate import Evaluation
    from pipeline.inference.evaluate import evaluate as evaluate_predictor
    from pipeline.inference.predictor import Predictor

    url = storage.join(run.url, EVALUATION)
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


def register_stage(evaluated: Evaluated, status: StatusFile) -> Model:
    """Register a model that meets its gate, as a part of a command."""
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
    version = register_model(tracking, run.url, evaluated.metrics, allow_factories=allowed)
    return Model(run.model_url, tracking.registered_model, version, allowed)
