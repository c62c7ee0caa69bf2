"""DRIVER. What the report's sections are made of: escaped text, metrics, tables, headings.

Whatever comes from data or configuration passes through `text`, which escapes it.
"""

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


def section(title: str, *parts: str, note: str = "") -> str:
    """Parts under a heading, with a line of small print below it; nothing without parts."""
    small_print = f"<p class='note'>{note}</p>" if note else ""
    return f"<h2>{title}</h2>{small_print}{''.join(parts)}" if any(parts) else ""


def side_by_side(*parts: str) -> str:
    """Parts in two columns, below each other where the page is narrow."""
    return f"<div class='grid2'>{''.join(parts)}</div>" if any(parts) else ""


def folded(title: str, part: str) -> str:
    """A part that a click shows."""
    return f"<details><summary>{title}</summary>{part}</details>" if part else ""


def table(head: Sequence[str], rows: Iterable[str], style: str = "") -> str:
    """A table of rows under a head, which scrolls by itself where it is too wide; nothing without rows.

    Args:
        head: names of the columns, not escaped yet.
        rows: what `row` gives.
        style: ``words`` if the last column is to be read, not compared.
    """
    body = "".join(rows)
    names = "".join(f"<th>{text(name)}</th>" for name in head)
    attribute = f' class="{style}"' if style else ""
    return f'<div class="scroll"><table{attribute}><tr>{names}</tr>{body}</table></div>' if body else ""


def row(cells: Sequence[str], style: str = "") -> str:
    """A row of cells, each HTML already; one that begins with ``<td`` brings its own style."""
    attribute = f' class="{style}"' if style else ""
    return f"<tr{attribute}>{''.join(cell if cell.startswith('<td') else f'<td>{cell}</td>' for cell in cells)}</tr>"
