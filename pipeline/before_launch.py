"""DRIVER. What a training asks for, tried here first: what is wrong with it is found before Spark starts."""

from __future__ import annotations

from pipeline.config import PipelineConfig
from pipeline.config.agreement import check_best_by, check_best_is, check_validation
from pipeline.dataset import Dataset
from pipeline.task import UserCode


def check_training(config: PipelineConfig, dataset: Dataset, code: UserCode) -> None:
    """Send one small batch through the model, build its optimizer, and look up what settings name in the dataset.

    A loop from code makes all of this its own affair.

    Raises:
        ConfigError: says what is wrong.
    """
    if code.metrics is None and code.loop is None:
        check_best_by(config.training.best_by, dataset.schema.label_type, dataset.schema.labels)
    check_best_is(config.training.best_by, config.training.best_is, dataset.schema.labels)
    if code.loop is not None:
        return
    from pipeline.inference.predictor import check_exportable
    from pipeline.models.dry_run import dry_run
    from pipeline.training.checkpoint import published_steps
    from pipeline.training.dry_batch import dry_step, dry_validation
    from pipeline.training.objectives import build_objective, choose_metric, class_weight_table
    from pipeline.training.optimizers import build_optimizer
    from pipeline.training.warm_start import fitting_tensors

    check_validation(
        config.training, dataset.manifest.rows("validation") if "validation" in dataset.manifest.splits else 0
    )
    class_counts = dataset.manifest.class_counts.get("train", {})
    class_weight_table(dataset.schema, config.training.class_weights, class_counts)
    model = dry_run(config.model, dataset.schema, code)
    if config.training.init_from is not None and not published_steps(config.training.run_url):
        fitting_tensors(model, config.training.init_from)
    optimizer = build_optimizer(config.training.optimizer, model.parameters(), code.optimizer)
    objective = build_objective(dataset.schema, code.loss, code.metrics, dataset.manifest.statistics.get("label"))
    metrics = dry_validation(model, objective, dataset.schema)
    choose_metric(config.training.best_by, objective, {"loss": 0.0, **metrics})
    if code.optimizer is not None or config.training.optimizer.options:
        dry_step(model, objective, optimizer, dataset.schema)
    if code.model is not None:
        check_exportable(config.model, dataset.schema, code)
