"""DRIVER. What a training asks for, tried here first: what is wrong with it is found before Spark starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config import PipelineConfig
from pipeline.config.agreement import check_best_by, check_best_is, check_validation
from pipeline.config.training import TrainingConfig
from pipeline.dataset import Dataset
from pipeline.task import UserCode

if TYPE_CHECKING:
    from torch import nn


def check_training(config: PipelineConfig, dataset: Dataset, code: UserCode) -> None:
    """Send one small batch through the model, build its optimizer, and look up what settings name in the dataset.

    Of a loop from code only the model is tried: loss, optimizer and metrics are its own affair.

    Raises:
        ConfigError: says what is wrong.
    """
    from pipeline.inference.predictor import check_exportable
    from pipeline.models.dry_run import dry_run
    from pipeline.training.checkpoint import published_steps
    from pipeline.training.dry_batch import refuse_lone_row
    from pipeline.training.own_loop.settings import refuse_without_effect
    from pipeline.training.warm_start import fitting_tensors

    training = config.training
    if code.loop is not None:
        refuse_without_effect(training, code)
    else:
        code = code.with_named(training)
    if code.loop is None and code.metrics is None:
        check_best_by(training.best_by, dataset.schema.label_type, dataset.schema.labels)
    check_best_is(training.best_by, training.best_is, dataset.schema.labels)
    model = dry_run(config.model, dataset.schema, code)
    if training.init_from is not None and not published_steps(training.run_url):
        fitting_tensors(model, training.init_from)
    if code.loop is None:
        _check_built_in_loop(training, dataset, code, model)
        if (ranks := config.cluster.known_ranks) is not None:
            refuse_lone_row(lambda: model, dataset.schema, training, dataset.manifest.rows("train"), ranks)
    check_exportable(config.model, dataset.schema, code, training.micro_batch_size)


def _check_built_in_loop(config: TrainingConfig, dataset: Dataset, code: UserCode, model: nn.Module) -> None:
    from pipeline.training.dry_batch import dry_step, dry_validation
    from pipeline.training.objectives import build_objective, choose_metric, class_weight_table
    from pipeline.training.optimizers import build_optimizer

    check_validation(config, dataset.manifest.rows("validation") if "validation" in dataset.manifest.splits else 0)
    class_weight_table(dataset.schema, config.class_weights, dataset.manifest.class_counts.get("train", {}))
    optimizer = build_optimizer(config.optimizer, model.parameters(), code.optimizer)
    objective = build_objective(dataset.schema, code.loss, code.metrics, dataset.manifest.statistics.get("label"))
    metrics = dry_validation(model, objective, dataset.schema)
    choose_metric(config.best_by, objective, {"loss": 0.0, **metrics})
    if code.optimizer is not None or config.optimizer.options:
        dry_step(model, objective, optimizer, dataset.schema)
