# SPDX-License-Identifier: Apache-2.0
"""What numbers suggest: a plausible range, a logarithm, codes that stand for missing values."""

from __future__ import annotations

import math

import numpy as np

CODES = (-1, -7, -8, -9, -77, -88, -99, -888, -999, -9999, 9, 77, 88, 99, 777, 888, 999, 8888, 9999)
"""Numbers that people write where they do not know the value."""

_MINIMUM_REST = 5  # patients with other values: against fewer nothing stands apart
_MINIMUM_SKEWED = 10  # patients, for the shape of a distribution to mean anything
_SKEW = 0.75  # that of an exponential distribution is 2, of a normal one 0; and in a sample of n patients
_SKEW_OF_CHANCE = 6.0  # the variance of a normal distribution's skew is 6 / n, of which two standard deviations count
_MARGIN = 1.25  # beyond the data on either side: ages to 95 become a range to 120
_SMALLEST = 1e-30  # below it 32-bit floating point loses digits
_FRIENDLY = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)


def suspected_codes(values: np.ndarray) -> list[float]:
    """Values of :data:`CODES` that stand apart from the others.

    A negative code stands apart where all other values are 0 or more; a positive one where the gap below it is wider
    than all other values lie apart from one another.

    Args:
        values: ``[patients]`` without NaN.
    """
    negative = values[values < 0]
    found: list[float] = []
    rest = values
    if len(negative) and set(negative) <= set(CODES):
        rest = values[values >= 0]
        if len(rest) >= _MINIMUM_REST:
            found += sorted(set(negative.tolist()))
        else:
            rest = values
    while len(rest) and rest.max() in CODES:
        others = rest[rest < rest.max()]
        spread = others.max() - others.min() if len(others) else math.inf
        if len(others) < _MINIMUM_REST or spread == 0 or rest.max() - others.max() <= spread:
            break
        found.append(float(rest.max()))
        rest = others
    return found


def plausible_range(values: np.ndarray, unit: str | None = None) -> tuple[float, float]:
    """Friendly ends that leave room around the data; 0 below data that are never negative.

    Example:
        >>> plausible_range(np.array([18.0, 95.0]))
        (0.0, 120.0)
    """
    low, high = float(values.min()), float(values.max())
    if unit == "%" and low >= 0 and high <= 100:
        return 0.0, 100.0
    lowest = -_friendly(-low * _MARGIN) if low < 0 else 0.0
    return lowest, _friendly(high * _MARGIN) if high > 0 else float(low == 0)


def looks_logarithmic(values: np.ndarray) -> bool:
    """Whether positive values trail off to the right, and less so after taking logarithms."""
    if len(values) < _MINIMUM_SKEWED or values.min() <= 0:
        return False
    skew, chance = _skew(values), 2 * math.sqrt(_SKEW_OF_CHANCE / len(values))
    return skew > max(_SKEW, chance) and abs(_skew(np.log(values))) < skew / 2


def _skew(values: np.ndarray) -> float:
    deviations = values - values.mean()
    spread = values.std()
    return float((deviations**3).mean() / spread**3) if spread > 0 else 0.0


def _friendly(number: float) -> float:
    """The next number up that people would write."""
    number = max(number, _SMALLEST)
    power = 10.0 ** math.floor(math.log10(number))
    step = next(step for step in _FRIENDLY if step * power >= number * (1 - 1e-12))  # 1.2 * 10 is not quite 12
    return float(f"{step * power:.6g}")
