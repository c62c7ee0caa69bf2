"""DRIVER. The Java process behind a Spark session that we start ourselves.

It gets its own process group, so that Ctrl-C in a terminal reaches Python alone; what it says goes to a file;
it ends with the session, and by itself when Python is killed: PySpark's gateway exits at the end of its stdin.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from pipeline.config.secret_values import from_environment, has_variable
from pipeline.errors import ServiceError
from pipeline.launch.environment import environment

_STOP_SECONDS = 15.0
_BREAK_SECONDS = 2.0
_UNREGISTERED = "spark-application-"
"""How a session's id begins until a stand-alone master has given it one; without it Spark stops it soon after."""
_BROKEN_OFF = ("while sending command", "while shutting down connection")

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def own_session(settings: Mapping[str, str], variables: Mapping[str, str], log: Path) -> Iterator[SparkSession]:
    """Start a JVM and a session in it; both are gone at exit, also after Ctrl-C in the middle of a Spark job.

    Args:
        settings: Spark settings, known to the JVM from its start; those that name environment variables reach it over
            the connection, since everybody on the machine can read command lines.
        variables: environment of the JVM and of the Python workers it starts.
        log: file for what the JVM and its children write to stdout and stderr.

    Raises:
        ConfigError: a setting names an environment variable that is not set.
        ServiceError: Spark does not start, or its Java process ends while it is needed; the end of its log is the
            detail.
    """
    paths = list(sys.path)
    conf = _conf({key: from_environment(value, f"cluster.spark.{key}") for key, value in settings.items()})
    shown = _conf({key: value for key, value in settings.items() if not has_variable(value)})
    with log.open("wb") as output, _quiet_connections():
        process: list[subprocess.Popen[bytes]] = []
        try:
            tempfile.gettempdir()  # Python remembers its answer: ask before TMPDIR becomes the JVM's
            with environment(variables), _interrupt_handler_kept():
                session = _start(conf, shown, output, process)
            if str(session.sparkContext.applicationId).startswith(_UNREGISTERED):  # Spark raises nothing
                raise RuntimeError("no master has answered")
        except Exception as error:
            _stop(process)
            raise _not_started(settings, error, log) from error
        except BaseException:
            _stop(process)
            raise
        try:
            yield session
        except (Py4JError, ConnectionError) as error:
            _wait_until_ended(process[0])
            if process[0].poll() is None:
                raise
            raise _ended(settings, process[0].returncode, log) from error
        finally:
            _stop(process)
            sys.path[:] = paths


def _conf(settings: Mapping[str, str]) -> SparkConf:
    return SparkConf(loadDefaults=False).setAll(list(settings.items()))


def _start(
    conf: SparkConf, shown: SparkConf, output: IO[bytes], process: list[subprocess.Popen[bytes]]
) -> SparkSession:
    gateway = launch_gateway(shown, {"stdout": output, "stderr": output, "start_new_session": True})  # type: ignore[no-untyped-call]
    process.append(gateway.proc)
    return SparkSession(SparkContext(conf=conf, gateway=gateway))


@contextlib.contextmanager
def _interrupt_handler_kept() -> Iterator[None]:
    """Put SIGINT's handler back after PySpark has installed its own.

    PySpark's asks the JVM to cancel all jobs over the very connection that waits for the running job.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


@contextlib.contextmanager
def _quiet_connections() -> Iterator[None]:
    """Keep py4j from logging tracebacks of its own for a call that Ctrl-C or the JVM breaks off.

    It does so on the root logger while it waits, and on that of its connections when it closes one.
    The call raises all the same, and whoever made it says what that means.
    """

    def wanted(record: logging.LogRecord) -> bool:
        return not any(moment in str(record.msg) for moment in _BROKEN_OFF)

    loggers = [logging.getLogger(name) for name in (None, "py4j.clientserver")]
    for one in loggers:
        one.addFilter(wanted)
    try:
        yield
    finally:
        for one in loggers:
            one.removeFilter(wanted)


def _not_started(settings: Mapping[str, str], error: Exception, log: Path) -> ServiceError:
    reason = (
        str(error).splitlines()[0]
        if str(error) and not isinstance(error, PySparkRuntimeError)
        else "its Java process ended"
    )
    return ServiceError(
        f"Spark with master {settings.get('spark.master')} did not start: {reason}; "
        "expected a session; see the last lines of its log below",
        detail=_last_lines(log),
    )


def _wait_until_ended(process: subprocess.Popen[bytes]) -> None:
    """A connection breaks a moment before its process is gone; one that lives on is waited for in vain."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_BREAK_SECONDS)


def _ended(settings: Mapping[str, str], code: int, log: Path) -> ServiceError:
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return ServiceError(
        f"the Java process of Spark with master {settings.get('spark.master')} {how}; expected it to live as long as "
        "the session; look for a lack of memory, then run the same command again",
        detail=_last_lines(log),
    )


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").strip().splitlines()[-20:])


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Stop session and JVM.

    Asked from a thread of its own, since the connection of this thread may still wait for an interrupted job.
    """
    aside = _stop_accumulators()
    thread = threading.Thread(target=_stop_session, name="stop-spark", daemon=True)
    thread.start()
    thread.join(_STOP_SECONDS)
    for process in processes:
        _end(process)
    for one in (thread, *aside):
        one.join(_STOP_SECONDS)  # the end of the JVM ends its call, if it had not answered in time
    _forget()


def _stop_accumulators() -> list[threading.Thread]:
    """Stop PySpark's server of accumulators beside the rest.

    `SparkContext.stop` waits for it, and it looks once a second whether it is to end, or ends with the JVM's
    connection, at once: eight tenths of a second in the mean.
    """
    server = getattr(SparkContext._active_spark_context, "_accumulatorServer", None)
    if server is None:
        return []
    SparkContext._active_spark_context._accumulatorServer = None  # type: ignore[union-attr]
    server.handle_error = _say_nothing  # of a connection that the JVM leaves
    thread = threading.Thread(target=server.shutdown, name="stop-accumulators", daemon=True)
    thread.start()
    return [thread]


def _say_nothing(*_: Any) -> None:
    pass


def _stop_session() -> None:
    context = SparkContext._active_spark_context
    if context is not None:
        with contextlib.suppress(Exception):
            context.stop()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        logger.warning("the Java process of Spark did not end by itself; killing it")
        process.kill()
        process.wait()


def _forget() -> None:
    """Make PySpark forget the session and the JVM, so that the next session starts its own."""
    gateway: Any = SparkContext._gateway
    if gateway is not None:
        with contextlib.suppress(Exception):
            gateway.shutdown()
    SparkContext._active_spark_context = None
    SparkContext._gateway = None
    SparkContext._jvm = None
    SparkSession._instantiatedSession = None
    SparkSession._activeSession = None
