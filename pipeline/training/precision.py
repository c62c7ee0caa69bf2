"""RANK. Where the model computes and with how many bits: device, mixed precision, loss scale."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch

from pipeline.config.training import TrainingConfig
from pipeline.errors import ConfigError

_MIXED = {"bf16": torch.bfloat16, "fp16": torch.float16}
_GOOD_STEPS = 2000


def take_device(wanted: str, local_rank: int) -> torch.device:
    """The rank's GPU, one of those visible by its number on this host, or the CPU.

    The GPU becomes torch's current one, whose generator is seeded and saved, and where libraries work by default.

    Raises:
        ConfigError: a GPU is wanted and there is none.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError("training.device is cuda; expected a GPU that torch can use; choose auto or cpu")
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def weight_dtype(config: TrainingConfig) -> torch.dtype:
    """Of weights and inputs; mixed precision keeps them in float32."""
    return torch.float64 if config.precision == "float64" else torch.float32


def mixed(config: TrainingConfig, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The context of forward passes."""
    dtype = _MIXED.get(config.precision)
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)


@dataclass
class LossScale:
    """What losses are multiplied by, so that float16 gradients do not vanish; a power of two, divided out again.

    Halved when a gradient overflows, doubled after many good steps (as torch's ``GradScaler``). It depends on
    reduced gradients only, so all ranks agree without asking.
    """

    value: float = 1.0
    good_steps: int = 0

    @classmethod
    def start(cls, config: TrainingConfig) -> LossScale:
        """Losses are sums over rows, so there is less room than a mean would leave."""
        if config.precision != "fp16":
            return cls()
        return cls(2.0 ** max(0, 16 - config.micro_batch_size.bit_length()))

    def update(self, config: TrainingConfig, finite: bool) -> None:
        """After a step."""
        if config.precision != "fp16":
            return
        self.good_steps = self.good_steps + 1 if finite else 0
        if not finite:
            self.value = max(self.value / 2, 2.0**-24)
        elif self.good_steps % _GOOD_STEPS == 0:
            self.value *= 2
