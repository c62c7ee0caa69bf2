"""DRIVER. A proposal tried: its rows split and its classes counted as a preparation will, so that it runs as it is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_

import yaml
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.config import PipelineConfig, parse_config
from pipeline.dataset import SPLITS
from pipeline.preparation.clean import check_columns
from pipeline.preparation.inputs import list_inputs
from pipeline.preparation.label import label_checks, label_values
from pipeline.preparation.proposal import Proposal
from pipeline.preparation.split import split_checks, split_of


@dataclass(frozen=True)
class Trial:
    """A proposal with the rows that its splits have.

    Attributes:
        counts: rows of each split and class; without classes of the class None.
        rows: of the table.
    """

    proposal: Proposal
    counts: Counter[tuple[str, str | None]]
    rows: int

    @classmethod
    def of(cls, frame: DataFrame, proposal: Proposal, folder: str) -> Trial:
        """Split the rows and count the classes.

        Args:
            frame: the table.
            proposal: what is tried.
            folder: where its configuration will lie.

        Raises:
            DataError: a column has a name or type that preparation refuses.
        """
        config = parse_config(yaml.safe_load(proposal.text(folder)), folder)
        list_inputs(config)
        check_columns(frame, config)
        found = _counted(frame, config)
        rows = sum(count for *_, count in found)
        counts = Counter({(split, name): count for split, name, is_fit, count in found if is_fit})
        rejected = 1 - sum(counts.values()) / max(rows, 1)
        return cls(replace(proposal, lacking=rejected), counts, rows)

    @property
    def classes(self) -> set[str | None]:
        """All classes."""
        return {name for _, name in self.counts}

    @property
    def common(self) -> list[str | None]:
        """Classes that every split has."""
        return sorted((name for name in self.classes if all(self.counts[split, name] for split in SPLITS)), key=str)

    @property
    def is_whole(self) -> bool:
        """Whether every split has rows, of every class."""
        return bool(self.classes) and set(self.common) == self.classes

    def with_common_classes(self) -> Proposal | None:
        """The proposal without the classes that a split lacks; None if too little is left."""
        kept = sum(count for (_, name), count in self.counts.items() if name in self.common) / max(self.rows, 1)
        if self.proposal.label_type != "multiclass" or len(self.common) < 2 or kept < 0.5:
            return None
        classes = tuple(str(name) for name in self.common)
        rare = tuple(sorted(str(name) for name in self.classes.difference(self.common)))
        return replace(self.proposal, classes=classes, rare=rare, lacking=1 - kept)

    @property
    def reason(self) -> str:
        """Why it is not whole."""
        if not self.classes - {None}:
            return f"it has {sum(self.counts.values())} rows, too few for three splits"
        sizes: Counter[str | None] = Counter()
        for (_, name), count in self.counts.items():
            sizes[name] += count
        lacking = (
            f"class {name} has {sizes[name]} rows" for name in sorted(self.classes.difference(self.common), key=str)
        )
        return f"{', '.join(lacking)}, of which a split has none"


def _counted(frame: DataFrame, config: PipelineConfig) -> list[tuple[str, str | None, bool, int]]:
    """Split, class, whether the rows are fit, and how many there are."""
    checks = [condition for condition, _ in (*label_checks(frame, config.label), *split_checks(frame, config))]
    unfit = reduce(or_, (F.coalesce(condition, F.lit(False)) for condition in checks))
    (value,) = label_values(frame, config.label)
    name = F.lit(None) if config.label_type == "regression" else value
    split = split_of(frame, config, config.source.id or frame.columns)
    chosen = frame.select(split.alias("split"), name.cast("string").alias("class"), (~unfit).alias("is_fit"))
    return [tuple(row) for row in chosen.groupBy("split", "class", "is_fit").count().collect()]
