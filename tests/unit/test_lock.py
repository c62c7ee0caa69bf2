"""The lock files describe a whole environment: no resolver can say so, because two pins exclude each other on paper."""

from __future__ import annotations

from importlib.metadata import requires, version
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements"

# The lock files of the environment that runs the tests.
IS_DEFAULT = find_spec("horovod") is not None
SOURCES = ["runtime", "dev"] if IS_DEFAULT else ["modern", "modern-dev"]

EXTRAS = ["track", "serve", "report", "dev", *(["prepare", "train", "all"] if IS_DEFAULT else ["modern"])]

# (who, needs what) that the lock does not satisfy, and why that is right.
EXCEPTIONS = {
    ("petastorm", "setuptools"): "asks for < 70, but imports nothing of setuptools at run time; torch needs >= 77",
}
if not IS_DEFAULT:
    EXCEPTIONS = {}
# Installed with its own dependencies, which differ between its builds for CPU and GPU.
BRINGS_ITS_OWN = {"torch"}


def _pins(*names: str) -> dict[str, str]:
    lines = [line for name in names for line in (REQUIREMENTS / name).read_text().splitlines()]
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


PINS = _pins(*(f"{source}.lock" for source in SOURCES))


def _requirements(name: str) -> list[Requirement]:
    """What an installed distribution asks for on this machine, without its extras."""
    asked = [Requirement(line) for line in requires(name) or []]
    return [each for each in asked if each.marker is None or each.marker.evaluate({"extra": ""})]


@pytest.mark.parametrize("name", PINS)
def test_the_installed_version_is_the_locked_one(name: str) -> None:
    assert Version(version(name)).public == PINS[name]


@pytest.mark.parametrize("name", PINS)
def test_the_lock_satisfies_what_each_package_needs(name: str) -> None:
    unmet = []
    for requirement in _requirements(name):
        needed = canonicalize_name(requirement.name)
        if (name, needed) in EXCEPTIONS or (name in BRINGS_ITS_OWN and needed not in PINS):
            continue
        if needed not in PINS or not requirement.specifier.contains(PINS[needed], prereleases=True):
            unmet.append(f"{requirement} (locked: {PINS.get(needed)})")
    assert not unmet


@pytest.mark.parametrize(("name", "needed"), EXCEPTIONS)
def test_every_exception_is_still_needed(name: str, needed: str) -> None:
    asked = [each for each in _requirements(name) if canonicalize_name(each.name) == needed]
    assert [each for each in asked if not each.specifier.contains(PINS[needed])]


@pytest.mark.parametrize("name", sorted(BRINGS_ITS_OWN))
def test_what_a_build_brings_itself_is_installed(name: str) -> None:
    for requirement in _requirements(name):
        assert requirement.specifier.contains(version(requirement.name), prereleases=True)


def test_the_package_itself_needs_only_what_is_locked() -> None:
    for requirement in _requirements("spark-torch-pipeline"):
        assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_lock_satisfies_every_extra(extra: str) -> None:
    asked = [Requirement(line) for line in requires("spark-torch-pipeline") or []]
    for requirement in asked:
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)]), str(requirement)


def _named_in(name: str) -> list[Requirement]:
    lines = [line.partition("#")[0].strip() for line in (REQUIREMENTS / f"{name}.in").read_text().splitlines()]
    included = [each for line in lines if line.startswith("-r ") for each in _named_in(line[3:].removesuffix(".in"))]
    return included + [Requirement(line) for line in lines if line and not line.startswith("-r ")]


@pytest.mark.parametrize("name", SOURCES)
def test_lock_files_are_sorted_and_name_everything_of_their_source(name: str) -> None:
    pins = list(_pins(f"{name}.lock"))
    assert pins == sorted(set(pins))
    for wanted in _named_in(name):
        assert wanted.specifier.contains(PINS[canonicalize_name(wanted.name)])


def test_the_two_lock_files_do_not_overlap() -> None:
    runtime, development = (_pins(f"{name}.lock") for name in SOURCES)
    assert not runtime.keys() & development.keys()
