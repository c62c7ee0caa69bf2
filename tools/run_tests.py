"""Lint, then pytest; ends with a line `RESULT {json}` and exit code 0 only if all of it passed.

ANYWHERE, run by `make test`. Arguments are pytest's. Checks that fail do not keep the tests from running: one call
tells all that is wrong. The checks are of the sources, and run once, with the default stack.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

from stacks import chosen

ROOT = Path(__file__).resolve().parent.parent
LINT = {
    "ruff check": ["-m", "ruff", "check", "."],
    "ruff format": ["-m", "ruff", "format", "--check", "."],
    "mypy": ["-m", "mypy"],
}


def main(pytest_arguments: list[str]) -> int:
    """Run everything, report, and return the exit code."""
    started = time.monotonic()
    checks = LINT if chosen().name == "default" else {}
    findings = [name for name, command in checks.items() if run(name, command) != 0]
    linted = time.monotonic()
    code, counts = run_pytest(pytest_arguments)
    ended = time.monotonic()
    status = "ok" if code == 0 and not findings else "failed"
    result = {
        "status": status,
        "stage": "test",
        "code": int(status == "failed"),
        **counts,
        "lint": findings or ("ok" if checks else "with the default stack"),
        "seconds": {"lint": round(linted - started, 1), "test": round(ended - linted, 1)},
    }
    print(f"RESULT {json.dumps(result)}", flush=True)
    return int(status == "failed")


def run(name: str, command: list[str]) -> int:
    """One command of this environment, with its name above its output."""
    print(f"--- {name}", flush=True)
    return subprocess.run([sys.executable, *command], cwd=ROOT).returncode


def run_pytest(arguments: list[str]) -> tuple[int, dict[str, int]]:
    """Pytest's exit code, and how many tests passed, failed and were skipped (nothing counted if it crashed)."""
    with tempfile.TemporaryDirectory() as folder:
        summary = Path(folder) / "summary.xml"
        code = run("pytest", ["-m", "pytest", f"--junit-xml={summary}", *arguments])
        return code, count(summary) if summary.exists() else {}


def count(summary: Path) -> dict[str, int]:
    """The totals of a JUnit file."""
    suites = ET.parse(summary).getroot().findall("testsuite")
    total, failed, errors, skipped = (
        sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
    )
    return {"passed": total - failed - errors - skipped, "failed": failed + errors, "skipped": skipped}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
