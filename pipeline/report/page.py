"""DRIVER. The report's page: sections in the order in which a reader asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.report.columns import columns
from pipeline.report.comparison import comparison
from pipeline.report.content import Content
from pipeline.report.data import data
from pipeline.report.headline import headline
from pipeline.report.labels import labels
from pipeline.report.learning import learning_curves
from pipeline.report.markup import folded, row, section, table, text
from pipeline.report.quality import errors, ranking
from pipeline.report.slices import slices
from pipeline.report.style import STYLE
from pipeline.report.timing import timing


def render_report(run_url: str, result: Mapping[str, Any] | None = None) -> str:
    """The report of a run.

    Args:
        run_url: the run folder.
        result: the values of RESULT so far; by default those of ``<run>/result.json``.

    Raises:
        StorageError: a file of the run is corrupt.
    """
    content = Content.read(run_url, result)
    sections = [
        headline(content),
        comparison(content.evaluation),
        labels(content.evaluation),
        learning_curves(content),
        ranking(content.evaluation),
        errors(content.evaluation),
        slices(content.evaluation),
        data(content.manifest),
        columns(content.profile),
        timing(content),
        _configuration(content),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(content.name)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def _configuration(content: Content) -> str:
    versions = sorted(content.manifest.versions.items()) if content.manifest else []
    packages = table(["package", "version"], [row([text(name), text(version)]) for name, version in versions], "words")
    values = f"<pre>{text(content.configuration)}</pre>" if content.configuration else ""
    return section(
        "Configuration", folded("config.yaml, all values", values), folded("what the dataset was made with", packages)
    )
