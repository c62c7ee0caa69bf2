"""DRIVER. A Spark session in a Java process of our own: both are gone at its end, whatever ends it."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from pipeline.config.secret_values import from_environment, has_variable
from pipeline.errors import ServiceError
from pipeline.launch.environment import environment
from pipeline.launch.gateway import JavaProcess

_STOP_SECONDS = 15.0
_BREAK_SECONDS = 2.0
_UNREGISTERED = "spark-application-"
"""How a session's id begins until a stand-alone master has given it one; without it Spark stops it soon after."""
_BROKEN_OFF = ("while sending command", "while shutting down connection")


@contextlib.contextmanager
def own_session(
    settings: Mapping[str, str], variables: Mapping[str, str], log: Path, *, workers_at_once: bool = False
) -> Iterator[SparkSession]:
    """Start a JVM and a session in it; both are gone at exit, also after Ctrl-C at any moment.

    Args:
        settings: Spark settings, known to the JVM from its start; those that name environment variables reach it over
            the connection, since everybody on the machine can read command lines.
        variables: environment of the JVM and of the Python workers it starts.
        log: file for what the JVM and its children write to stdout and stderr, in a temporary folder of ours.
        workers_at_once: whether Python workers start beside what the driver does first.

    Raises:
        ConfigError: a setting names an environment variable that is not set.
        ServiceError: Spark does not start, or its Java process ends while it is needed; the end of its log is the
            detail.
    """
    paths = list(sys.path)
    known = {key: from_environment(value, f"cluster.spark.{key}") for key, value in settings.items()}
    shown = {key: value for key, value in settings.items() if not has_variable(value)}
    java = JavaProcess(log.parent)
    beside: list[threading.Thread] = []
    with log.open("wb") as output, _quiet_connections():
        try:
            try:
                tempfile.gettempdir()  # Python remembers its answer: ask before TMPDIR becomes the JVM's
                with environment(variables), _interrupt_handler_kept():
                    session = _start(java, known, shown, output)
                if str(session.sparkContext.applicationId).startswith(_UNREGISTERED):  # Spark raises nothing
                    raise RuntimeError("no master has answered")
            except Exception as error:
                _stop(java)
                raise _not_started(settings, error, log) from error
            try:
                if workers_at_once:
                    beside.append(_start_workers(session))
                yield session
            except (Py4JError, ConnectionError) as error:
                if (code := java.exit_code(_BREAK_SECONDS)) is None:  # a connection breaks a moment before its process
                    raise
                raise _ended(settings, code, log) from error
        finally:
            _stop(java, beside)
            sys.path[:] = paths


def _start(java: JavaProcess, known: Mapping[str, str], shown: Mapping[str, str], output: IO[bytes]) -> SparkSession:
    java.start(shown, output)
    gateway = java.connect()
    conf = SparkConf(loadDefaults=False).setAll(list(known.items()))
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
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return ServiceError(
        f"Spark with master {settings.get('spark.master')} did not start: {reason}; "
        "expected a session; see the last lines of its log below",
        detail=_last_lines(log),
    )


def _ended(settings: Mapping[str, str], code: int, log: Path) -> ServiceError:
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return ServiceError(
        f"the Java process of Spark with master {settings.get('spark.master')} {how}; expected it to live as long as "
        "the session; look for a lack of memory, then run the same command again",
        detail=_last_lines(log),
    )


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").strip().splitlines()[-20:])


def _start_workers(session: SparkSession) -> threading.Thread:
    """Start the process that Python workers are forked from while the driver is busy by itself, as it is at first.

    It starts with the first task that needs a worker. Importing what tasks import takes it a second, which the tasks
    of all cores would wait for. The thread ends with the session at the latest.
    """
    # Only the call that waits is left to the thread: the others start a session where there is none any more.
    one_task = session.sql("SELECT id FROM range(1)").mapInArrow(lambda batches: batches, "id long")

    def run() -> None:
        with contextlib.suppress(Exception):  # whoever needs a worker will say why there is none
            one_task.collect()

    thread = threading.Thread(target=run, name="start-workers", daemon=True)
    thread.start()
    return thread


def _stop(java: JavaProcess, beside: Sequence[threading.Thread] = ()) -> None:
    """Stop session and JVM; a Ctrl-C meanwhile ends the JVM at once.

    Asked from a thread of its own, since the connection of this thread may still wait for an interrupted job.

    Args:
        java: the JVM.
        beside: threads whose calls end with it.
    """
    threads = [*beside]
    try:
        if java.has_answered:
            threads += [*_stop_accumulators(), threading.Thread(target=_stop_session, name="stop-spark", daemon=True)]
            threads[-1].start()
            threads[-1].join(_STOP_SECONDS)
        java.end(_STOP_SECONDS)
    finally:
        try:
            java.kill()
        finally:
            if java.has_answered:
                _forget()
    for thread in threads:
        thread.join(_STOP_SECONDS)  # the end of the JVM ends its call, if it had not answered in time


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
