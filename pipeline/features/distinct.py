"""ANYWHERE. How many distinct values there are, nearly: the same number in whatever order the values come."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.features.counted import Counted, counted
from pipeline.features.kinds import Array
from pipeline.features.sketches import Cells
from pipeline.features.texts import Texts, coded

_REGISTERS = 512
_LOW_BITS = np.uint64(55)
"""Of a hash of 64; the others choose the register."""
_LOW = np.uint64(2**55 - 1)
_NONE = np.uint64(2**64 - 1)


@dataclass(frozen=True)
class Distinct:
    """The number of distinct values, to within about 5 % of it.

    A hash sends each value to one of the registers, which keep the lowest hash that they saw. Lowest hashes of n
    values are spread as first arrivals are in time, at rate n: the rate that makes those seen most likely is the number
    of registers that have one by the sum of all, empty ones counting whole (maximum likelihood, censored).
    """

    limit: int | None = None
    min_count: int = 0

    def cells(self, values: Array | Counted | Texts) -> Cells:
        hashes = _hashes(values)
        lowest = np.full(_REGISTERS, _NONE)
        np.minimum.at(lowest, (hashes >> _LOW_BITS).view(np.int64), hashes)
        keys = np.flatnonzero(lowest != _NONE)
        low = (lowest[keys] & _LOW).view(np.int64)
        return Cells.of_keys(np.ones_like(keys), keys, low, np.zeros_like(keys))

    def result(self, cells: Cells) -> int:
        seen = len(cells.key)
        waited = float(cells.low.sum(dtype=np.float64)) / 2.0**55 + (_REGISTERS - seen)
        return round(_REGISTERS * seen / waited) if seen else 0


def _hashes(values: Array | Counted | Texts) -> Array:
    if isinstance(values, Texts) or (not isinstance(values, Counted) and values.dtype == object):
        texts = coded(values)
        names = texts.names[texts.used]
        return np.asarray(pd.util.hash_array(names, categorize=False), dtype=np.uint64)
    return np.asarray(pd.util.hash_array(counted(values).values + 0.0), dtype=np.uint64)
