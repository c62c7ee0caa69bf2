"""What the documents name is there: files behind links, tests behind promises, verbs and make targets in commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline import cli
from tests.conftest import REPOSITORY

DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md"), REPOSITORY / "docker" / "README.md"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_to_files_and_headings(document: Path) -> None:
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        path, _, heading = link.partition("#")
        if "://" in path:
            continue
        target = document if not path else document.parent / path
        if not target.exists() or (heading and heading not in _headings(target)):
            lost.append(link)
    assert lost == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_tests_and_jobs_that_are_named_exist(document: Path) -> None:
    named = set(re.findall(r"\b(?:tests|jobs|tools|benchmarks)/[\w/]+\.(?:py|md|sh)\b", document.read_text()))
    assert [name for name in sorted(named) if not (REPOSITORY / name).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_commands_are_verbs_of_the_command_line(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = document.read_text()
    commands = re.findall(r"(?:^|`|bin/|\$ )pipeline ([a-z]+)\b", text, re.MULTILINE)
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    verbs = set(re.findall(r"^    ([a-z]+) ", capsys.readouterr().out, re.MULTILINE))
    assert {"run", "score", "doctor"} <= verbs
    assert sorted(set(commands) - verbs) == []
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert sorted(set(re.findall(r"(?:^|`)make ([a-z]+)\b", text, re.MULTILINE)) - targets) == []


def _headings(document: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    lines = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}
