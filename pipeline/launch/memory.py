"""DRIVER. The memory of a rank: a sum of what is known to be held, not a measurement.

Activations are guessed from the row width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.config.training import ModelConfig, TrainingConfig
from pipeline.dataset import DatasetSchema
from pipeline.task import UserCode

_MIB = 1 << 20
_PROCESS_MIB = 450  # measured: a Python worker with torch, Horovod and pyarrow loaded, before any data
_STATES = {"SGD": 0, "RMSprop": 1, "Adagrad": 1}  # copies of the weights that the optimizer keeps; Adam and kin: 2
_WINDOWS = 3  # windows that the loader holds at once
_ACTIVATIONS = 8  # numbers kept for backward, per number of input


def parameter_bytes(model: ModelConfig, schema: DatasetSchema, user_code: UserCode | None) -> int:
    """Bytes of the model's weights and buffers; the model is built once to count them.

    A loop from code that comes without a model builds one that nobody else knows: 0.
    """
    from pipeline.models import build_model

    if user_code is not None and user_code.loop is not None and user_code.model is None and model.factory is None:
        return 0
    network = build_model(model, schema, user_code)
    return sum(t.numel() * t.element_size() for t in (*network.parameters(), *network.buffers()))


def row_bytes(schema: DatasetSchema) -> int:
    """Bytes of one row as the loader holds it."""
    sizes = {"float32": 4, "int32": 4, "uint8": 1}
    members = (schema.column(name) for packed in schema.packed for name in packed.members)
    return sum(column.width * sizes.get(column.dtype, 8) for column in members) + 4


def rank_memory(
    weights: int, row: int, training: TrainingConfig, *, rows: Sequence[int] = (), shared_memory: bool = False
) -> dict[str, int]:
    """MiB of one rank by what takes it.

    Args:
        weights: bytes of the model as it is built, in float32.
        row: bytes of a row.
        training: batch sizes, optimizer, averaging, the loader's cache.
        rows: of each split that a rank reads; those that fit `loader.cache_bytes` stay in memory.
        shared_memory: whether the gradients of one step and of the one before lie there.
    """
    from pipeline.training.loader import default_window_bytes

    width = 2 if training.precision == "float64" else 1
    weights *= width
    states = _STATES.get(training.optimizer.name, 2)
    average = 1 if training.ema_decay else 0
    cached = [count * row for count in rows if count * row <= training.loader.cache_bytes]
    reads = not cached or len(cached) < len(rows)
    parts = {
        "process": _PROCESS_MIB * _MIB,
        "weights and gradients": 2 * weights,
        "optimizer": states * weights,
        "buckets and compression": weights + 4 * training.bucket_bytes,
        "memory shared with other ranks": 2 * weights if shared_memory else 0,
        "average": average * weights,
        "checkpoint being written": (1 + states + average) * weights,
        "splits kept in memory": sum(cached),
        "windows of rows": _WINDOWS * default_window_bytes(row) if reads else 0,
        "micro-batch": training.micro_batch_size * row * _ACTIVATIONS * width,
    }
    return {name: math.ceil(size / _MIB) for name, size in parts.items() if size}
