"""Writes requirements/*.lock: the versions in this environment of all that requirements/*.in name and need.

ANYWHERE, run by hand when a pin changes. No resolver can make these files: Petastorm and torch exclude each
other by a requirement on setuptools that neither has at run time. So bring the environment to the wanted state
with pip (`--no-deps` for petastorm), run the tests, then `.venv/bin/python tools/lock.py`.
"""

from __future__ import annotations

from importlib.metadata import requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"

HEADER = """\
# Made by tools/lock.py from {source} (Linux x86-64, Python 3.11): versions with which the tests passed.
# tools/setup_env.py installs them with `pip install --no-deps`; tests/unit/test_lock.py checks that none is missing.
"""


def named_in(source: Path) -> list[str]:
    """The distributions that an .in file names."""
    lines = (line.partition("#")[0].strip() for line in source.read_text().splitlines())
    return [canonicalize_name(Requirement(line).name) for line in lines if line]


def needed_by(name: str) -> list[str]:
    """The distributions that an installed one needs on this machine, without its extras."""
    wanted = [Requirement(line) for line in requires(name) or []]
    here = [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    return [canonicalize_name(each.name) for each in here]


def closure(names: list[str]) -> set[str]:
    """These distributions and all that they need."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += needed_by(name)
    return found


def write(source: Path, names: set[str]) -> None:
    """One `name==version` line each, without the local part (+cpu): that is the machine's affair."""
    lines = [f"{name}=={Version(version(name)).public}" for name in sorted(names)]
    source.with_suffix(".lock").write_text(HEADER.format(source=source.name) + "\n".join(lines) + "\n")
    print(f"requirements/{source.stem}.lock: {len(lines)} packages")


def main() -> None:
    """Write both lock files; what the runtime has already is not repeated for development."""
    runtime = closure(named_in(REQUIREMENTS / "runtime.in"))
    development = closure(named_in(REQUIREMENTS / "dev.in"))
    write(REQUIREMENTS / "runtime.in", runtime)
    write(REQUIREMENTS / "dev.in", development - runtime)


if __name__ == "__main__":
    main()
