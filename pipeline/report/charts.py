"""ANYWHERE. Small charts as SVG; colours come from the page's style, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from pipeline.metrics.regression import GRID

Point = Sequence[float]

_WIDTH, _HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 14, 30, 40


@dataclass(frozen=True)
class Line:
    """A named line.

    Attributes:
        style: a class of the page's style sheet.
        dots: draw the points.
        marked: the point to draw filled.
    """

    name: str
    points: Sequence[Point]
    style: str
    dots: bool = False
    marked: Point | None = None


@dataclass(frozen=True)
class Cell:
    """The rows around one point."""

    x: float
    y: float
    rows: int


@dataclass(frozen=True)
class Axis:
    """An axis from ``low`` to ``high`` with a label; nothing lies between the numbers of a whole one."""

    label: str
    low: float
    high: float
    whole: bool = False

    @classmethod
    def around(cls, label: str, values: Sequence[float]) -> Axis:
        """An axis with a little room around the values."""
        low, high = min(values), max(values)
        room = (high - low or abs(high) or 1.0) * 0.08
        return cls(label, low - room, high + room)

    def part(self, value: float) -> float:
        """Where a value lies, 0 to 1."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def ticks(self) -> list[float]:
        """About five round numbers."""
        raw = (self.high - self.low) / 5
        unit = 10.0 ** math.floor(math.log10(raw))
        step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * 0.999)
        step = max(1.0, step) if self.whole else step
        first = math.ceil(self.low / step - 1e-9)
        return [round(number * step, 12) for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def line_chart(lines: Sequence[Line], x: Axis, y: Axis, title: str, reference: Sequence[Point] = ()) -> str:
    """An SVG with a legend above it.

    Args:
        lines: what to draw, the first one on top.
        x: horizontal axis.
        y: vertical axis.
        title: of the chart.
        reference: a thin dashed line, such as the diagonal.
    """
    drawn = "".join(_line(line, x, y) for line in reversed(lines))
    dashed = f'<polyline class="reference" points="{_path(reference, x, y)}"/>' if reference else ""
    names = "".join(f'<span class="key {line.style}">{escape(line.name)}</span>' for line in lines)
    legend = f'<div class="legend">{names}</div>' if len(lines) > 1 else ""
    return (
        f'<figure><figcaption>{escape(title)}</figcaption>{legend}<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{_grid(x, y)}{dashed}{drawn}</svg></figure>'
    )


def cell_chart(cells: Sequence[Cell], x: Axis, y: Axis, title: str, style: str, per_side: int = GRID) -> str:
    """An SVG of how many rows lie where, with the diagonal dashed.

    Args:
        cells: middles of the cells that have rows.
        x: horizontal axis.
        y: vertical axis.
        title: of the chart.
        style: a class of the page's style sheet.
        per_side: cells of the whole axis.
    """
    width, height = (_WIDTH - _LEFT - _RIGHT) / per_side, (_HEIGHT - _TOP - _BOTTOM) / per_side
    most = max(cell.rows for cell in cells)
    drawn = "".join(
        f'<rect x="{_x(x, cell.x) - width / 2:.1f}" y="{_y(y, cell.y) - height / 2:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}" opacity="{0.12 + 0.88 * math.sqrt(cell.rows / most):.2f}">'
        f"<title>actual {_number(cell.x)}, predicted {_number(cell.y)}: {cell.rows:,} rows</title></rect>"
        for cell in cells
    )
    diagonal = _path(((x.low, y.low), (x.high, y.high)), x, y)
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{_grid(x, y)}<g class="cells {style}">{drawn}</g>'
        f'<polyline class="reference" points="{diagonal}"/></svg></figure>'
    )


def _line(line: Line, x: Axis, y: Axis) -> str:
    dots = "".join(_dot(line, point, x, y) for point in line.points) if line.dots else ""
    return f'<g class="line {line.style}"><polyline points="{_path(line.points, x, y)}"/>{dots}</g>'


def _dot(line: Line, point: Point, x: Axis, y: Axis) -> str:
    style = ' class="marked"' if line.marked is not None and tuple(point) == tuple(line.marked) else ""
    tip = f"{escape(line.name)}: {_number(point[0])}, {point[1]:.4g}"
    return f'<circle{style} cx="{_x(x, point[0]):.1f}" cy="{_y(y, point[1]):.1f}" r="3.4"><title>{tip}</title></circle>'


def _path(points: Sequence[Point], x: Axis, y: Axis) -> str:
    return " ".join(f"{_x(x, point[0]):.1f},{_y(y, point[1]):.1f}" for point in points)


def _x(axis: Axis, value: float) -> float:
    return _LEFT + axis.part(value) * (_WIDTH - _LEFT - _RIGHT)


def _y(axis: Axis, value: float) -> float:
    return _HEIGHT - _BOTTOM - axis.part(value) * (_HEIGHT - _TOP - _BOTTOM)


def _grid(x: Axis, y: Axis) -> str:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    across = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{_y(y, tick):.1f}" y2="{_y(y, tick):.1f}"/>'
        f'<text class="tick" x="{_LEFT - 8}" y="{_y(y, tick) + 4:.1f}" text-anchor="end">{_short(tick)}</text>'
        for tick in y.ticks()
    )
    below = "".join(
        f'<text class="tick" x="{_x(x, tick):.1f}" y="{bottom + 17}" text-anchor="middle">{_short(tick)}</text>'
        for tick in x.ticks()
    )
    labels = (
        f'<text class="axis" x="{right}" y="{_HEIGHT - 5}" text-anchor="end">{escape(x.label)}</text>'
        f'<text class="axis" x="2" y="{_TOP - 16}">{escape(y.label)}</text>'
    )
    return f'{across}{below}<line class="base" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>{labels}'


def _short(tick: float) -> str:
    """A tick's number, which has room for seven places."""
    return f"{tick / 1e6:,g}M" if abs(tick) >= 1e6 else _number(tick)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"
