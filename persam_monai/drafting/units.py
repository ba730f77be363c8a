# SPDX-License-Identifier: Apache-2.0
"""Units that differ by a power of ten alone, or by their spelling."""

from __future__ import annotations

_PREFIXES = {
    "f": 1e-15,
    "p": 1e-12,
    "n": 1e-9,
    "µ": 1e-6,  # the micro sign
    "μ": 1e-6,  # the Greek letter
    "u": 1e-6,
    "m": 1e-3,
    "c": 1e-2,
    "d": 1e-1,
    "": 1.0,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
}
_BASES = ("mol", "IU", "eq", "U", "g", "L", "l", "m", "s")
_TIMES = {"y": "year", "yr": "year", "wk": "week", "d": "day", "h": "hour", "mo": "month"}


def factor(unit: str, to: str) -> float | None:
    """What values in ``unit`` are multiplied by to be in ``to``; None if prefixes and spelling do not tell.

    Example:
        >>> factor("mg/dL", "g/L"), factor("kU/l", "U/L"), factor("mmol/L", "mg/dL")
        (0.01, 1000.0, None)
    """
    if _spelling(unit) == _spelling(to):
        return 1.0
    first, second = _parse(unit), _parse(to)
    if first is None or second is None or first[1] != second[1]:
        return None
    return float(f"{first[0] / second[0]:.12g}")  # 1e-3 / 1e-1 is not 0.01 in binary


def _spelling(unit: str) -> str:
    """Equal for year, years, yrs and y."""
    word = unit.casefold().rstrip(".")
    word = word.removesuffix("s") if len(word) > 2 else word  # "s" and "ms" are units themselves
    return _TIMES.get(word, word)


def _parse(unit: str) -> tuple[float, tuple[str, ...]] | None:
    """Power of ten and bases of a unit such as mg/dL."""
    scale, bases = 1.0, []
    for place, part in enumerate(unit.split("/")):
        found = next((base for base in _BASES if part.endswith(base) and part.removesuffix(base) in _PREFIXES), None)
        if found is None:
            return None
        prefix = _PREFIXES[part.removesuffix(found)]
        scale = scale / prefix if place else scale * prefix
        bases.append(found.upper())
    return scale, tuple(bases)
