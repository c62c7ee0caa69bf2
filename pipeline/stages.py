"""DRIVER. What the command line and the jobs run: the flow's stages in order, timed, with one result for all."""

from __future__ import annotations

import json
import logging
import os
import shlex
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipeline import flow, stage_work, storage
from pipeline.before_launch import check_training
from pipeline.before_stages import check_stages
from pipeline.config import PipelineConfig
from pipeline.dataset import Dataset, commit_numbers
from pipeline.errors import GateError, InputMissingError, OutputError, refuse_together
from pipeline.outcome import Outcome
from pipeline.run_folder import CONFIG, EVALUATION, REPORT, is_run_folder
from pipeline.stage_values import Evaluated, Run
from pipeline.starting_point import with_starting_point
from pipeline.task import UserCode

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)


def run(config: PipelineConfig, *, spark: SparkSession | None = None) -> dict[str, Any]:
    """The whole flow; returns the values of the RESULT line."""
    return run_stage(config, "run", spark=spark)


def run_stage(
    config: PipelineConfig,
    last: str,
    *,
    spark: SparkSession | None = None,
    quiet: bool = True,
    reached: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Run one stage (``prepare``, ``train``, ``evaluate``) from what the one before left, or all of them (``run``).

    Args:
        config: the configuration.
        last: the stage.
        spark: the session; by default the active one, or our own.
        quiet: whether no progress is shown.
        reached: the dict to note in what is reached, see `Outcome`.

    Returns:
        The values of the RESULT line, which are in ``<run>/result.json`` too, beside what earlier commands reached
        there. What is refused before a stage begins leaves the run folder as it is, as does a command that turns out
        to ask for another training than the finished one there.
    """
    check_stages(config, last)
    published = Dataset.open(config.dataset.url) if last in ("train", "evaluate") else None
    trained = _trained_before(config, last, published)
    outcome = Outcome(config, last, goes_on=last == "prepare" or trained is not None, values=reached)
    with outcome.written() as values, flow.SparkOnDemand(config, spark, for_inputs=True) as session:
        opened = _fit_to_train(session, config) if last == "run" else session
        dataset = published or _prepare(config, opened, outcome, quiet)
        outcome.dataset(dataset)
        run = trained if last == "evaluate" else None
        if last in ("train", "run"):
            run = _train(config, dataset, session, outcome, quiet)
        if run is not None:
            outcome.run(run)
        if run is not None and last != "train":
            _evaluate(run, session, outcome)
        values["stage"] = last
    return values


def _trained_before(config: PipelineConfig, last: str, published: Dataset | None) -> Run | None:
    """The training that is there already, as far as it is known before a stage begins; another one is refused."""
    if published is None:
        if last == "run":
            stage_work.refuse_other_training(config)
        return None
    return (stage_work.finished_run if last == "evaluate" else stage_work.found_run)(config, published)


def _fit_to_train(session: flow.SparkOnDemand, config: PipelineConfig) -> Callable[[], SparkSession]:
    """The session, looked at before hours of preparation: ranks that it cannot carry end the run at once."""

    def opened() -> SparkSession:
        from pipeline.launch.cluster import refuse_unfit

        spark = session()
        refuse_unfit(spark, config.cluster)
        return spark

    return opened


def _prepare(config: PipelineConfig, session: Callable[[], SparkSession], outcome: Outcome, quiet: bool) -> Dataset:
    with outcome.stage("prepare"):
        dataset, reused = stage_work.prepare_stage(config, session, outcome.status, quiet)
    rows = dataset.manifest.accounting
    logger.info(
        "prepare: %d rows in = %d published + %d duplicates + %d rejected %s",
        *(rows.rows_in, rows.published, rows.duplicates, rows.rejected, dict(rows.reasons) or ""),
    )
    if reused:
        outcome.reused("prepare")
    return dataset


def _train(config: PipelineConfig, dataset: Dataset, session: flow.SparkOnDemand, outcome: Outcome, quiet: bool) -> Run:
    with outcome.stage("train"):
        run = stage_work.train_stage(config, dataset, session, quiet=quiet, status=outcome.status)
    if run.reused:
        outcome.reused("train")
    return run


def _evaluate(run: Run, session: flow.SparkOnDemand, outcome: Outcome) -> None:
    """Evaluate, then register if the gate allows it; the report is written in any case."""
    with outcome.stage("evaluate"):
        evaluated = stage_work.evaluate_stage(run, session)
    outcome.evaluated(evaluated)
    if evaluated.reused:
        outcome.reused("evaluate")
    try:
        with outcome.stage("register"):
            outcome.model(stage_work.register_stage(evaluated, outcome.status))
    except GateError as error:
        outcome.values |= error.outcome
        _report(run, evaluated, outcome)
        outcome.values["stage"] = "register"
        raise
    _report(run, evaluated, outcome)


def _report(run: Run, evaluated: Evaluated, outcome: Outcome) -> None:
    """Write the report, unless there is one and nothing that it tells is new."""
    url = storage.join(run.url, REPORT)
    outcome.values["report"] = url
    if evaluated.reused and storage.exists(url) and outcome.ends_as_before():
        return
    with outcome.stage("report"):
        _render(run.url, outcome.of_run())
        _track(run, evaluated)


def _track(run: Run, evaluated: Evaluated) -> None:
    """Test metrics and files to the MLflow run; a tracking server that is down costs a warning."""
    from pipeline.tracking import log_results

    files = [storage.join(run.url, name) for name in (REPORT, EVALUATION, CONFIG)]
    log_results(run.config.tracking, run.url, evaluated.metrics, files)


def write_report(run_url: str) -> str:
    """Write ``<run>/report.html`` from what the run folder holds; returns its URL.

    Raises:
        InputMissingError: it is no run folder; nothing is written.
        StorageError: a file in it is corrupt.
    """
    if not is_run_folder(storage.list_names(run_url)):
        raise InputMissingError(f"{run_url} is no run folder; expected one; check training.run_url")
    return _render(run_url, None)


def _render(run_url: str, values: dict[str, Any] | None) -> str:
    from pipeline.report import render_report

    url = storage.join(run_url, REPORT)
    storage.write_bytes(url, render_report(run_url, values).encode())
    return url


def dry_run(config: PipelineConfig, stage: str, show: Callable[[str], None]) -> dict[str, Any]:
    """Say what a stage would do and with which resources; writes nothing."""
    from pipeline.launch.estimate import refuse_unfit_settings

    trains, prepares = stage in ("train", "run"), stage in ("prepare", "run")
    checks = [lambda: check_stages(config, stage)]
    if trains:
        checks.append(lambda: refuse_unfit_settings(config.cluster))
    if stage == "train" and commit_numbers(config.dataset.url):
        checks.append(lambda: _try_training(config, Dataset.open(config.dataset.url)))
    refuse_together(*checks)
    values: dict[str, Any] = {"status": "dry run", "stage": stage}
    dataset = _preview(config, values, show) if prepares else Dataset.open(config.dataset.url)
    if dataset is not None:
        values["dataset"] = {"url": dataset.url, "content_id": dataset.content_id}
        values["rows"] = dataset.manifest.accounting.as_rows()
        if stage == "run":
            _try_training(config, dataset)
    if trains:
        show(f"train: run folder {config.training.run_url}")
        if dataset is None:
            show("train: resources are known when the dataset is published")
        else:
            values["resources"] = _resources(config, dataset, show)
    return values


def _try_training(config: PipelineConfig, dataset: Dataset) -> None:
    with tempfile.TemporaryDirectory() as kept:
        check_training(with_starting_point(config, kept), dataset, UserCode())


def _preview(config: PipelineConfig, values: dict[str, Any], show: Callable[[str], None]) -> Dataset | None:
    """The dataset if it is published already; else what a sample of the rows says."""
    from pipeline.preparation.prepare import published
    from pipeline.preparation.preview import preview

    if (dataset := published(config)) is not None:
        show(f"prepare: already published in {config.dataset.url} as {dataset.content_id}")
        return dataset
    with (
        tempfile.TemporaryDirectory() as folder,
        flow.SparkOnDemand(config, for_inputs=True, workspace=folder) as session,
    ):
        values["preview"] = preview(session(), config)
    for name, value in values["preview"].items():
        show(f"prepare: {name}: {json.dumps(value, default=str)}")
    return None


def _resources(config: PipelineConfig, dataset: Dataset, show: Callable[[str], None]) -> list[str]:
    from pipeline.launch.estimate import resource_report

    lines = resource_report(dataset, config.model, config.training, config.cluster).lines()
    for line in lines:
        show(f"train: {line}")
    return lines


def propose_config(data: str, target: str, label: str | None, show: Callable[[str], None]) -> dict[str, Any]:
    """Write a commented configuration for a table, which runs as it is, and say what was chosen and what comes next.

    Raises:
        OutputError: the file exists.
        InputMissingError: there is no table.
        DataError: no column can be the label, or none a feature.
    """
    from pipeline.config.training import ClusterConfig
    from pipeline.launch.session import spark_session
    from pipeline.preparation.propose import check_table, propose

    taken = OutputError(f"{target} exists; expected a new file; choose another name or remove it")
    if storage.exists(target):
        raise taken
    check_table(data)
    folder = storage.resolve(storage.join(target, ".."), os.getcwd())
    with tempfile.TemporaryDirectory() as workspace, spark_session(ClusterConfig(), workspace) as session:
        proposal = propose(session, data, label, folder)
    if not storage.put_if_absent(target, proposal.text(folder).encode()):
        raise taken
    for line in proposal.lines():
        show(line)
    next_ = f"pipeline run {shlex.quote(target)}"
    show(f"next: {next_} --dry-run, then {next_}")
    chosen = {"label": proposal.label, "type": proposal.label_type, "id": list(proposal.ids), "split": proposal.split}
    return {"config": target, **chosen, "features": list(proposal.features), "next": next_}


def score_table(
    config: PipelineConfig, source: str, target: str, *, model: str | None = None, spark: SparkSession | None = None
) -> dict[str, Any]:
    """Score a table of raw rows with a registered model or a model folder, into a Parquet folder."""
    from pipeline.inference.score import score_table as score_into

    with flow.SparkOnDemand(config, spark) as session:
        return score_into(session, config, source, target, model)
