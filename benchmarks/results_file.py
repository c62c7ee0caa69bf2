"""Where benchmarks keep what they found: one JSON file by section, and a page made of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.loader import machine

RESULTS = Path(__file__).resolve().parent / "results"

Page = Callable[[Mapping[str, Any]], list[str]]


def keep(name: str, section: str, values: Any, page: Page) -> None:
    """Put a section into ``results/<name>.json``, and write ``results/<name>.md`` anew from all sections."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    sections = json.loads(path.read_text()) if path.exists() else {}
    sections |= {section: values, "machine": machine()}
    path.write_text(json.dumps(sections, indent=1, ensure_ascii=False) + "\n")
    text = "\n".join(page(sections)) + "\n"
    path.with_suffix(".md").write_text(text)
    print(text, flush=True)


def table(head: list[str], rows: list[list[Any]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines] + [""]
