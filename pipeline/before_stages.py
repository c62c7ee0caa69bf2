"""DRIVER. What a configuration lacks for the stages that are to run: said before Spark starts and hours pass."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.config import PipelineConfig
from pipeline.config.agreement import check_best_by
from pipeline.config.secret_values import unset_variables
from pipeline.errors import ConfigError
from pipeline.task import UserCode

_SECTIONS = {"prepare": {"source"}, "train": {"tracking"}, "evaluate": {"tracking"}, "run": {"source", "tracking"}}


def check_stages(config: PipelineConfig, last: str) -> None:
    """Stages take no data and no code from a program: all that they need, or its name, must be in the configuration.

    Args:
        config: the configuration.
        last: the stage, or ``run`` for all.

    Raises:
        ConfigError: everything that is missing, not set, or names nothing.
    """
    offences = []
    if last in ("prepare", "run") and not config.source.inputs:
        offences.append(
            f"source.inputs is missing; expected tables for `{last}` to read; to prepare a frame from code, "
            "use pipeline.prepare(frame, config)"
        )
    if config.label is None and last != "prepare" and not (last == "train" and config.training.loss):
        offences.append(
            f"label is missing, and `{last}` has no loss or measure without one; expected label.column; to learn "
            "without label, `pipeline train` takes training.loss, and pipeline.train a loss or a loop from code"
        )
    used = config.model_dump(mode="json", by_alias=True, include={"cluster", *_SECTIONS[last]})
    offences += unset_variables(used)
    if config.label is not None and last in ("train", "run") and config.training.metrics is None:
        offences += _said(lambda: check_best_by(config.training.best_by, config.label_type, config.labels))
    if last == "run":  # `train` tries them on its dataset
        offences += [*_said(lambda: _try_model(config)), *_said(lambda: _try_optimizer(config))]
    if offences:
        raise ConfigError(*offences)


def _try_model(config: PipelineConfig) -> None:
    from pipeline.models import check_builder

    check_builder(config.model)


def _try_optimizer(config: PipelineConfig) -> None:
    import torch

    from pipeline.training.optimizers import build_optimizer

    code = UserCode().with_named(config.training)
    if code.optimizer is None:
        build_optimizer(config.training.optimizer, [torch.nn.Parameter(torch.zeros(1))])


def _said(check: Callable[[], None]) -> tuple[str, ...]:
    try:
        check()
    except ConfigError as error:
        return error.offences
    return ()
