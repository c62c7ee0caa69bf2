"""ANYWHERE. A user's own model as plain data: a list of tensor operations in JSON, its weights apart.

A class from a notebook cell cannot be imported where the model is served, and the code behind a factory may change.
`torch.export` traces it, but its own
file format unpickles on loading and parses expressions that could run code. So we keep the traced operations
ourselves and carry them out one by one: only operations of torch's core ATen set are known, and each does nothing
but compute tensors. Loading such a program therefore cannot run foreign code.

The batch size is fixed, as the predictor's chunks are: models whose code depends on the number of rows work too.
"""

from __future__ import annotations

import contextlib
import math
import operator
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from pipeline.errors import ConfigError, SecurityError
from pipeline.models.compiler import compiler_cache_not_kept

Program = dict[str, Any]
"""``inputs`` and ``weights``: value name -> input or weight name; ``operations``; ``output``: value name."""


def export_program(model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Program, dict[str, Tensor]]:
    """Trace a model in eval mode.

    Args:
        model: its forward takes the dict of inputs and gives one tensor.
        inputs: example inputs, with the number of rows that the program will always get.

    Returns:
        The program, and its weights by name.

    Raises:
        ConfigError: the model cannot be traced, or does something else than core tensor operations.
    """
    try:
        with _quiet_exporter():
            exported = torch.export.export(model.eval(), (inputs,)).run_decompositions()
        program = _to_program(exported, inputs)
    except Exception as error:
        raise ConfigError(
            f"model {type(model).__name__} is not traceable: {str(error).splitlines()[0]}; expected a forward that "
            "torch.export understands; change it, or name it by model.factory instead"
        ) from error
    names = set(program["weights"].values())
    tensors = {**dict(exported.constants), **exported.state_dict}
    weights = {name: tensors[name].detach().clone().contiguous() for name in sorted(names)}
    answer, expected = run_program(program, weights, inputs), answer_of(model, inputs)
    if not torch.allclose(answer, expected, rtol=1e-3, atol=1e-4, equal_nan=True):
        raise ConfigError(
            f"model {type(model).__name__} gives other results when traced, by up to "
            f"{float((answer - expected).abs().max()):.2g}; expected the same; is its forward random in eval mode?"
        )
    return program, weights


def answer_of(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """What a model gives in eval mode, without gradients.

    Raises:
        ConfigError: it fails.
    """
    try:
        with torch.no_grad():
            answer: Tensor = model.eval()(inputs)
    except Exception as error:
        rows = len(next(iter(inputs.values())))
        raise ConfigError(
            f"model {type(model).__name__} fails in eval mode on {rows} rows: {type(error).__name__}: {error}; "
            "expected it to predict what it was trained for, from inputs of float32"
        ) from error
    return answer


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporter's compiler cache out of the temporary folder, and its own deprecated calls out of sight."""
    with compiler_cache_not_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _to_program(exported: torch.export.ExportedProgram, inputs: Mapping[str, Tensor]) -> Program:
    names, _ = _pytree.tree_flatten((({name: name for name in inputs},), {}))
    input_names = iter(names)
    program: Program = {"inputs": {}, "weights": {}, "operations": []}
    for spec in exported.graph_signature.input_specs:
        if spec.target is None:
            program["inputs"][spec.arg.name] = next(input_names)
        else:
            program["weights"][spec.arg.name] = spec.target
    for node in exported.graph.nodes:
        if node.op == "call_function" and node.target is not _CHECK:
            program["operations"].append(_operation(node))
        elif node.op == "output":
            (program["output"],) = (result.name for result in node.args[0])
    return program


# What `tensor.to(dtype)` leaves behind: that its tensor is of the dtype traced, as the predictor's inputs always are.
_CHECK = torch.ops.aten._assert_tensor_metadata.default


def _operation(node: torch.fx.Node) -> dict[str, Any]:
    name = "getitem" if node.target is operator.getitem else str(node.target)
    _function(name)
    arguments = [_encode(argument) for argument in node.args]
    # On which device a tensor lies is decided anew by whoever carries out the program.
    keywords = {key: _encode(value) for key, value in node.kwargs.items() if key not in _PLACEMENT}
    return {"name": node.name, "operation": name, "arguments": arguments, "keywords": keywords}


_PLACEMENT = ("device", "layout", "pin_memory")


def _encode(value: Any) -> Any:
    if isinstance(value, torch.fx.Node):
        return {"value": value.name}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, torch.memory_format):
        return {"memory_format": str(value).removeprefix("torch.")}
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": str(value)}
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"an argument of type {type(value).__name__} cannot be kept")


_DTYPE_NAMES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_DTYPES = {name: getattr(torch, name) for name in _DTYPE_NAMES}
_MEMORY_FORMATS = {
    name: getattr(torch, name) for name in ("contiguous_format", "preserve_format", "channels_last", "channels_last_3d")
}


def _decode(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_decode(item, values) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "number":
        return float(inner)
    return {"value": values, "dtype": _DTYPES, "memory_format": _MEMORY_FORMATS}[kind][inner]


def _function(name: str) -> Any:
    """The operation of that name.

    Raises:
        SecurityError: it is none of torch's core tensor operations.
    """
    if name == "getitem":
        return operator.getitem
    namespace, _, rest = name.partition(".")
    packet, _, overload = rest.partition(".")
    function = getattr(getattr(torch.ops.aten, packet, None), overload, None) if namespace == "aten" else None
    if isinstance(function, torch._ops.OpOverload) and torch.Tag.core in function.tags:
        return function
    raise SecurityError(f"operation {name} of a model is not known; expected one of torch's core tensor operations")


def run_program(program: Program, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
    """Carry out a program; deterministic, and without gradients."""
    values: dict[str, Any] = {name: inputs[source] for name, source in program["inputs"].items()}
    values |= {name: weights[source] for name, source in program["weights"].items()}
    with torch.inference_mode():
        for step in program["operations"]:
            arguments = _decode(step["arguments"], values)
            keywords = {key: _decode(value, values) for key, value in step["keywords"].items()}
            values[step["name"]] = _function(step["operation"])(*arguments, **keywords)
    return values[program["output"]]  # type: ignore[no-any-return]


class ProgramModel(nn.Module):
    """A loaded program in the place of the module that it was traced from.

    Raises:
        SecurityError: the program holds an operation that is not a core tensor operation.
    """

    def __init__(self, program: Program, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        for step in program["operations"]:
            _function(step["operation"])
        self._program = program
        self._weights = dict(weights)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Carry out the program on a batch of exactly the exported number of rows."""
        return run_program(self._program, self._weights, inputs)
