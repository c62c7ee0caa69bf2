"""States of a user's objects come back as they were, through JSON and tensors."""

from __future__ import annotations

import json
import math
from collections import Counter, OrderedDict
from typing import Any

import pytest
import torch

from pipeline.training.states import load_states, states_of


class Keeper:
    def __init__(self, state: Any = None) -> None:
        self.state = state

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        self.state = state


def _back(state: dict[str, Any]) -> Any:
    tensors, states = states_of({"kept": Keeper(state)})
    keeper = Keeper()
    load_states({"kept": keeper}, tensors, json.loads(json.dumps(states, allow_nan=False)), torch.device("cpu"))
    return keeper.state


@pytest.mark.parametrize(
    "state",
    [
        {"epoch": 3, "rate": 0.1 + 0.2, "name": "cosine", "done": False, "nothing": None, "bound": math.inf},
        {"betas": (0.9, 0.999), "rates": [0.1, [0.2]], "none": (), "empty": {}},
        {3: "a number as key", (1, 2): "a tuple", "dict": {"dict": 1}, "tuple": {"tuple": [1]}},
        {"milestones": Counter({5: 2, 9: 1})},
    ],
    ids=["numbers and texts", "tuples and lists", "keys of any kind", "counters"],
)
def test_values_keep_their_kind(state: dict[str, Any]) -> None:
    back = _back(state)
    assert back == state
    assert [type(value) for value in back.values()] == [type(value) for value in state.values()]


def test_tensors_keep_bits_and_dtype_wherever_they_are() -> None:
    state = OrderedDict(a=torch.tensor([1.5, math.nan]), b=[{"c": torch.tensor(7, dtype=torch.int64)}])
    back = _back(state)
    assert back["a"].view(torch.int32).tolist() == state["a"].view(torch.int32).tolist()
    assert (back["b"][0]["c"].item(), back["b"][0]["c"].dtype) == (7, torch.int64)
