"""A Horovod wheel for the torch in the environment: from the user's cache, or built once from the sdist.

ANYWHERE, standard library only. Horovod 0.28.1 (its last release) asks for C++14, torch's headers from 2.1 on
need C++17: two lines of its CMake files are changed, nothing else. Its build needs cmake below 4, because of the
Gloo inside.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from pathlib import Path

from console import REPEAT, Console, SetupError
from user_cache import cache_folder, locked

SDIST_SHA256 = {"0.28.1": "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"}
MENDED_FILES = ("CMakeLists.txt", "horovod/torch/CMakeLists.txt")
BUILD_SETTINGS = {
    "HOROVOD_WITH_PYTORCH": "1",
    "HOROVOD_WITH_GLOO": "1",
    "HOROVOD_WITHOUT_MPI": "1",
    "HOROVOD_WITHOUT_TENSORFLOW": "1",
    "HOROVOD_WITHOUT_MXNET": "1",
    "HOROVOD_CPU_OPERATIONS": "GLOO",
}
CMAKE = "cmake>=3.25,<4"
BYTES_PER_COMPILER = 2 * 2**30  # torch's headers make compilers large


def build_obstacles() -> list[str]:
    """What this machine lacks for a build, one line each with what to install."""
    obstacles = []
    compilers = [os.environ.get("CXX", "").split(" ")[0], "c++", "g++", "clang++"]
    if not any(name and shutil.which(name) for name in compilers):
        obstacles.append("no C++ compiler on PATH; install one (Debian, Ubuntu: g++; Fedora: gcc-c++)")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        obstacles.append(
            f"the headers of {sys.executable} are missing ({header}); install them "
            "(Debian, Ubuntu: python3.11-dev; Fedora: python3.11-devel)"
        )
    return obstacles


def is_cached(horovod: str, torch: str) -> bool:
    """Whether a wheel for some build of this torch is there; which build is known once torch is installed."""
    return any((cache_folder() / "wheels").glob(f"{_key(horovod, torch + '*')}/*.whl"))


def wheel_for(horovod: str, torch: str, python: Path, console: Console) -> Path:
    """The wheel of this Horovod for exactly this torch build, built now if the user has none yet.

    Args:
        horovod: the version.
        torch: the version with its local part, such as 2.13.0+cpu.
        python: the environment's interpreter, with torch and setuptools installed.
        console: runs the commands.

    Raises:
        SetupError: the machine lacks something, the download is not the known one, or the build fails.
    """
    folder = cache_folder() / "wheels" / _key(horovod, torch)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock", "      another set-up is building this wheel; waiting for it"):
        if not list(folder.glob("*.whl")):
            if obstacles := build_obstacles():
                raise SetupError(*obstacles)
            prefix = f"horovod-build-{_digest(folder.name)}-"
            for left_by_a_killed_one in cache_folder().glob(f"{prefix}*"):
                shutil.rmtree(left_by_a_killed_one, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=prefix, dir=_build_place()) as work:
                built = _build(horovod, Path(work), python, console)
                shutil.copyfile(built, folder / "unfinished")
                (folder / "unfinished").replace(folder / built.name)
        return next(folder.glob("*.whl"))


def forget(wheel: Path) -> None:
    """Take a wheel that does not load out of the cache."""
    wheel.unlink(missing_ok=True)


def _settings() -> dict[str, str]:
    """Gloo on the CPU, unless the user's environment says more (HOROVOD_GPU_OPERATIONS=NCCL, ...)."""
    return BUILD_SETTINGS | {name: value for name, value in os.environ.items() if name.startswith("HOROVOD_")}


def _key(horovod: str, torch: str) -> str:
    """Everything that a compiled wheel depends on."""
    machine = [sys.implementation.cache_tag, sysconfig.get_platform(), *platform.libc_ver()]
    settings = _digest(json.dumps([_settings(), MENDED_FILES], sort_keys=True))
    return "-".join(["horovod", horovod, "torch", torch, *machine, settings])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _build_place() -> Path | None:
    """The user's cache; None, for the system's temporary folder, where the path of the cache would break the build.

    Horovod's CMake files use the path of the sources as a regular expression: a `+` in it puts the extension
    somewhere else than into the wheel.
    """
    return cache_folder() if re.fullmatch(r"[\w/.-]+", str(cache_folder())) else None


def _build(horovod: str, work: Path, python: Path, console: Console) -> Path:
    if not _has_fitting_cmake(_search_path(python)):
        console.run([python, "-m", "pip", "install", CMAKE], f"cmake could not be installed; {REPEAT}")
    # The environment by another name, since the checkout may lie below a folder with spaces.
    (work / "venv").symlink_to(python.parent.parent)
    python = work / "venv" / "bin" / python.name
    pip: list[str | Path] = [python, "-m", "pip"]
    from_source = ["--no-deps", "--no-build-isolation", "--no-binary", "horovod"]
    console.run(
        [*pip, "download", *from_source, "-d", work, f"horovod=={horovod}"],
        f"Horovod's sources could not be fetched; {REPEAT}",
    )
    source = _unpack(work / f"horovod-{horovod}.tar.gz", SDIST_SHA256[horovod])
    _mend(source)
    console.run(
        [*pip, "wheel", "-v", *from_source, "-w", work / "wheel", source],
        "Horovod could not be built",
        environment=_settings() | {"MAKEFLAGS": f"-j{_compilers()}", "PATH": _search_path(python)},
        progress=_percentage,
    )
    wheel = next((work / "wheel").glob("horovod-*.whl"))
    with zipfile.ZipFile(wheel) as content:
        if not any(name.startswith("horovod/torch/mpi_lib") for name in content.namelist()):
            raise SetupError("Horovod was built without its torch extension; the log file may say why")
    return wheel


def _search_path(python: Path) -> str:
    return f"{python.parent}{os.pathsep}{os.environ['PATH']}"


def _has_fitting_cmake(search_path: str) -> bool:
    program = shutil.which("cmake", path=search_path)
    if program is None:
        return False
    with contextlib.suppress(OSError):
        said = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
        if found := re.search(r"(\d+)\.(\d+)", said):
            return (3, 25) <= (int(found[1]), int(found[2])) < (4, 0)
    return False


def _unpack(archive: Path, sha256: str) -> Path:
    if hashlib.sha256(archive.read_bytes()).hexdigest() != sha256:
        raise SetupError(f"sha256 of {archive.name} is not {sha256}; see which index pip uses")
    with tarfile.open(archive) as sources:
        sources.extractall(archive.parent)
    return archive.parent / archive.name.removesuffix(".tar.gz")


def _mend(source: Path) -> None:
    for name in MENDED_FILES:
        path = source / name
        text = path.read_text()
        if text.count("set(CMAKE_CXX_STANDARD 14)") != 1:
            raise SetupError(f"{name} of Horovod does not ask for C++14 exactly once; the mend does not fit")
        path.write_text(text.replace("set(CMAKE_CXX_STANDARD 14)", "set(CMAKE_CXX_STANDARD 17)"))


def _compilers() -> int:
    """As many as there are cores and memory for."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(len(os.sched_getaffinity(0)), memory // BYTES_PER_COMPILER))


def _percentage(output: str) -> str:
    found = re.findall(r"\[ *(\d+)%\]", output)
    return f"compiling, {found[-1]} %" if found else "compiling"
