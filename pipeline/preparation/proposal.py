"""DRIVER. A proposed configuration: what was chosen for a table, and the commented YAML that says it."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import TypeAdapter

from pipeline import storage
from pipeline.config.features import FeatureConfig

_GATES = {"binary": "roc_auc: {min: 0.7}", "multiclass": "accuracy: {min: 0.7}", "regression": "rmse: {max: 10}"}
_FEATURE: TypeAdapter[FeatureConfig] = TypeAdapter(FeatureConfig)
_TOLERATED = 0.04
"""Of rows without label or time; below the default of ``clean.max_rejected_fraction``."""


@dataclass(frozen=True)
class Proposal:
    """What was chosen for a table.

    Attributes:
        path: of the table, as the user wrote it.
        format: of its files.
        options: of Spark's reader.
        schema: its columns in Spark's DDL; none where the format tells them.
        label: the column to predict.
        label_type: of the configuration's ``label.type``.
        ids: the columns that identify a row; none if no column does.
        split: what stands in the ``split`` section, and why, as YAML with a comment.
        features: of columns that are taken, the keys of the feature.
        left_out: of other columns, why they are not.
        lacking: the fraction of rows that will be rejected for want of a label or of the time that splits go by.
        classes: of the label, where not all are taken.
        rare: those that are not.
    """

    path: str
    format: str
    options: Mapping[str, str]
    schema: str | None
    label: str
    label_type: str
    ids: tuple[str, ...]
    split: str
    features: Mapping[str, Mapping[str, Any]]
    left_out: Mapping[str, str]
    lacking: float = 0.0
    classes: tuple[str, ...] = ()
    rare: tuple[str, ...] = ()

    def text(self, folder: str) -> str:
        """The configuration for a file in ``folder``, to which its relative paths are relative."""
        name, outputs = _name_of(self.path), _outputs(folder, self.path)
        lines = [
            f"# Proposed for {self.path}; every line is yours to change.",
            "source:",
            "  inputs:",
            f"    table: {quoted_yaml(self._input(folder))}",
            f"  id: {quoted_yaml(list(self.ids))}   # what identifies a row; empty means all its values",
            "",
            f"label: {self._label()}",
            f"split: {self.split}",
            *self._clean(),
            "",
            "features:",
            *(f"  {quoted_yaml(key)}: {quoted_yaml(one)}" for key, one in self._features().items()),
            *(f"  # left out: {_on_one_line(one)}, {reason}" for one, reason in self.left_out.items()),
            "",
            f"dataset: {{url: {quoted_yaml(f'{outputs}/{name}')}}}",
            f"training: {{run_url: {quoted_yaml(f'{outputs}/runs/{name}')}, epochs: 5}}",
            f"# tracking: {{registered_model: {quoted_yaml(name)}}}   # without a name nothing is registered",
            f"# gate: {{{_GATES[self.label_type]}}}   # what a model must reach to be registered",
        ]
        return "\n".join(lines) + "\n"

    def _input(self, folder: str) -> dict[str, Any]:
        options = {"options": dict(self.options)} if self.options else {}
        schema = {"schema": self.schema} if self.schema else {}
        return {"path": _seen_from(folder, self.path), "format": self.format, **options, **schema}

    def _label(self) -> str:
        classes = {"classes": list(self.classes)} if self.classes else {}
        text = quoted_yaml({"column": self.label, "type": self.label_type, **classes})
        return (
            f"{text}   # not {_on_one_line(', '.join(self.rare))}, of which a split has no row" if self.rare else text
        )

    def _features(self) -> dict[str, dict[str, Any]]:
        """The features by their names: a column's own where that is plain, and makes no column of another's name."""
        taken = {self.label, *self.ids}
        named: dict[str, dict[str, Any]] = {}
        for column, keys in self.features.items():
            plain = re.sub(r"[^A-Za-z0-9_]", "_", column)
            plain = plain if plain[:1].isalpha() else f"f_{plain}"
            for name in itertools.chain([plain], (f"{plain}__{number}" for number in itertools.count(2))):
                made = _FEATURE.validate_python(dict(keys)).encoded_names(name)
                if taken.isdisjoint({name, *made}):
                    break
            taken |= {name, *made}
            named[name] = dict(keys) if name == column else {"column": column, **keys}
        return named

    def _clean(self) -> list[str]:
        if self.lacking <= _TOLERATED:
            return []
        limit = min(1.0, math.ceil(self.lacking * 100 + 2) / 100)
        unfit = "lack label or time" + (", or are of rare classes" if self.rare else "")
        return [f"clean: {{max_rejected_fraction: {limit}}}   # {self.lacking:.0%} of the rows {unfit}"]

    def lines(self) -> list[str]:
        """What was chosen, for people."""
        left_out = ", ".join(f"{name} ({reason})" for name, reason in self.left_out.items())
        return [
            f"label: {self.label} ({self.label_type}" + (f", without {', '.join(self.rare)})" if self.rare else ")"),
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


def _outputs(folder: str, path: str) -> str:
    """A folder for dataset and runs, seen from that of the configuration, which no input will read."""
    if "://" in path or "://" in folder or not os.path.isdir(path):
        return "workspace"
    inner, outer = os.path.abspath(storage.join(folder, "workspace")), os.path.abspath(path)
    return os.path.relpath(f"{outer}-workspace", folder) if f"{inner}/".startswith(f"{outer}/") else "workspace"


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


def quoted_yaml(value: object) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False)
    return text.strip().removesuffix("...").strip()
