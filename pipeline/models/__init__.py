"""RANK and ANYWHERE. The built-in architectures, and the one way to build any model from its configuration.

A model is built from the dataset's schema and its options, and its ``forward`` takes a dict of named tensors:
``numeric`` (float32, rows x columns), ``categorical`` (int64, rows x columns), each vector feature by its name.
It returns one number per row (binary: a logit) as (rows,), or (rows, classes) for a multiclass label.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from pipeline.config.training import ModelConfig
from pipeline.dataset import DatasetSchema
from pipeline.errors import ConfigError
from pipeline.models.cnn import Cnn
from pipeline.models.linear import Linear
from pipeline.models.tabular import Tabular
from pipeline.models.wide_deep import WideDeep
from pipeline.task import UserCode, imported

BUILT_IN: dict[str, Callable[..., nn.Module]] = {
    "tabular": Tabular,
    "wide_deep": WideDeep,
    "linear": Linear,
    "cnn": Cnn,
}


def build_model(config: ModelConfig, schema: DatasetSchema, user_code: UserCode | None = None) -> nn.Module:
    """The model that the configuration, or the user's code, describes; weights from torch's current generator.

    Raises:
        ConfigError: no such factory, it does not take the options, or it gives no module.
    """
    build, name = _builder(config, user_code)
    _check_options(build, name, config.options)
    model = build(schema, **config.options)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model {name} gives a {type(model).__name__}; expected a torch.nn.Module; return one")
    return model


def check_builder(config: ModelConfig) -> None:
    """See that there is what the configuration names, and that it takes the options; without a dataset.

    Raises:
        ConfigError: no such factory, or it does not take the options.
    """
    build, name = _builder(config, None)
    _check_options(build, name, config.options)


def _builder(config: ModelConfig, user_code: UserCode | None) -> tuple[Callable[..., Any], str]:
    if user_code is not None and user_code.model is not None:
        return user_code.model, getattr(user_code.model, "__qualname__", repr(user_code.model))
    if config.factory is None:
        name = config.name or "tabular"
        return BUILT_IN[name], name
    return imported("model.factory", config.factory), config.factory


def _check_options(build: Callable[..., Any], name: str, options: dict[str, Any]) -> None:
    """Name options that the builder does not take, before it fails with a TypeError of its own."""
    parameters = inspect.signature(build).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters][1:]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ConfigError(
            *(
                f"model.options.{option} is not an option of {name}; expected one of {', '.join(known) or 'none'}"
                for option in unknown
            )
        )
