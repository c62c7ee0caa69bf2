"""RANK. Optimizers by name or from code, and their step."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from pipeline.config.training import OptimizerConfig
from pipeline.errors import ConfigError
from pipeline.models.compiler import compiler_cache_not_kept

_UNCOMPILED = "__dynamo_disable"
_NEED_MORE = {"SparseAdam", "Optimizer"}  # sparse gradients, the base class


def build_optimizer(
    config: OptimizerConfig,
    parameters: Iterable[torch.nn.Parameter],
    own: Callable[..., Any] | None = None,
    learning_rate: float | None = None,
) -> torch.optim.Optimizer:
    """The optimizer of the configuration, or the user's own.

    Args:
        config: names a class of ``torch.optim``.
        parameters: of the model; those that do not require gradients are left out.
        learning_rate: instead of the configuration's, see `scaled_learning_rate`.
        own: ``own(parameters)`` gives a ``torch.optim.Optimizer``; its learning rates are what the schedule scales.

    Raises:
        ConfigError: there is no rate of ours to scale, no such optimizer, it does not take the options, or it wants
            more than gradients of one loss.
    """
    if own is not None and config.scaling != "none":
        raise ConfigError(
            f"training.optimizer.scaling is {config.scaling}, but the optimizer from code brings its own learning "
            "rates; expected none; scale them in that code"
        )
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    with without_compiler():
        optimizer = _by_name(config, trainable, learning_rate) if own is None else _from_code(own, trainable)
    refuse_more_than_gradients(optimizer)
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", float(group["lr"]))
    return optimizer


def _from_code(own: Callable[..., Any], parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    expected = "expected optimizer(parameters) to give a torch.optim.Optimizer"
    try:
        optimizer = own(parameters)
    except Exception as error:
        raise ConfigError(f"the optimizer from code fails: {type(error).__name__}: {error}; {expected}") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(f"the optimizer from code is a {type(optimizer).__name__}; {expected}")
    return optimizer


def refuse_more_than_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Such as LBFGS: its line search would run the model on other weights, each time with sums over all ranks.

    Raises:
        ConfigError: it is one.
    """
    if optimizer.defaults.get("differentiable"):
        raise ConfigError(
            "the optimizer is differentiable, so that weights would be computed and not moved; expected false"
        )
    closure = inspect.signature(inspect.unwrap(type(optimizer).step)).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ConfigError(
            f"the optimizer is {type(optimizer).__name__}, which evaluates the loss several times in a step (closure); "
            "expected one that takes the gradients as they are, such as AdamW or SGD"
        )


def _by_name(
    config: OptimizerConfig, parameters: list[torch.nn.Parameter], learning_rate: float | None
) -> torch.optim.Optimizer:
    names = [n for n, c in vars(torch.optim).items() if inspect.isclass(c) and n not in _NEED_MORE]
    if config.name not in names:
        raise ConfigError(
            f"training.optimizer.name is {config.name}; expected one of {', '.join(sorted(names))}; "
            "or give a function from code as optimizer="
        )
    kind = getattr(torch.optim, config.name)
    known = list(inspect.signature(kind).parameters)[1:]
    options: dict[str, Any] = {"lr": learning_rate or config.learning_rate}
    if config.weight_decay or "weight_decay" in known:  # 0 is said too: AdamW's own default is 0.01
        options["weight_decay"] = config.weight_decay
    if "fused" in known and not {"foreach", "differentiable"} & set(config.options):
        options["fused"] = True  # one call a step instead of a dozen for each parameter
    try:
        return kind(parameters, **{**options, **config.options})  # type: ignore[no-any-return]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"training.optimizer.options are not understood by {config.name}: {error}; expected {', '.join(known)}"
        ) from error


@contextlib.contextmanager
def without_compiler() -> Iterator[None]:
    """Keep torch from importing its compiler, only to be told not to compile an optimizer's constructor.

    That import takes two seconds of every rank's start, makes a temporary folder and sets an environment variable.
    The attribute is where torch (``torch._compile._disable_dynamo``) remembers the function to call; a torch that
    looks elsewhere imports it, and nothing else changes.
    """
    function = getattr(torch.optim.Optimizer.add_param_group, "__wrapped__", None)
    spared = function is not None and "torch._dynamo" not in sys.modules and not hasattr(function, _UNCOMPILED)
    if spared:
        setattr(function, _UNCOMPILED, function)
    try:
        yield
    finally:
        if spared:
            delattr(function, _UNCOMPILED)


def optimizer_step(optimizer: torch.optim.Optimizer) -> None:
    """One update of the weights, with the hooks that were registered for it.

    A step that torch has written is hooked as torch does it, without the wrapper that imports the compiler, see above.
    One from code, and one that a scheduler of torch has wrapped to see it called, is taken as it is.
    """
    step = inspect.unwrap(type(optimizer).step)
    if step.__module__.startswith("torch.optim.") and "step" not in vars(optimizer):
        with torch.no_grad():
            torch.optim.Optimizer.profile_hook_step(step)(optimizer)
        return
    if "torch._dynamo" not in sys.modules:
        with compiler_cache_not_kept():
            importlib.import_module("torch._dynamo")
    optimizer.step()


def scaled_learning_rate(config: OptimizerConfig, global_batch_size: int) -> float:
    """The base learning rate for a batch size (Goyal et al. 2017: linear; Krizhevsky 2014: square root)."""
    ratio = global_batch_size / config.base_batch_size
    return config.learning_rate * {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[config.scaling]
