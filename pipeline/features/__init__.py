"""ANYWHERE. The one definition of each feature operation: its fitted state as JSON and its numpy transform.

Preparation runs these very functions inside Spark tasks, serving runs them in memory: the same bits in both places,
because Spark's own logarithm, sine and trim differ from numpy's and Python's in the last digits or characters.
"""

from __future__ import annotations

from pipeline.features.fitted import FittedFeatures, fit_features, raw_inputs
from pipeline.features.kinds import Kind, canonical

__all__ = ["FittedFeatures", "Kind", "canonical", "fit_features", "raw_inputs"]
