"""Results of benchmarks are kept in one way: records as JSON, and pages made of them that begin with the goals."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.pages import PAGES
from benchmarks.results_file import RESULTS, Goal, document, keep, kept, write_page


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_its_record_says(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.json").write_bytes((RESULTS / f"{name}.json").read_bytes())
    written = write_page(name, PAGES[name], tmp_path)
    assert written == (RESULTS / f"{name}.md").read_text(), "write it anew: python -m benchmarks pages"


def test_a_page_begins_with_the_goals_that_are_met_and_missed() -> None:
    goals = [Goal("fast", 4.0, 4), Goal("slow", 1.9, 2), Goal("waits", 3, 2.9, at_most=True), Goal("never", None, 1)]
    page = document("Title", "a machine", goals, ["the rest"])
    assert page[2] == "| 1 of 4 goals met | reached | goal |  |"
    assert page[4:8] == [
        "| fast | 4 | at least 4 | met |",
        "| slow | 1.9 | at least 2 | **missed** |",
        "| waits | 3 | at most 2.9 | **missed** |",
        "| never | not measured | at least 1 | **missed** |",
    ]


def test_a_measured_section_is_laid_over_the_others(tmp_path: Path) -> None:
    page = lambda sections: [str(sections["one"]), str(sections.get("other"))]  # noqa: E731
    keep("x", {"one": 1, "machine": "m"}, page, tmp_path)
    keep("x", {"other": 2}, page, tmp_path)
    assert {name: kept("x", tmp_path)[name] for name in ("one", "other")} == {"one": 1, "other": 2}
    assert (tmp_path / "x.md").read_text() == "1\n2\n"
