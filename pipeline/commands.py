"""DRIVER. What each verb of the command line does: parsed options in, what RESULT says of it out.

Rooms are imported where they are used, so that `pipeline --help` needs none of their libraries.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from pipeline.errors import ServiceError, UsageError

Command = Callable[[argparse.Namespace], "dict[str, Any] | None"]


def _load(options: argparse.Namespace) -> Any:
    from pipeline.config import load_config

    return load_config(options.config, options.overrides, options.target)


def stage(name: str) -> Command:
    """The command of a stage, or of all of them."""

    def command(options: argparse.Namespace) -> dict[str, Any]:
        config = _load(options)
        from pipeline import stages

        if options.dry_run:
            return stages.dry_run(config, name, show=print)
        return stages.run_stage(config, name, quiet=options.quiet, reached=options.reached)

    return command


def score(options: argparse.Namespace) -> dict[str, Any]:
    """Predict for a Spark table."""
    config = _load(options)
    from pipeline import stages

    return stages.score_table(config, options.input, options.output, model=options.model)


def serve(options: argparse.Namespace) -> dict[str, Any]:
    """Predict over HTTP, until a signal."""
    from pipeline.inference import serve

    return serve.run(
        options.model,
        host=options.host,
        port=options.port,
        allow_factories=options.allow_factory,
        public=options.public,
        overrides=options.overrides,
        target=options.target,
    )


def status(options: argparse.Namespace) -> None:
    """Print what a run is doing."""
    from pipeline.status import read_status

    print("\n".join(read_status(options.run).lines()))


def report(options: argparse.Namespace) -> dict[str, Any]:
    """Write a run's report again."""
    from pipeline import stages

    return {"report": stages.write_report(options.run)}


def inspect(options: argparse.Namespace) -> None:
    """Print what a folder holds."""
    from pipeline import inspect

    print(inspect.describe(options.path, deep=options.deep))


def export(options: argparse.Namespace) -> dict[str, Any]:
    """Write a dataset as plain Parquet."""
    from pipeline.dataset import Dataset
    from pipeline.dataset.holds import hold
    from pipeline.export import export_dataset

    dataset = Dataset.open(options.dataset)
    with hold(dataset):
        return {"rows": export_dataset(dataset, options.output, options.splits)}


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """Measure and print how fast a dataset loads."""
    from pipeline.bench import bench_loader
    from pipeline.dataset import Dataset

    report = bench_loader(Dataset.open(options.dataset), options.split, options.batch_size)
    print(report.render())
    return {"loader": report.to_json()}


def gc(options: argparse.Namespace) -> dict[str, Any]:
    """Remove old versions of a dataset, or say which would be removed.

    Raises:
        UsageError: no version would stay.
        InputMissingError: there is no dataset.
    """
    if options.keep < 1:
        raise UsageError(f"--keep is {options.keep}; expected at least 1; the newest version always stays")
    config = _load(options)
    from pipeline.dataset import Dataset
    from pipeline.preparation.gc import collect_garbage

    Dataset.open(config.dataset.url)
    runs = [config.training.run_url, *options.runs]
    found = collect_garbage(config.dataset.url, options.keep, runs, options.dry_run)
    for path in found.paths():
        print(f"gc: {'would remove' if options.dry_run else 'removed'} {path}")
    return {"would_remove" if options.dry_run else "removed": asdict(found)}


def init(options: argparse.Namespace) -> dict[str, Any]:
    """Propose a configuration for a table."""
    from pipeline import stages

    return stages.propose_config(options.data, options.output, options.label, show=print)


def doctor(options: argparse.Namespace) -> None:
    """Print what is installed and missing, here or also on every executor; make Spark start sooner if asked to.

    Raises:
        ServiceError: what every command needs is missing, executors could not carry ranks, or Java makes no archive
            of classes.
        StorageError: the archive could not be written.
    """
    from pipeline import doctor

    if options.class_archive:
        from pipeline import class_archive

        class_archive.make()
    report = doctor.report()
    value, offences = report.to_json(), list[str]()
    if not options.json:
        print(doctor.render(report))
    if options.cluster and report.works:
        lines, value["executors"], offences = _executors(options)
        if not options.json:
            print("\n".join(lines))
    if options.json:
        print(json.dumps(value, indent=1))
    if not report.works:
        offences = ["the core is incomplete; expected all that every command needs; install what is missing above"]
    if offences:
        raise ServiceError(*offences)


def _executors(options: argparse.Namespace) -> tuple[list[str], list[dict[str, Any]], list[str]]:
    """Of the executors of a configuration's cluster: a table, the same as plain data, and all that is wrong."""
    from pipeline.config import load_config
    from pipeline.launch.preflight import examine
    from pipeline.launch.probe import versions
    from pipeline.launch.verdict import table
    from pipeline.spark_on_demand import SparkOnDemand

    config = load_config(options.cluster, options.overrides, options.target)
    with SparkOnDemand(config) as session:
        findings, offences = examine(session(), config.cluster, config.training.run_url)
    return table(findings, versions()), [asdict(finding) for finding in findings], offences


def config(options: argparse.Namespace) -> None:
    """Print the configuration's JSON schema, or its resolved values.

    Raises:
        UsageError: there is no configuration to show.
    """
    from pipeline.config.reference import json_schema
    from pipeline.config.yaml_text import dump_yaml

    if options.what == "schema" and options.config is not None:
        raise UsageError(f"config schema is given {options.config}; expected no file; `config show` shows one")
    if options.what == "schema":
        print(json.dumps(json_schema(), indent=1))
        return
    if options.config is None:
        raise UsageError("config show needs a configuration; expected `pipeline config show CONFIG`")
    print(dump_yaml(_load(options).model_dump(mode="json", by_alias=True)), end="")
