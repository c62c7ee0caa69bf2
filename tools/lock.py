"""Writes the lock files of a stack: the versions in this environment of all that its .in files name and need.

ANYWHERE, run by hand when a pin changes, with the Python of the stack's own environment. No resolver can make the
files of the default stack: Petastorm and torch exclude each other by a requirement on setuptools that neither has at
run time. So bring the environment to the wanted state with pip (`--no-deps` for petastorm), run the tests, then
`.venv/bin/python tools/lock.py`, or `STACK=modern .venv-modern/bin/python tools/lock.py`.
"""

from __future__ import annotations

from importlib.metadata import requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from stacks import REQUIREMENTS, Stack, chosen

HEADER = """\
# Made by tools/lock.py from {source} (Linux x86-64, Python 3.11): versions with which the tests passed.
# tools/setup_env.py installs them with `pip install --no-deps`; tests/unit/test_lock.py checks that none is missing.
"""


def named_in(source: Path) -> list[Requirement]:
    """The distributions that an .in file names, and those of the files that it includes (`-r other.in`)."""
    found = []
    for line in (line.partition("#")[0].strip() for line in source.read_text().splitlines()):
        if line.startswith("-r "):
            found += named_in(source.parent / line.removeprefix("-r ").strip())
        elif line:
            found.append(Requirement(line))
    return found


def needed_by(wanted: Requirement) -> list[Requirement]:
    """What an installed distribution needs on this machine, with the extras that are asked for."""
    asked = [Requirement(line) for line in requires(wanted.name) or []]
    extras = ["", *wanted.extras]
    return [
        each for each in asked if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras)
    ]


def closure(wanted: list[Requirement]) -> set[str]:
    """These distributions and all that they need."""
    found: set[tuple[str, frozenset[str]]] = set()
    waiting = list(wanted)
    while waiting:
        each = waiting.pop()
        key = (canonicalize_name(each.name), frozenset(each.extras))
        if key not in found:
            found.add(key)
            waiting += needed_by(each)
    return {name for name, _ in found}


def write(source: str, names: set[str]) -> None:
    """One `name==version` line each, without the local part (+cpu): that is the machine's affair."""
    lines = [f"{name}=={Version(version(name)).public}" for name in sorted(names)]
    path = REQUIREMENTS / f"{source}.lock"
    path.write_text(HEADER.format(source=f"{source}.in") + "\n".join(lines) + "\n")
    print(f"requirements/{path.name}: {len(lines)} packages")


def main(stack: Stack) -> None:
    """Write both lock files; what the runtime has already is not repeated for development."""
    runtime = closure(named_in(REQUIREMENTS / f"{stack.runtime}.in"))
    development = closure(named_in(REQUIREMENTS / f"{stack.development}.in"))
    write(stack.runtime, runtime)
    write(stack.development, development - runtime)


if __name__ == "__main__":
    main(chosen())
