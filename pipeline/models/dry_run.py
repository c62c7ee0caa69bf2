"""DRIVER. One batch of made-up rows through the model, so that a wrong shape is found before ranks are started."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config.training import ModelConfig
from pipeline.dataset import DatasetSchema
from pipeline.errors import ConfigError
from pipeline.models import build_model
from pipeline.models.outputs import output_width
from pipeline.task import UserCode

ROWS = 4
HALVES = (slice(0, ROWS // 2), slice(ROWS // 2, ROWS))
"""Of a made-up batch."""


def dry_run(config: ModelConfig, schema: DatasetSchema, user_code: UserCode | None = None) -> nn.Module:
    """Build the model and check what it, and the user's loss, make of a batch of four rows.

    Returns:
        The model, for whoever wants to know its size.

    Raises:
        ConfigError: it fails, gives another shape, has a state that no checkpoint can hold, or the loss is not a
            differentiable sum over rows.
    """
    code = user_code or UserCode()
    with repeatable_randomness():
        model = build_model(config, schema, code).float()
        _check_state(model)
        inputs = made_up_inputs(schema, ROWS)
        try:
            output = model(inputs)
        except Exception as error:
            raise ConfigError(
                f"the model fails on inputs {_shapes(inputs)}: {type(error).__name__}: {error}; "
                "expected it to take a dict of tensors by name"
            ) from error
        _check_output(output, schema, has_own_loss=code.loss is not None and schema.label_type is not None)
        if code.loss is not None:
            _check_loss(code.loss, output, schema)
        elif schema.label_type is None and code.loop is None:
            raise ConfigError("the dataset has no label; expected a loss from code; give loss= a function")
    return model


@contextlib.contextmanager
def repeatable_randomness() -> Iterator[None]:
    """A fixed seed for torch, so that what is found is not left to chance; the caller's random numbers go on after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def made_up_inputs(schema: DatasetSchema, rows: int) -> dict[str, Tensor]:
    """Inputs of the right names, shapes and dtypes."""
    inputs: dict[str, Tensor] = {}
    if schema.numeric:
        inputs["numeric"] = torch.randn(rows, len(schema.numeric))
    if schema.cardinalities:
        columns = [torch.randint(0, max(1, ids), (rows,)) for ids in schema.cardinalities.values()]
        inputs["categorical"] = torch.stack(columns, dim=1)
    for name, shape in schema.vectors.items():
        values = torch.randint(0, 2, (rows, *shape))
        inputs[name] = values.to(getattr(torch, schema.column(name).dtype))
    return inputs


def made_up_label(schema: DatasetSchema, rows: int) -> Tensor:
    """A label of the right shape and dtype: the classes in turn, or numbers between 0 and 1, where most losses work."""
    numbers = torch.arange(rows)
    if schema.label_type == "multiclass":
        return numbers % len(schema.classes)
    values = (numbers % 2).float() if schema.label_type == "binary" else (numbers + 1) / (rows + 1)
    return values if len(schema.labels) == 1 else values[:, None].repeat(1, len(schema.labels))


def made_up_weight(rows: int) -> Tensor:
    """Weights of which no two are alike, so that it shows which row one belongs to."""
    return torch.linspace(0.5, 2.0, rows)


def _shapes(inputs: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in inputs.items())


def _check_state(model: nn.Module) -> None:
    odd = {name: type(value).__name__ for name, value in model.state_dict().items() if not isinstance(value, Tensor)}
    if odd:
        raise ConfigError(
            *(
                f"the model's state has {name}, a {kind}; expected tensors, since nothing is pickled; leave out its "
                "get_extra_state(), or let that give a tensor"
                for name, kind in odd.items()
            )
        )


def _check_output(output: Any, schema: DatasetSchema, has_own_loss: bool) -> None:
    """An own loss may take (rows, 1) for (rows,), as validation and the predictor do, but they read no more numbers."""
    width = output_width(schema)
    expected = (ROWS,) if width == 1 else (ROWS, width)
    actual = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if actual != expected and not (has_own_loss and actual == (*expected, 1)):
        hint = "; squeeze the last dimension" if actual == (*expected, 1) else ""
        raise ConfigError(
            f"the model's output for {ROWS} rows is {actual}; expected {expected} "
            f"for {f'a {schema.label_type} label' if schema.label_type else 'a dataset without label'}{hint}"
        )


def _check_loss(loss: Any, output: Any, schema: DatasetSchema) -> None:
    """A mean would change the gradient with the division of rows among ranks and micro-batches."""
    label, weight = made_up_label(schema, ROWS), made_up_weight(ROWS)
    try:
        whole, twice = loss(output, label, weight), loss(output, label, 2 * weight)
        first, second = (loss(output[half], label[half], weight[half]) for half in HALVES)
    except Exception as error:
        raise ConfigError(
            f"the loss fails: {type(error).__name__}: {error}; expected loss(predictions, label, weight)"
        ) from error
    reason = None
    if not (isinstance(whole, Tensor) and whole.ndim == 0 and whole.requires_grad):
        reason = "it gives no differentiable scalar tensor"
    elif not _agree(twice, whole, whole):
        reason = "twice the weights do not give twice the loss"
    elif not _agree(whole, first, second):
        reason = "the losses of two halves of a batch do not add up to that of the whole"
    if reason is not None:
        raise ConfigError(
            f"the loss is not a weighted sum ({reason}); expected a scalar tensor: "
            "the SUM over rows of weight times loss, such as (losses * weight).sum()"
        )


def _agree(total: Tensor, first: Tensor, second: Tensor) -> bool:
    """Whether parts add up to a total, but for rounding; of numbers that are not finite nobody can say."""
    sum_, one, other = (float(each.detach()) for each in (total, first, second))
    apart, size = abs(sum_ - one - other), abs(one) + abs(other)
    return not math.isfinite(apart) or apart <= 1e-3 * size
