"""Brings an environment to the state that its lock files describe: packages, torch, Java, Horovod, this package.

ANYWHERE, run by `make setup` through setup.sh, standard library only. The variable STACK chooses which one. It may be
stopped at any moment and repeated: each step sees what is already there, and the stamp that makes the next call quick
is written last.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import horovod_wheel
from console import REPEAT, Console, SetupError
from stacks import STACKS, chosen
from user_cache import ROOT, locked

if os.environ.get("STACK", "") not in ("", *STACKS):
    print(f"error[2]: STACK is {os.environ['STACK']}; expected {' or '.join(STACKS)}", file=sys.stderr)
    sys.exit(2)
if not sys.platform.startswith("linux"):
    print(f"error[69]: this system is {sys.platform}; expected Linux; use a container", file=sys.stderr)
    sys.exit(69)
STACK = chosen()
VENV = STACK.venv
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "set-up-done"
HOROVOD_ORIGIN = VENV / "horovod-wheel"
RUNTIME_ONLY = "--runtime-only" in sys.argv[1:]  # for images: without what tests and checks need
LOCKS = [STACK.runtime_lock] if RUNTIME_ONLY else [STACK.runtime_lock, STACK.dev_lock]
BUILD_TOOLS = ("setuptools", "wheel")
NOT_BY_LIST = STACK.not_by_list  # torch brings what its build needs, Horovod is built
NEEDED_BYTES = 4 * 2**30


def main() -> int:
    """Set up, or say in one line per thing what is in the way."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with locked(ROOT / ".setup.lock", "another set-up works in this checkout; waiting for it") as lock:
            if _is_done():
                print(f"set-up: {STACK.folder} is up to date")
                return 0
            _set_up(lock)
    except SetupError as error:
        for line in error.args:
            print(line if line.startswith("ERROR") else f"error[69]: {line}", file=sys.stderr)
        return 69
    except KeyboardInterrupt:
        print("\nerror[75]: set-up was interrupted; run the same command again to go on", file=sys.stderr)
        return 75
    except OSError as error:
        print(f"error[74]: {error}; make room or change permissions, then repeat", file=sys.stderr)
        return 74
    return 0


def _interrupt(number: int, _: object) -> NoReturn:
    raise KeyboardInterrupt


def _set_up(lock: int) -> None:
    started = time.monotonic()
    pins = read_pins()
    _check_machine(pins)
    VENV.mkdir(exist_ok=True)
    console = Console(7 if STACK.has_horovod else 6, VENV / "set-up.log", lock)
    with console.step(f"private environment in {STACK.folder}"):
        _make_venv(console)
        _remove_half_installed()
    with console.step(f"{len(pins) - len(NOT_BY_LIST)} packages of the lock files"):
        _install_packages(pins, console)
    with console.step(f"torch {pins['torch']} ({_torch_origin()})"):
        torch = _install_torch(pins["torch"], console)
    if STACK.has_horovod:
        with console.step(f"Horovod {pins['horovod']} for torch {torch} (built once per user: some minutes)"):
            _install_horovod(pins["horovod"], torch, console)
    with console.step("this package, editable"):
        command = _pip("install", "--no-deps", "--no-build-isolation", "--editable", ROOT)
        console.run(command, "this package could not be installed")
    with console.step("Spark's classes, read ahead, so that Spark starts in half the time"):
        _read_classes_ahead(console)
    with console.step("check: `pipeline doctor`"):
        command = [VENV / "bin" / "pipeline", "doctor"]
        console.run(command, f"the environment does not work; `{STACK.folder}/bin/pipeline doctor` says why")
    STAMP.write_text(_state())
    print(f"set-up: {STACK.folder} is ready after {time.monotonic() - started:.0f} s")


def _read_classes_ahead(console: Console) -> None:
    """Spark works without; `pipeline doctor` says so, and what to do."""
    with contextlib.suppress(SetupError):
        console.run([VENV / "bin" / "pipeline", "doctor", "--class-archive"], "no archive of Spark's classes")


def read_pins() -> dict[str, str]:
    """Name and version of every line of the lock files."""
    lines = [line.strip() for path in LOCKS for line in path.read_text().splitlines()]
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def _is_done() -> bool:
    return STAMP.exists() and PYTHON.exists() and STAMP.read_text() == _state()


