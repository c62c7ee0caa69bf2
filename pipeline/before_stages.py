"""DRIVER. What a configuration lacks for the stages that are to run: said before Spark starts and hours pass."""

from __future__ import annotations

from pipeline.before_launch import try_optimizer
from pipeline.config import PipelineConfig
from pipeline.config.agreement import check_best_by
from pipeline.config.secret_values import unset_variables
from pipeline.errors import ConfigError, refuse_together
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
    checks = [lambda: _check_sections(config, last)]
    if config.label is not None and last in ("train", "run") and config.training.metrics is None:
        checks.append(lambda: check_best_by(config.training.best_by, config.label_type, config.labels))
    if last == "run":  # `train` tries them on its dataset
        checks += [lambda: _try_model(config), lambda: try_optimizer(config.training, UserCode())]
    refuse_together(*checks)


def _check_sections(config: PipelineConfig, last: str) -> None:
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
    if offences:
        raise ConfigError(*offences)


def _try_model(config: PipelineConfig) -> None:
    from pipeline.models import check_builder

    check_builder(config.model)
