"""DRIVER. The `pipeline` command: parse arguments, call one command, print RESULT, give the exit code."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

from pipeline import __version__, commands
from pipeline.errors import UsageError, as_pipeline_error


class _Parser(argparse.ArgumentParser):
    """A parser whose usage errors are errors like all others."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; the last line of stdout is ``RESULT {json}``.

    Args:
        arguments: by default those of the process, which then has nothing to do after the command.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    log_format = "json" if "json" in words else "text"
    options = argparse.Namespace(debug="--debug" in words, log_format=log_format, verb="", reached={})
    try:
        with _interruptible(ends_process=arguments is None):
            options, unknown = _parser().parse_known_args(words, options)
            if unknown:
                raise UsageError(f"{' '.join(unknown)} is not known; see `pipeline {options.verb} --help`")
            _configure_logging(options)
            result = options.command(options)
    except (KeyboardInterrupt, Exception) as error:
        return _fail(error, options)
    if result is not None:
        _print_result({"status": "done", "stage": options.verb, **result})
    return int((result or {}).get("code", 0))


@contextlib.contextmanager
def _interruptible(ends_process: bool) -> Iterator[None]:
    """SIGTERM and SIGHUP interrupt a command like Ctrl-C; its end, RESULT and exit code included, nothing does."""
    terminals = [number for number in (1, 2) if os.isatty(number)]

    def interrupt(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP and terminals:
            _write_nowhere(terminals)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if before[number] != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, signal.SIG_IGN if ends_process else action)