def _state() -> str:
    """Changes with all that set-up depends on, the place of the checkout included: scripts hold its path."""
    programs = [ROOT / "tools" / name for name in ("setup_env.py", "horovod_wheel.py", "stacks.py")]
    sources = [*LOCKS, *programs, ROOT / "setup.cfg", ROOT / "pyproject.toml"]
    digest = hashlib.sha256(str(ROOT).encode())
    for path in sources:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _check_machine(pins: dict[str, str]) -> None:
    obstacles = []
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        obstacles.append(f"{sys.executable} has no venv; install it (Debian, Ubuntu: python3.11-venv)")
    if STACK.has_horovod and not horovod_wheel.is_cached(pins["horovod"], pins["torch"]):
        obstacles += horovod_wheel.build_obstacles()
    free = shutil.disk_usage(ROOT).free
    if not VENV.exists() and free < NEEDED_BYTES:
        wanted = f"expected {NEEDED_BYTES / 2**30:.0f} or more; make room"
        obstacles.append(f"free disk at {ROOT} is {free / 2**30:.1f} GiB; {wanted}")
    if obstacles:
        raise SetupError(*obstacles)


def _pip(*arguments: str | Path) -> list[str | Path]:
    return [PYTHON, "-m", "pip", *arguments]


def _make_venv(console: Console) -> None:
    """A venv with a working pip; one of another Python version is the user's to remove."""
    wanted = ".".join(map(str, sys.version_info[:2]))
    if (found := _ask("import sys; print(*sys.version_info[:2], sep='.')")) not in (None, wanted):
        folder = STACK.folder
        raise SetupError(f"{folder} was made with Python {found}, not {wanted}; remove the folder {folder} and repeat")
    if _ask("import pip") is None:
        console.run([sys.executable, "-m", "venv", VENV], "the virtual environment could not be made")


def _ask(code: str) -> str | None:
    """What a line of code prints in the environment; None if it fails."""
    try:
        answer = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True)
    except OSError:
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _remove_half_installed() -> None:
    """Forget packages whose installation was killed: pip takes one with METADATA for whole."""
    for metadata in (VENV / "lib").glob("python*/site-packages/*.dist-info"):
        record = metadata / "RECORD"
        files = record.read_text().splitlines() if record.exists() else ["RECORD,,"]
        paths = (line.rsplit(",", 2)[0].strip('"') for line in files)
        if not all((metadata.parent / path).exists() for path in paths if not path.endswith(".pyc")):
            shutil.rmtree(metadata)


def _install_packages(pins: dict[str, str], console: Console) -> None:
    failure = f"packages could not be installed; {REPEAT}"
    lines = {name: f"{name}=={version}" for name, version in pins.items() if name not in NOT_BY_LIST}
    console.run(_pip("install", "--no-deps", *(lines[name] for name in BUILD_TOOLS)), failure)
    console.run(_pip("install", "--no-deps", "--no-build-isolation", *lines.values()), failure)


def _torch_origin() -> str:
    return os.environ.get("TORCH_INDEX") or "the build that pip finds; TORCH_INDEX names an index of other builds"


def _install_torch(version: str, console: Console) -> str:
    """Install torch with the dependencies of its build, and return its full version, such as 2.13.0+cpu."""
    index = ["--index-url", os.environ["TORCH_INDEX"]] if os.environ.get("TORCH_INDEX") else []
    command = _pip("install", *index, "--constraint", STACK.runtime_lock, f"torch=={version}")
    console.run(command, f"torch could not be installed; {REPEAT}")
    installed = _ask("import torch; print(torch.__version__)")
    if installed is None:
        raise SetupError(
            f"torch {version} is installed but does not import; remove it "
            f"({STACK.folder}/bin/python -m pip uninstall torch) and name an index of builds for this machine: "
            "make setup TORCH_INDEX=..."
        )
    return installed


def _install_horovod(version: str, torch: str, console: Console) -> None:
    """Install the wheel for this torch; one from the cache that does not load (damaged) is built anew."""
    attempts = 2 if horovod_wheel.is_cached(version, torch) else 1
    for _ in range(attempts):
        wheel = horovod_wheel.wheel_for(version, torch, PYTHON, console)
        if not HOROVOD_ORIGIN.exists() or HOROVOD_ORIGIN.read_text() != str(wheel) or not _horovod_loads():
            command = _pip("install", "--no-deps", "--force-reinstall", wheel)
            console.run(command, f"{wheel} could not be installed; remove it and repeat")
        if _horovod_loads():
            HOROVOD_ORIGIN.write_text(str(wheel))
            return
        horovod_wheel.forget(wheel)
    raise SetupError("Horovod does not load; `.venv/bin/python -c 'import horovod.torch'` says why")


def _horovod_loads() -> bool:
    return _ask("import horovod.torch as hvd; assert hvd.gloo_built()") is not None


if __name__ == "__main__":
    sys.exit(main())
