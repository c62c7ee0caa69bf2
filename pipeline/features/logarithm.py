"""ANYWHERE. log(1 + x) from additions, multiplications and divisions alone, which give the same bits everywhere.

NumPy's own differs in the last bits between its versions and between processors, and with it would differ the
statistics, and the content id, of the same rows: measured with 1.26 and 2.4 on one machine.
"""

from __future__ import annotations

import numpy as np

from pipeline.features.kinds import Array

_ROOT_OF_HALF = 0.7071067811865476
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
"""Their sum is the logarithm of 2; the first has zeros at its end, so that a multiple of it is exact."""
_SERIES = (
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
    2.222219843214978396e-01,
    1.818357216161805012e-01,
    1.531383769920937332e-01,
    1.479819860511658591e-01,
)
"""Of (log((1 + s) / (1 - s)) - 2s) / s in s squared: the minimax polynomial of fdlibm's e_log.c and s_log1p.c."""


def log1p(values: Array) -> Array:
    """log(1 + x) of float64, within 2 units in the last place; nan below -1, -inf at -1."""
    with np.errstate(all="ignore"):
        total = 1.0 + values
        lost = (values - (total - 1.0)) / total
        fraction, exponent = np.frexp(total)
        small = fraction < _ROOT_OF_HALF
        rest = np.where(small, 2.0 * fraction, fraction) - 1.0
        twos = (exponent - small).astype(np.float64)
        slope = rest / (2.0 + rest)
        square = slope * slope
        series = np.zeros_like(square)
        for coefficient in reversed(_SERIES):
            series = square * (coefficient + series)
        half = 0.5 * rest * rest
        result = twos * _LN2_HIGH - ((half - (slope * (half + series) + (twos * _LN2_LOW + lost))) - rest)
    edges = np.select([values == np.inf, values == -1.0, values < -1.0], [np.inf, -np.inf, np.nan], result)
    return np.asarray(edges, dtype=np.float64)
