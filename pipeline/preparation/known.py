"""DRIVER. Which categories the previous version of a dataset had, and how much of the new train rows they cover."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pipeline.features import FittedFeatures, Kind
from pipeline.features.names import Names
from pipeline.features.sketches import Fitting
from pipeline.features.texts import coded, objects
from pipeline.features.vocabulary import Coverage, HasVocabulary, coverage


@dataclass(frozen=True)
class Known:
    """The categories of a raw column that an earlier version had.

    Attributes:
        names: from canonical raw columns to names of categories.
        categories: the names; those in salted digests where the column is sensitive.
        before: the share of that version's train values that are of none of them: too rare to be kept.
    """

    column: str
    names: Any
    categories: frozenset[str]
    before: float

    def fit(self) -> Fitting:
        """Ends with the `Coverage` of the rows at hand."""
        return coverage(self.column, self.names, self.categories)

    def unseen(self, found: Coverage, limit: float) -> Iterator[str]:
        """A sentence, if there are more unseen categories than the limit and what was too rare before."""
        share = found.outside / max(1, found.values)
        if share - self.before > limit:
            rare = f", where {self.before:.3f} were too rare before" if self.before else ""
            yield f"column {self.column}: {share:.3f} of the values are unseen categories{rare}; limit {limit:g}"


def vocabularies(features: FittedFeatures) -> dict[str, HasVocabulary]:
    """The features that know categories, by name."""
    with_some = [cast("Any", one) for one in features.features if getattr(one, "vocabulary", ())]
    return {one.name: one for one in with_some}


def coverage_fits(features: FittedFeatures) -> dict[str, Fitting]:
    """For each vocabulary a fit that ends with the `Coverage` of the rows at hand."""
    fitted = vocabularies(features)
    return {name: coverage(one.column, one.names, frozenset(one.vocabulary)) for name, one in fitted.items()}


def known_categories(profile: Mapping[str, Any], features: FittedFeatures, kinds: Mapping[str, Kind]) -> list[Known]:
    """What each vocabulary knew, and of texts that have none, the most frequent ones.

    Args:
        profile: of the earlier version, with the ``coverage`` of each vocabulary.
        features: as they were fitted.
        kinds: of the raw columns now; those that were read otherwise are left out.
    """
    columns, coverages = profile["columns"], profile.get("coverage", {})
    fitted = [(one, Coverage(**coverages[name])) for name, one in vocabularies(features).items() if name in coverages]
    same = [name for name, kind in kinds.items() if name in columns and columns[name]["kind"] == kind]
    plain = {*same} - {one.column for one, _ in fitted}
    return [
        *(_of_feature(one, columns[one.column], then) for one, then in fitted if one.column in same),
        *(_of_texts(name, columns[name]) for name in same if name in plain and columns[name].get("top")),
    ]


def _of_feature(feature: HasVocabulary, profile: Mapping[str, Any], then: Coverage) -> Known:
    """Its vocabulary, and the frequent texts of the profile, among which rare ones may be that it left out."""
    vocabulary, top = frozenset(feature.vocabulary), profile.get("top", ())
    names = feature.text(coded(objects([text for text, _ in top]))).values
    rare = sum(count for name, (_, count) in zip(names, top, strict=True) if name not in vocabulary)
    before = (then.outside - rare) / max(1, then.values)
    return Known(feature.column, feature.names, vocabulary.union(names), before)


def _of_texts(column: str, profile: Mapping[str, Any]) -> Known:
    top, values = dict(profile["top"]), profile["rows"] - profile["missing"]
    return Known(column, Names(column), frozenset(top), 1 - sum(top.values()) / values)
