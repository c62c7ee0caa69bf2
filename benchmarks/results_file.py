"""Where benchmarks keep what they found: one JSON file by section, and a page made of it that begins with its goals."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"

Page = Callable[[Mapping[str, Any]], list[str]]


@dataclass(frozen=True)
class Goal:
    """Something that is meant to be reached.

    Attributes:
        what: is compared, in words.
        reached: as measured; None if it has not been.
        bound: to reach at least, or at most.
    """

    what: str
    reached: float | None
    bound: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether it is reached; what is not measured is not."""
        if self.reached is None:
            return False
        return self.reached <= self.bound if self.at_most else self.reached >= self.bound

    def row(self) -> list[str]:
        """Of the table of goals."""
        reached = "not measured" if self.reached is None else three_digits(self.reached)
        bound = f"{'at most' if self.at_most else 'at least'} {self.bound:g}"
        return [self.what, reached, bound, "met" if self.met else "**missed**"]


def kept(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """The sections that ``<name>.json`` holds."""
    path = folder / f"{name}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def keep(name: str, sections: Mapping[str, Any], page: Page, folder: Path = RESULTS) -> None:
    """Lay sections over those of ``<name>.json``, and write ``<name>.md`` anew from all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    everything = {**kept(name, folder), "machine": machine(), **sections}
    (folder / f"{name}.json").write_text(json.dumps(everything, indent=1, ensure_ascii=False) + "\n")
    print(write_page(name, page, folder), flush=True)


def write_page(name: str, page: Page, folder: Path = RESULTS) -> str:
    """Write ``<name>.md`` from ``<name>.json``; returns it."""
    text = "\n".join(page(kept(name, folder))).rstrip() + "\n"
    (folder / f"{name}.md").write_text(text)
    return text


def document(title: str, origin: str, goals: Sequence[Goal], lines: Sequence[str]) -> list[str]:
    """A page: its title, which goals are met and which missed, where that was measured, and all the rest."""
    met = sum(goal.met for goal in goals)
    reached = table([f"{met} of {len(goals)} goals met", "reached", "goal", ""], [goal.row() for goal in goals])
    return [f"# {title}", "", *(reached if goals else []), origin, "", *lines]


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines] + [""]


def three_digits(value: float) -> str:
    """A number for people."""
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def machine() -> str:
    """The machine in a line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    python = platform.python_version()
    return f"{platform.system()} {platform.machine()}, {cpu}, {os.cpu_count()} cores, load {load}, Python {python}"
