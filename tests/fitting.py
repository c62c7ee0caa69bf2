"""Fits answered in memory, the rows cut into chunks and their cells merged, as the engine does with those of tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.features.kinds import Array, Raw
from pipeline.features.sketches import Cells, Fitting, result_of
from pipeline.features.texts import Texts


def merge(parts: Sequence[Cells]) -> Cells:
    """Cells of equal text and key become one."""
    table = pd.concat([pd.DataFrame(vars(part)) for part in parts])
    merged = table.groupby(["text", "key"], as_index=False).agg({"count": "sum", "low": "min", "high": "max"})
    return Cells(**{name: merged[name].to_numpy() for name in ("count", "key", "low", "high", "text")})


def run_fit(fits: Fitting, raw: Mapping[str, Any], chunks: int = 1) -> Any:
    """What a fit ends with."""
    answers: Any = None
    while True:
        try:
            wants = fits.send(answers)
        except StopIteration as end:
            return end.value
        answers = []
        for want in wants:
            parts = _split(raw, want.columns, chunks)
            answers.append(result_of(want.sketch, merge([want.sketch.cells(want.prepared(part)) for part in parts])))


def _split(raw: Mapping[str, Any], columns: tuple[str, ...], chunks: int) -> list[Raw]:
    arrays = {name: raw[name].values if isinstance(raw[name], Texts) else raw[name] for name in columns}
    parts: dict[str, list[Array]] = {name: np.array_split(array, chunks) for name, array in arrays.items()}
    return [{name: parts[name][number] for name in columns} for number in range(chunks)]
