"""The logarithm of features has the same bits on every stack, and is right to the last places."""

from __future__ import annotations

import hashlib
import math

import numpy as np

from pipeline.features.logarithm import log1p

VALUES = np.concatenate([np.arange(200_000) / 7.0, np.arange(-9_999, 10_000) / 10_000.0, 2.0 ** np.arange(-60, 500)])
RECORDED = "aa0f13bae7fc9108"


def test_it_is_right_to_two_units_in_the_last_place() -> None:
    exact = np.array([math.log1p(value) for value in VALUES.tolist()])
    assert (np.abs(log1p(VALUES) - exact) <= 2 * np.spacing(np.abs(exact))).all()


def test_edges_are_those_of_the_logarithm() -> None:
    found = log1p(np.array([0.0, -1.0, -1.5, np.nan, np.inf, 1e-300]))
    assert np.array_equal(found, [0.0, -np.inf, np.nan, np.nan, np.inf, 1e-300], equal_nan=True)


def test_the_bits_do_not_depend_on_the_version_of_numpy() -> None:
    assert hashlib.sha256(log1p(VALUES).tobytes()).hexdigest()[:16] == RECORDED
