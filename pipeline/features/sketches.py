"""ANYWHERE. Statistics that do not depend on the order of addition, and how fits ask for them.

A sketch turns an array into *cells*; cells with the same key are merged by adding counts and taking the lowest
and highest value, which any engine does exactly in any order. `result` then reads the statistic off the merged cells.
`pipeline.features.exact` has sums, `pipeline.features.quantiles` quantiles; value counts are here.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.features.counted import Counted, counted
from pipeline.features.kinds import Array
from pipeline.features.lists import Lists, present
from pipeline.features.texts import Texts, coded, objects

Bits = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cells:
    """Mergeable counts by integer key, with the lowest and highest value seen under it, or by text."""

    count: Bits
    key: Bits
    low: Bits
    high: Bits
    text: Array

    @classmethod
    def of_keys(cls, count: Bits, key: Bits, low: Bits, high: Bits) -> Cells:
        """Counts by integer."""
        return cls(count, key, low, high, np.full(len(count), "", dtype=object))

    @classmethod
    def of_texts(cls, count: Bits, text: Array) -> Cells:
        """Counts by text."""
        zero = np.zeros(len(count), dtype=np.int64)
        return cls(count, zero, zero, zero, text)

    @classmethod
    def merged(cls, many: Sequence[Cells]) -> Cells:
        """Cells of one sketch over several arrays as if of one."""
        if len(many) == 1:
            return many[0]
        parts = {
            name: np.concatenate([getattr(cells, name) for cells in many])
            for name in ("count", "key", "low", "high", "text")
        }
        code, _ = pd.factorize(parts["text"])
        order = np.lexsort((parts["key"], code))
        count, key, low, high, text, code = (part[order] for part in (*parts.values(), code))
        is_first = np.append(np.ones(min(1, len(key)), dtype=bool), (np.diff(key) != 0) | (np.diff(code) != 0))
        first = np.flatnonzero(is_first)
        if not len(first):
            return many[0]
        low, high = np.minimum.reduceat(low, first), np.maximum.reduceat(high, first)
        return cls(np.add.reduceat(count, first), key[first], low, high, text[first])

    def most_frequent(self, limit: int, min_count: int) -> Cells:
        """Those of the largest counts, then of the smallest text and key; none of a count below the least."""
        chosen = np.flatnonzero(self.count >= min_count)
        _, text = np.unique(objects([text.encode() for text in self.text[chosen]]), return_inverse=True)
        order = chosen[np.lexsort((self.key[chosen], text, -self.count[chosen]))][:limit]
        return Cells(*(each[order] for each in (self.count, self.key, self.low, self.high, self.text)))


class Sketch(Protocol):
    """What can be asked about the values of a column: a frozen dataclass, equal if it asks the same."""

    @property
    def limit(self) -> int | None:
        """The most cells that are wanted, those of the largest count first, then of the smallest text."""
        ...

    @property
    def min_count(self) -> int:
        """Merged cells with a smaller count are left out."""
        ...

    def cells(self, values: Any) -> Cells:
        """The cells of some values; missing ones do not count."""
        ...

    def result(self, cells: Cells) -> Any:
        """The statistic, from the merged cells."""
        ...


@dataclass(frozen=True)
class Want:
    """A statistic wanted of some raw columns, prepared as far as the feature knows how to.

    Equal wants are answered once: of two features, or of a feature and the profile of its column.
    """

    columns: tuple[str, ...]
    prepared: Any
    """A picklable and hashable function from canonical raw columns by name to the values that are measured.

    Numbers of one column are of each row by itself; the function may leave out rows that have no value, no others."""
    sketch: Sketch


Fitting = Generator[Sequence[Want], Sequence[Any], Any]
"""A fit asks for statistics, round by round, and ends with its result; the engine answers a round in one pass."""


def ask(columns: tuple[str, ...], prepared: Any, sketch: Sketch) -> Fitting:
    """One statistic in a round of its own."""
    (answer,) = yield [Want(columns, prepared, sketch)]
    return answer


def side_by_side(fits: Sequence[Fitting]) -> Fitting:
    """Advance independent fits in lockstep, so that one pass over the rows serves them all; gives their results."""
    results: list[Any] = [None] * len(fits)
    answers: dict[int, Any] = dict.fromkeys(range(len(fits)))
    while answers:
        rounds: dict[int, Sequence[Want]] = {}
        for position, answer in answers.items():
            try:
                rounds[position] = fits[position].send(answer)
            except StopIteration as end:
                results[position] = end.value
        if not rounds:
            break
        found = iter((yield [want for wants in rounds.values() for want in wants]))
        answers = {position: [next(found) for _ in wants] for position, wants in rounds.items()}
    return results


def result_of(sketch: Sketch, cells: Cells) -> Any:
    """The statistic from all merged cells of a sketch, of which it may want only the most frequent."""
    return sketch.result(cells if sketch.limit is None else cells.most_frequent(sketch.limit, sketch.min_count))


def ordered_bits(values: Array) -> Bits:
    """The bits of float64 values as integers of the same order."""
    bits = (values + 0.0).view(np.int64)
    return np.where(bits < 0, bits ^ np.int64(0x7FFF_FFFF_FFFF_FFFF), bits)


def float_of_bits(ordered: Bits) -> Array:
    """The inverse of `ordered_bits`."""
    return np.where(ordered < 0, ordered ^ np.int64(0x7FFF_FFFF_FFFF_FFFF), ordered).view(np.float64)


@dataclass(frozen=True)
class Present:
    """How many rows there are, and how many of them have a value."""

    limit: int | None = None
    min_count: int = 0

    def cells(self, values: Array | Counted | Texts | Lists) -> Cells:
        if isinstance(values, Counted):
            there, rows = values.present, values.present + values.missing
        else:
            there, rows = int(present(values).sum()), len(values)
        counts = np.array([rows, there], dtype=np.int64)
        keys = np.array([0, 1], dtype=np.int64)
        return Cells.of_keys(counts, keys, np.zeros_like(keys), np.zeros_like(keys))

    def result(self, cells: Cells) -> tuple[int, int]:
        found = dict(zip(cells.key.tolist(), cells.count.tolist(), strict=True))
        return found.get(0, 0), found.get(1, 0)


@dataclass(frozen=True)
class Values:
    """The most frequent values of a column of texts with their counts: by count descending, then value ascending."""

    limit: int | None = None
    min_count: int = 1

    def cells(self, values: Array | Texts) -> Cells:
        texts = coded(values)
        counts = np.bincount(texts.codes + 1, minlength=len(texts.names) + 1)[1:].astype(np.int64)
        seen = counts > 0
        return Cells.of_texts(counts[seen], texts.names[seen])

    def result(self, cells: Cells) -> list[tuple[str, int]]:
        pairs = zip(cells.text.tolist(), cells.count.tolist(), strict=True)
        return sorted(pairs, key=lambda pair: (-pair[1], pair[0].encode()))


@dataclass(frozen=True)
class Mode:
    """The most frequent number, the smallest of several."""

    limit: int | None = 1
    min_count: int = 1

    def cells(self, values: Array | Counted) -> Cells:
        numbers = counted(values)
        keys, places = np.unique(ordered_bits(numbers.values), return_inverse=True)
        return Cells.of_keys(numbers.rows_by(places, len(keys)), keys, keys, keys)

    def result(self, cells: Cells) -> float | None:
        return float(float_of_bits(cells.key[:1])[0]) if len(cells.key) else None
