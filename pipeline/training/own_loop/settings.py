"""DRIVER. What a loop from code leaves without effect is refused before the launch, all of it at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.config.section import Section
from pipeline.config.training import TrainingConfig
from pipeline.errors import ConfigError
from pipeline.task import UserCode

HONOURED = {
    *("run_url", "epochs", "seed", "device", "checkpoint", "loader"),
    *("global_batch_size", "last_batch", "best_by", "best_is", "init_from"),
    *("compression", "compression_rank", "bucket_bytes"),
    *("clip_norm", "clip_value", "l1", "ema_decay", "max_skipped_steps"),
}
"""Keys of ``training`` that `pipeline.training.own_loop` heeds; any other, also one that is to come, is refused."""

_INSTEAD_OF_CODE = {
    "loss": "compute it in the loop",
    "optimizer": "make it in the loop",
    "metrics": "context.report() them",
    "callback": "call it in the loop",
}
_INSTEAD = {
    **_INSTEAD_OF_CODE,
    "schedule": "attach a scheduler of torch: context.attach(model, optimizer, schedule=scheduler)",
    "micro_batch_size": "split batches in the loop: context.backward(..., last=False) for all parts but the last",
    "class_weights": "weigh the rows in the loop's loss",
    "early_stopping": "break out of context.epochs()",
    "validate_every_steps": "validate in the loop, and context.report() what comes out",
    "precision": "use torch.autocast in the loop",
    "profile_steps": "use torch.profiler in the loop",
}


def refuse_without_effect(config: TrainingConfig, code: UserCode) -> None:
    """Refuse settings, and code, that belong to the built-in loop.

    Raises:
        ConfigError: names all of them, and what to do instead.
    """
    offences = [
        f"training.{key} is {value}; expected {default} beside a loop from code, which does without; {_advice(key)}"
        for key, value, default in _changed(config)
    ]
    offences += [
        f"{name}= is given beside loop=, which does without; expected model= and loop= only; {advice}"
        for name, advice in _INSTEAD_OF_CODE.items()
        if getattr(code, name) is not None
    ]
    if offences:
        raise ConfigError(*offences)


def _advice(key: str) -> str:
    return _INSTEAD.get(key.split(".")[0], "do it in the loop")


def _changed(section: Section, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Key, value and default of what is neither as it is by default nor heeded."""
    for name, field in type(section).model_fields.items():
        value, default = getattr(section, name), field.get_default(call_default_factory=True)
        if (not prefix and name in HONOURED) or (name, value) == ("precision", "float64"):
            continue
        if isinstance(value, Section):
            yield from _changed(value, f"{prefix}{name}.")
        elif value != default:
            yield f"{prefix}{name}", value, default
