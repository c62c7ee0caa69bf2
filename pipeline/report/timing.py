"""DRIVER. Where the run's time went: stage by stage, and within a training step."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.report.content import Content
from pipeline.report.markup import row, section, table, text

_WAITS = {"data_wait_share": "data", "communication_share": "each other", "checkpoint_share": "checkpoints"}


def timing(content: Content) -> str:
    """A row for each stage, and how fast the ranks trained."""
    seconds = {name: float(value) for name, value in (content.result.get("seconds") or {}).items()}
    reused = content.result.get("reused") or []
    longest = max([*seconds.values(), 1e-9])
    rows = [
        row([text(name), f"{value:.1f} s", _meter(value / longest) + (" reused" if name in reused else "")])
        for name, value in seconds.items()
    ]
    if rows:
        rows.append(row(["<b>all</b>", f"<b>{sum(seconds.values()):.1f} s</b>", ""]))
    note = "What is reused was done by an earlier command, in these seconds." if reused else ""
    return section("Time", table(["stage", "seconds", ""], rows, "words"), _training(content.epochs), note=note)


def _meter(share: float) -> str:
    return f"<span class='meter'><i style='width:{min(1.0, max(0.0, share)):.1%}'></i></span>"


def _training(epochs: Sequence[Mapping[str, Any]]) -> str:
    """How fast the ranks went and what they waited for, in the median epoch."""
    timed = [epoch for epoch in epochs if {"rows_per_second", *_WAITS} <= epoch.keys()]
    if not timed:
        return ""

    def median(name: str) -> float:
        return statistics.median(float(epoch[name]) for epoch in timed)

    waits = ", ".join(f"{median(name):.1%} for {what}" for name, what in _WAITS.items())
    return f"<p>The ranks trained {median('rows_per_second'):,.0f} rows a second, and of that time waited {waits}.</p>"
