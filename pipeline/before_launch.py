"""DRIVER. What a training asks for, tried here first: what is wrong with it is found before Spark starts."""

from __future__ import annotations

import inspect
import traceback
from typing import TYPE_CHECKING, Any

from pipeline.config import PipelineConfig
from pipeline.config.agreement import check_best_by, check_best_is, check_validation
from pipeline.config.training import TrainingConfig
from pipeline.dataset import Dataset
from pipeline.errors import ConfigError, PipelineError, refuse_together
from pipeline.task import UserCode

if TYPE_CHECKING:
    from torch import nn

_GIVEN = {"callback": ("progress", "metrics"), "loop": ("context",)}


def check_training(config: PipelineConfig, dataset: Dataset, code: UserCode) -> None:
    """Send one small batch through the model, build its optimizer, and look up what settings name in the dataset.

    Of a loop from code only the model is tried: loss, optimizer and metrics are its own affair.

    Raises:
        ConfigError: says what is wrong; of model, optimizer, functions and settings all at once.
    """
    from pipeline.inference.predictor import check_exportable
    from pipeline.training.checkpoint import published_steps
    from pipeline.training.dry_batch import refuse_lone_row
    from pipeline.training.own_loop.settings import refuse_without_effect
    from pipeline.training.warm_start import fitting_tensors

    training = config.training
    given = code
    if code.loop is None:
        code = given.with_named(training)
    else:
        refuse_without_effect(training, code)
    models: list[nn.Module] = []
    refuse_together(
        lambda: _check_functions(given, training),
        lambda: _check_best(training, dataset, code),
        lambda: models.append(_tried_model(config, dataset, code)),
        lambda: try_optimizer(training, code),
    )
    [model] = models
    if training.init_from is not None and not published_steps(training.run_url):
        fitting_tensors(model, training.init_from)
    if code.loop is None:
        _check_built_in_loop(training, dataset, code, model)
        if (ranks := config.cluster.known_ranks) is not None:
            refuse_lone_row(lambda: model, dataset.schema, training, dataset.manifest.rows("train"), ranks)
    check_exportable(config.model, dataset.schema, code, training.micro_batch_size)


def _check_functions(given: UserCode, training: TrainingConfig) -> None:
    """Those that are first called after a while have to take what they will be given."""
    offences = []
    for name, parameters in _GIVEN.items():
        function = getattr(given if given.loop is not None else given.with_named(training), name)
        if function is not None and (why := _does_not_take(function, len(parameters))):
            key = f"{name}=" if getattr(given, name) is not None else f"training.{name}"
            offences.append(f"{key} {why}; expected {name}({', '.join(parameters)})")
    if offences:
        raise ConfigError(*offences)


def _does_not_take(function: Any, count: int) -> str | None:
    """What keeps it from being called with so many arguments; None if nothing does, or nobody can tell."""
    if not callable(function):
        return f"is {function!r}"
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError as error:
        return f"is {getattr(function, '__qualname__', repr(function))}, which does not take them: {error}"
    except ValueError:  # some that are written in C do not say
        return None
    return None


def _check_best(training: TrainingConfig, dataset: Dataset, code: UserCode) -> None:
    if code.loop is None and code.metrics is None:
        check_best_by(training.best_by, dataset.schema.label_type, dataset.schema.labels)
    check_best_is(training.best_by, training.best_is, dataset.schema.labels)


def _tried_model(config: PipelineConfig, dataset: Dataset, code: UserCode) -> nn.Module:
    from torch import nn

    from pipeline.models.dry_run import dry_run

    if isinstance(code.model, nn.Module) or not (code.model is None or callable(code.model)):
        raise ConfigError(
            f"model= is of type {type(code.model).__name__}; expected a class or function, since every rank builds a "
            "torch.nn.Module from the dataset's schema; give the class itself, and what it takes beside as options="
        )
    try:
        return dry_run(config.model, dataset.schema, code)
    except PipelineError:
        raise
    except Exception as error:
        key = "model=" if code.model is not None else "model.factory" if config.model.factory else "model.name"
        name = config.model.factory or config.model.name
        if code.model is not None:
            name = getattr(code.model, "__qualname__", repr(code.model))
        raise ConfigError(
            f"{key} is {name}, which fails: {type(error).__name__}: {error}; expected a torch.nn.Module for the "
            "dataset's schema and model.options; see its traceback below",
            detail=_own_traceback(error),
        ) from error


def _own_traceback(error: Exception) -> str:
    """From the first place on that is not this package's."""
    place = error.__traceback__
    while place is not None and str(place.tb_frame.f_globals.get("__name__")).startswith("pipeline."):
        place = place.tb_next
    return "".join(traceback.format_exception(type(error), error, place or error.__traceback__))


def try_optimizer(training: TrainingConfig, code: UserCode) -> None:
    """See that there is the optimizer that the configuration names, and that it takes the options; without a model.

    Raises:
        ConfigError: so it is not.
    """
    import torch

    from pipeline.training.optimizers import build_optimizer

    if code.loop is None and code.with_named(training).optimizer is None:
        build_optimizer(training.optimizer, [torch.nn.Parameter(torch.zeros(1))])


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
