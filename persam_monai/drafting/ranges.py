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
_BELOW = 2.0  # of the lowest value, for a logarithm: half of a limit of detection is within the range
_SMALLEST = 1e-30  # below it 32-bit floating point loses digits
_FACTORS = (10, 100, 1000)  # between units of one quantity: g/dL and g/L, m and cm, g and mg
_MEASURED = 3  # different values: fewer are classes such as 10 %, 20 %, 90 %
_NEAR = 0.15  # in powers of ten: between 7 and 14 times is about ten times
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


def plausible_range(values: np.ndarray, unit: str | None = None, positive: bool = False) -> tuple[float, float]:
    """Friendly ends that leave room around the data; 0 below data that are never negative.

    Args:
        values: ``[patients]`` without NaN.
        unit: of the values.
        positive: whether 0 is to be outside, as for a logarithm.

    Example:
        >>> plausible_range(np.array([18.0, 95.0]))
        (0.0, 120.0)
    """
    low, high = float(values.min()), float(values.max())
    if unit == "%" and low >= 0 and high <= 100:
        return (_friendly_below(low / _BELOW) if positive else 0.0), 100.0
    if positive:
        return _friendly_below(low / _BELOW), _friendly(high * _MARGIN)
    lowest = -_friendly(-low * _MARGIN) if low < 0 else 0.0
    return lowest, _friendly(high * _MARGIN) if high > 0 else float(low == 0)


def looks_logarithmic(values: np.ndarray) -> bool:
    """Whether positive values trail off to the right, and less so after taking logarithms."""
    if len(values) < _MINIMUM_SKEWED or values.min() <= _BELOW * _SMALLEST or two_scales(values) is not None:
        return False
    skew, chance = _skew(values), 2 * math.sqrt(_SKEW_OF_CHANCE / len(values))
    return skew > max(_SKEW, chance) and abs(_skew(np.log(values))) < skew / 2


def two_scales(values: np.ndarray) -> tuple[int, int] | None:
    """Whether positive values lie in two heaps, one 10, 100 or 1000 times the other, as of two units.

    The gap between the heaps has to be wider, as a factor, than each of them.

    Args:
        values: ``[patients]`` without NaN.

    Returns:
        The factor and the number of patients in the smaller heap; None if there is one heap.
    """
    powers = np.log10(np.sort(values[values > 0]))
    if len(powers) <= _MINIMUM_REST:
        return None
    split = int(np.diff(powers).argmax()) + 1
    below, above = powers[:split], powers[split:]
    apart = above[0] - below[-1]
    larger = below if len(below) >= len(above) else above
    if len(np.unique(larger)) < _MEASURED:
        return None
    if max(len(below), len(above)) < _MINIMUM_REST or apart <= max(np.ptp(below), np.ptp(above)):
        return None
    between = float(np.median(above) - np.median(below))
    near = [factor for factor in _FACTORS if abs(between - math.log10(factor)) <= _NEAR]
    return (near[0], min(len(below), len(above))) if near else None


def _skew(values: np.ndarray) -> float:
    deviations = values - values.mean()
    spread = values.std()
    return float((deviations**3).mean() / spread**3) if spread > 0 else 0.0


def _friendly(number: float) -> float:
    """The next number up that people would write."""
    number = max(number, _SMALLEST)
    power = 10.0 ** math.floor(math.log10(number))
    # 1.2 * 10 is not quite 12; and where the logarithm was rounded down, none of them reaches the number
    step = next((step for step in _FRIENDLY if step * power >= number * (1 - 1e-12)), 2 * _FRIENDLY[-1])
    return float(f"{step * power:.6g}")


def _friendly_below(number: float) -> float:
    """The next positive number down that people would write."""
    power = 10.0 ** math.floor(math.log10(max(number, _SMALLEST)))
    step = next((step for step in reversed(_FRIENDLY) if step * power <= number * (1 + 1e-12)), _FRIENDLY[0])
    return float(f"{step * power:.6g}")
