"""The two sets of packages that this project is tested with, and where each of them lives.

ANYWHERE, standard library only: set-up runs before any package is installed. The variable STACK chooses one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from user_cache import ROOT

REQUIREMENTS = ROOT / "requirements"


@dataclass(frozen=True)
class Stack:
    """One environment.

    Attributes:
        name: as STACK says it.
        folder: of the environment, in the checkout.
        runtime, development: names of the sources of its lock files, which say which distributions are wanted.
        pythons: versions of Python that it may be made with, the first choice first.
        not_by_list: what set-up does not install from the lock file like all else.
    """

    name: str
    folder: str
    runtime: str
    development: str
    pythons: tuple[tuple[int, int], ...]
    not_by_list: tuple[str, ...]

    @property
    def venv(self) -> Path:
        """The environment."""
        return ROOT / self.folder

    @property
    def runtime_lock(self) -> Path:
        """What the package uses itself."""
        return REQUIREMENTS / f"{self.runtime}.lock"

    @property
    def dev_lock(self) -> Path:
        """What tests and checks need beside it."""
        return REQUIREMENTS / f"{self.development}.lock"

    @property
    def has_horovod(self) -> bool:
        """Whether Horovod is built for it."""
        return "horovod" in self.not_by_list


DEFAULT = Stack("default", ".venv", "runtime", "dev", ((3, 11),), ("torch", "horovod"))
MODERN = Stack("modern", ".venv-modern", "modern", "modern-dev", ((3, 11), (3, 12)), ("torch",))
STACKS = {stack.name: stack for stack in (DEFAULT, MODERN)}


def chosen() -> Stack:
    """The stack that the variable STACK names; without it, the default one.

    Raises:
        ValueError: there is none of that name.
    """
    name = os.environ.get("STACK") or DEFAULT.name
    if name not in STACKS:
        raise ValueError(f"STACK is {name}; expected {' or '.join(STACKS)}")
    return STACKS[name]
