"""DRIVER. What the report's sections are made of: escaped text, metrics, tables."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

from pipeline.inference.evaluate import number


def text(value: object) -> str:
    """A value as HTML text."""
    return html.escape(str(value))


def metric(value: float | None) -> str:
    """A metric as text; what is not defined is a dash."""
    return "–" if value is None or math.isnan(value) else number(value)


def table(head: Sequence[str], rows: Iterable[str]) -> str:
    """A table of rows under a head, which scrolls by itself where it is too wide."""
    names = "".join(f"<th>{text(name)}</th>" for name in head)
    return f'<div class="scroll"><table><tr>{names}</tr>{"".join(rows)}</table></div>'


def row(cells: Sequence[str], style: str = "") -> str:
    """A row of cells, each HTML already; one that begins with ``<td`` brings its own style."""
    attribute = f' class="{style}"' if style else ""
    return f"<tr{attribute}>{''.join(cell if cell.startswith('<td') else f'<td>{cell}</td>' for cell in cells)}</tr>"
