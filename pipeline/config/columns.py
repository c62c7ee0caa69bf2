"""ANYWHERE. The names of the columns that a configuration publishes: each stands for one thing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config.load import PipelineConfig

PACKED = "_packed_"
"""With what the names of packed columns begin, which hold all encoded columns of a dtype."""


def encoded_columns(config: PipelineConfig) -> dict[str, list[str]]:
    """Each encoded column with the names of the features that make it."""
    made: dict[str, list[str]] = {}
    for name, feature in config.features.items():
        for column in feature.encoded_names(name):
            made.setdefault(column, []).append(name)
    return made


def plain_columns(config: PipelineConfig) -> list[tuple[str, str]]:
    """Each id and kept column as it is published, ``raw_<name>`` where a feature has its name, and its raw name."""
    taken = {*encoded_columns(config), *config.labels, config.weight}
    kept = (name for name in config.dataset.keep if name not in config.labels)
    names = dict.fromkeys([*config.source.id, *kept])
    return [(f"raw_{name}" if name in taken else name, name) for name in names]


def shared_names(config: PipelineConfig) -> Iterator[str]:
    """One sentence for each name that two columns would have."""
    encoded = encoded_columns(config)
    for column, features in encoded.items():
        if len(features) > 1:
            made_by = " and ".join(f"features.{name}" for name in features)
            yield f"{made_by} make the same column {column}; expected one each; rename one of them"
    others = [*((f"label.column {name}", name) for name in config.labels)]
    others += [(f"label.weight {config.weight}", config.weight)] if config.weight is not None else []
    for where, name in others:
        for feature in encoded.get(name, ()):
            if name in config.labels and (config.features[feature].column or feature) == name:
                continue  # a feature of the label itself is refused as such
            yield (
                f"{where} is a column that features.{feature} makes too; expected another name; rename the feature, "
                "or give the column an alias in the query"
            )
    yield from _shared_with_plain(config, {*encoded, *(name for _, name in others)})


def _shared_with_plain(config: PipelineConfig, taken: set[str]) -> Iterator[str]:
    """Of ids and kept columns those whose published name is not theirs alone."""
    for published, raw in plain_columns(config):
        where = "source.id" if raw in config.source.id else "dataset.keep"
        if published in taken or published.startswith(PACKED):
            yield (
                f"{where} {raw} is published as {published}, which is the name of another column; expected one that is "
                "free; rename the feature, or give the column an alias in the query"
            )
        taken.add(published)