def _write_nowhere(descriptors: Sequence[int]) -> None:
    """For the terminal that has been closed: to write there would be an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _fail(cause: BaseException, options: argparse.Namespace) -> int:
    """Show what went wrong, and say it in RESULT beside what was reached until then."""
    if options.debug:
        traceback.print_exception(cause)
    error = as_pipeline_error(cause)
    for line in error.lines():
        print(
            json.dumps({"level": "ERROR", "message": line}) if options.log_format == "json" else line, file=sys.stderr
        )
    _print_result({"stage": options.verb, **options.reached, **error.outcome})
    return error.code


def _print_result(result: dict[str, Any]) -> None:
    print("RESULT " + json.dumps(result, default=str), flush=True)


class _JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        return json.dumps(entry)


def _configure_logging(options: argparse.Namespace) -> None:
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
    handler.setFormatter(_JsonFormatter() if options.log_format == "json" else text)
    logger = logging.getLogger("pipeline")
    logger.handlers = [handler]
    logger.propagate = False
    # It logs a traceback for every call that Ctrl-C breaks off.
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    logger.setLevel(logging.WARNING if options.quiet else logging.DEBUG if options.debug else logging.INFO)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="pipeline", description="From raw Spark tables to a served PyTorch model.")
    parser.add_argument("--version", action="version", version=f"pipeline {__version__}")
    verbs = _Verbs(parser.add_subparsers(dest="verb", required=True, metavar="COMMAND"))
    _add_stages(verbs)
    _add_predictions(verbs)
    _add_folders(verbs)
    _add_starting_points(verbs)
    return parser


class _Verbs:
    """Adds verbs; those with a configuration take its overrides too."""

    def __init__(self, verbs: argparse._SubParsersAction[_Parser]) -> None:
        self._verbs = verbs
        self._common = _Parser(add_help=False)
        self._common.add_argument(
            "--log-format", choices=["text", "json"], default="text", help="of what goes to stderr"
        )
        self._common.add_argument("--quiet", action="store_true", help="warnings and errors only")
        self._common.add_argument("--debug", action="store_true", help="debug messages, and tracebacks of errors")

    def add(self, name: str, command: commands.Command, help: str) -> argparse.ArgumentParser:
        """A verb and what it calls."""
        verb = self._verbs.add_parser(name, help=help, description=help, parents=[self._common])
        verb.set_defaults(command=command)
        return verb

    def add_configured(self, name: str, command: commands.Command, help: str) -> argparse.ArgumentParser:
        """A verb that reads a configuration."""
        verb = self.add(name, command, help)
        verb.add_argument("config", help="YAML configuration")
        _add_overrides(verb)
        return verb


def _add_overrides(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="take this value, in YAML, instead of the configuration's; may be repeated",
    )
    verb.add_argument("--target", help="named overrides of the configuration's `targets`")


def _add_stages(verbs: _Verbs) -> None:
    for name, help in {
        "run": "prepare, train, evaluate, gate, register, report",
        "prepare": "raw tables to a published dataset",
        "train": "a published dataset to a trained model",
        "evaluate": "the test split, beside baselines; gate and registry",
    }.items():
        stage = verbs.add_configured(name, commands.stage(name), help)
        stage.add_argument("--dry-run", action="store_true", help="validate, show what would be done, write nothing")


def _add_predictions(verbs: _Verbs) -> None:
    score = verbs.add_configured("score", commands.score, "predictions for a Spark table")
    score.add_argument(
        "input",
        help="table to score, with the columns that the query gives: file, folder or quoted pattern of Parquet, ORC, "
        "JSON or CSV",
    )
    score.add_argument("output", help="folder for the scored Parquet table")
    score.add_argument(
        "--model",
        help="model folder, run folder, name@alias or name@version; by default the registered model, or the run's",
    )
    serve = verbs.add("serve", commands.serve, "predictions over HTTP")
    serve.add_argument("model", help="model folder, run folder, or a configuration: its registered model, or its run's")
    serve.add_argument("--host", help="address to listen on; by default serving.host, or 127.0.0.1")
    serve.add_argument("--port", type=int, help="by default serving.port; 0 takes a free one")
    _add_overrides(serve)
    serve.add_argument("--public", action="store_true", help="allow a host that other machines can reach")
    serve.add_argument(
        "--allow-factory",
        action="append",
        default=[],
        metavar="PACKAGE.MODULE:FUNCTION",
        help="code that the model may import, if it is not of a built-in architecture; may be repeated",
    )


def _add_folders(verbs: _Verbs) -> None:
    status = verbs.add("status", commands.status, "what a run is doing, from any host")
    status.add_argument("run", help="run folder")
    report = verbs.add("report", commands.report, "write a run's report.html again")
    report.add_argument("run", help="run folder")
    inspect = verbs.add(
        "inspect", commands.inspect, "what a dataset, checkpoint, model or run folder holds; checks its checksums"
    )
    inspect.add_argument("path", help="folder or URL")
    inspect.add_argument("--deep", action="store_true", help="also check every sha256")
    export = verbs.add("export", commands.export, "a dataset as plain wide Parquet")
    export.add_argument("dataset", help="folder or URL of a dataset")
    export.add_argument("output", help="new folder; one folder per split")
    export.add_argument(
        "--split", dest="splits", action="append", choices=["train", "validation", "test"], help="by default all"
    )
    bench = verbs.add("bench", commands.bench, "how fast a dataset loads here, beside a raw scan, and what to set")
    bench.add_argument("what", choices=["loader"], help="what to measure")
    bench.add_argument("dataset", help="folder or URL of a dataset")
    bench.add_argument("--split", default="train", help="by default train")
    bench.add_argument("--batch-size", type=int, default=4096, help="rows; by default 4096")
    collect = verbs.add_configured(
        "gc",
        commands.gc,
        "remove old versions of a dataset and what belongs to them, never one that is being read or that a run was "
        "trained on whose folder is there",
    )
    collect.add_argument("--dry-run", action="store_true", help="show what would be removed, remove nothing")
    collect.add_argument("--keep", type=int, default=2, metavar="N", help="the newest versions that stay; by default 2")
    collect.add_argument(
        "--run",
        dest="runs",
        action="append",
        default=[],
        help="run folder whose version stays, if it could not leave a mark in the dataset as runs do",
    )


def _add_starting_points(verbs: _Verbs) -> None:
    init = verbs.add("init", commands.init, "propose a configuration for a table, which runs as it is")
    init.add_argument("data", help="table as CSV, JSON lines, Parquet or ORC")
    init.add_argument("output", nargs="?", default="pipeline.yaml", help="file to write; by default pipeline.yaml")
    init.add_argument("--label", help="column to predict; by default the likeliest")
    doctor = verbs.add("doctor", commands.doctor, "what is installed, what is missing, what to do")
    doctor.add_argument("--json", action="store_true", help="for programs")
    doctor.add_argument(
        "--class-archive",
        action="store_true",
        help="first read Spark's classes ahead, so that it starts in half the time",
    )
    doctor.add_argument("--cluster", metavar="CONFIG", help="also on every executor of a configuration's cluster")
    _add_overrides(doctor)
    config = verbs.add("config", commands.config, "the configuration's JSON schema, or its resolved values")
    config.add_argument(
        "what", choices=["schema", "show"], help="schema: of every configuration; show: the values of one"
    )
    config.add_argument("config", nargs="?", help="YAML configuration, for show")
    _add_overrides(config)


if __name__ == "__main__":
    sys.exit(main())
