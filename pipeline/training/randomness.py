"""RANK. Random numbers that depend on the seed, the step and the rank, and not on what ran before in this process."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor


def seed_all(*key: int) -> None:
    """Seed torch, numpy and Python from a tuple of numbers, such as (seed, step, rank)."""
    number = int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "little")
    torch.default_generator.manual_seed(number)  # torch.manual_seed takes 150 us to look for other devices
    if torch.cuda.is_available():
        torch.cuda.manual_seed(number)
    random.seed(number)
    np.random.seed(number % 2**32)


def random_states() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The states of all generators, as tensors and JSON values."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, numbers, next_gauss = random.getstate()
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.asarray(keys, np.int64))}
    tensors["python"] = torch.tensor(numbers, dtype=torch.int64)
    if torch.cuda.is_initialized():  # asking would initialize it, on every rank's first GPU
        tensors["cuda"] = torch.cuda.get_rng_state()
    rest = {"numpy": [kind, position, has_gauss, gauss], "python": [version, next_gauss]}
    return tensors, rest


def load_random_states(tensors: dict[str, Tensor], rest: dict[str, Any]) -> None:
    """Go on with the random numbers where `random_states` was taken."""
    torch.set_rng_state(tensors["torch"])
    kind, position, has_gauss, gauss = rest["numpy"]
    np.random.set_state((kind, tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, gauss))
    version, next_gauss = rest["python"]
    random.setstate((version, tuple(tensors["python"].tolist()), next_gauss))
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])


@contextlib.contextmanager
def torch_left_as_found(threads: int) -> Iterator[None]:
    """Use so many threads inside; afterwards threads, generators and switches of torch are as before.

    Spark reuses Python workers, so the next task in this process may be somebody else's.
    """
    states = random_states()
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_default_dtype()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        if torch.are_deterministic_algorithms_enabled() != before[1]:  # setting it imports torch's compiler
            torch.use_deterministic_algorithms(before[1])
        torch.set_default_dtype(before[2])
        load_random_states(*states)
