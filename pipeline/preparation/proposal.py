"""DRIVER. A proposed configuration: what was chosen for a table, and the commented YAML that says it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import yaml

from pipeline import storage

_GATES = {"binary": "roc_auc: {min: 0.7}", "multiclass": "accuracy: {min: 0.7}", "regression": "rmse: {max: 10}"}
_TOLERATED = 0.04
"""Of rows without label or time; below the default of ``clean.max_rejected_fraction``."""


@dataclass(frozen=True)
class Proposal:
    """What was chosen for a table.

    Attributes:
        path: of the table, as the user wrote it.
        format: of its files.
        schema: its columns in Spark's DDL.
        label: the column to predict.
        label_type: of the configuration's ``label.type``.
        ids: the columns that identify a row; none if no column does.
        split: what stands in the ``split`` section, and why, as YAML with a comment.
        features: of columns that are taken, the feature as YAML.
        left_out: of other columns, why they are not.
        lacking: the fraction of rows that will be rejected for want of a label or of the time that splits go by.
    """

    path: str
    format: str
    schema: str
    label: str
    label_type: str
    ids: tuple[str, ...]
    split: str
    features: Mapping[str, str]
    left_out: Mapping[str, str]
    lacking: float

    def text(self, folder: str) -> str:
        """The configuration for a file in ``folder``, to which its relative paths are relative."""
        name = _name_of(self.path)
        keys = _keys(self.features)
        lines = [
            f"# Proposed for {self.path}; every line is yours to change.",
            "source:",
            "  inputs:",
            f"    table: {{path: {quoted_yaml(_seen_from(folder, self.path))}, format: {self.format}, "
            f"schema: {quoted_yaml(self.schema)}}}",
            f"  id: {quoted_yaml(list(self.ids))}   # what identifies a row; empty means all its values",
            "",
            f"label: {{column: {quoted_yaml(self.label)}, type: {self.label_type}}}",
            f"split: {self.split}",
            *self._clean(),
            "",
            "features:",
            *(f"  {quoted_yaml(key)}: {_with_column(key, one, self.features[one])}" for one, key in keys.items()),
            *(f"  # left out: {_on_one_line(one)}, {reason}" for one, reason in self.left_out.items()),
            "",
            f"dataset: {{url: {quoted_yaml(f'workspace/{name}')}}}",
            f"training: {{run_url: {quoted_yaml(f'workspace/runs/{name}')}, epochs: 5}}",
            f"# tracking: {{registered_model: {quoted_yaml(name)}}}   # without a name nothing is registered",
            f"# gate: {{{_GATES[self.label_type]}}}   # what a model must reach to be registered",
        ]
        return "\n".join(lines) + "\n"

    def _clean(self) -> list[str]:
        if self.lacking <= _TOLERATED:
            return []
        limit = min(1.0, math.ceil(self.lacking * 100 + 2) / 100)
        return [f"clean: {{max_rejected_fraction: {limit}}}   # {self.lacking:.0%} of the rows lack label or time"]

    def lines(self) -> list[str]:
        """What was chosen, for people."""
        left_out = ", ".join(f"{name} ({reason})" for name, reason in self.left_out.items())
        return [
            f"label: {self.label} ({self.label_type})",
            f"id: {', '.join(self.ids) or 'none; all values of a row together'}",
            f"split: {self.split}",
            f"features: {', '.join(self.features)}",
            *([f"left out: {left_out}"] if left_out else []),
        ]


def _name_of(path: str) -> str:
    last = path.rstrip("/").rsplit("/", 1)[-1].split(".")[0]
    return re.sub(r"[^\w-]+", "_", last).strip("_") or "table"


def _seen_from(folder: str, path: str) -> str:
    if "://" in path or os.path.isabs(path):
        return path
    return storage.local_path(path) if "://" in folder else os.path.relpath(path, folder)


def _keys(columns: Iterable[str]) -> dict[str, str]:
    """A feature name for each column: its own where that is plain."""
    keys: dict[str, str] = {}
    for column in columns:
        plain = re.sub(r"[^A-Za-z0-9_]", "_", column)
        plain = plain if plain[:1].isalpha() else f"f_{plain}"
        taken = sum(1 for key in keys.values() if key == plain or key.startswith(f"{plain}__"))
        keys[column] = f"{plain}__{taken + 1}" if taken else plain
    return keys


def _with_column(key: str, column: str, text: str) -> str:
    return text if key == column else f"{{column: {quoted_yaml(column)}, {text[1:]}"


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


def quoted_yaml(value: object) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.strip().removesuffix("...").strip()
