# SPDX-License-Identifier: Apache-2.0
"""What a trained model keeps of one variable in its training records."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

import numpy as np

from persam_monai.clinical.variables.base import Variable
from persam_monai.clinical.variables.levels import LevelVariable, OrdinalVariable
from persam_monai.clinical.variables.numeric import NumericVariable

_DIGITS = 2  # of a training range: enough to tell g/L from g/dL, too few for most patients' own values
_SHARE = 0.5  # of a standard deviation that rounding may add, so that it does not hide what is far outside

Report = Callable[[str], None]
"""Takes what is wrong."""


@dataclass(frozen=True)
class VariableStatistics:
    """One variable in the training records.

    Args:
        known: how many patients had a value.
        median: of each of its numbers, as the network sees them (after a logarithm); 0 if nobody had a value.
        mean: after filling gaps with the median.
        scale: population standard deviation after filling; 1 for a constant number.
        range: of a numeric variable, in its unit, rounded outward to two significant digits, or more where those would
            add more than half a standard deviation (exact if all patients had one value); of an ordinal one, the lowest
            and highest place. None for other kinds, or if nobody had a value.
        levels: of a binary or categorical variable, those that occurred. None for other kinds.
    """

    known: int
    median: tuple[float, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    range: tuple[float, float] | None = None
    levels: tuple[str, ...] | None = None

    @classmethod
    def fit(cls, variable: Variable, values: np.ndarray, *fitted: np.ndarray) -> VariableStatistics:
        """Statistics of one variable.

        Args:
            variable: what it is.
            values: the known ones, ``[P, width]``.
            fitted: its median, mean and scale, each ``[width]``.
        """
        median, mean, scale = (tuple(part.tolist()) for part in fitted)
        limits: tuple[float, float] | None = None
        if has_range(variable):
            limits = _training_range(variable, values, scale[0]) if len(values) else None
            return cls(len(values), median, mean, scale, limits)
        occurred = {variable.cell(row) for row in np.unique(values, axis=0)}
        return cls(len(values), median, mean, scale, None, tuple(name for name in names(variable) if name in occurred))

    def to_dict(self) -> dict[str, Any]:
        """What :meth:`from_dict` reads; JSON-able."""
        kept = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        return {key: value for key, value in kept.items() if value is not None}

    @classmethod
    def from_dict(cls, variable: Variable, data: object, patients: int, report: Report) -> VariableStatistics:
        """Read what :meth:`to_dict` wrote.

        Args:
            variable: what it is.
            data: as JSON delivered it.
            patients: how many training records there were.
            report: takes each fault.
        """
        data = data if isinstance(data, Mapping) else {}
        known = data.get("known")
        if isinstance(known, bool) or not isinstance(known, int) or not 0 <= known <= patients:
            report(f"known is no whole number from 0 to {patients}")
            known = 0
        numbers = {key: _numbers(data.get(key), variable.width) for key in ("median", "mean", "scale")}
        for key, found in numbers.items():
            if found is None or (key == "scale" and min(found) <= 0):
                report(f"{key} is no list of {variable.width} {'positive' if key == 'scale' else 'finite'} numbers")
        median, mean, scale = (found or (1.0,) * variable.width for found in numbers.values())
        if not has_range(variable):
            return cls(known, median, mean, scale, None, _read_levels(variable, data.get("levels"), report))
        limits = _numbers(data.get("range"), 2)
        if (limits is None and known) or (limits and not _sound(variable, limits)):
            report("range is no [lowest, highest] that the variable can have")
        return cls(known, median, mean, scale, (limits[0], limits[1]) if limits else None)


def has_range(variable: Variable) -> bool:
    """Whether a variable's values have an order, so that they have a lowest and a highest one."""
    return isinstance(variable, NumericVariable | OrdinalVariable)


def names(variable: Variable) -> tuple[str, ...]:
    """The texts that :meth:`Variable.cell` has for a variable with levels, in the order of its numbers."""
    return variable.spellings if isinstance(variable, LevelVariable) else ()


def _training_range(variable: Variable, values: np.ndarray, scale: float) -> tuple[float, float]:
    lowest, highest = values.min(), values.max()
    if not isinstance(variable, NumericVariable):
        return float(lowest), float(highest)
    low, high = Decimal(variable.text(lowest)), Decimal(variable.text(highest))
    if lowest == highest:
        return float(low), float(high)
    logarithm = variable.transform == "log"
    # A standard deviation of the logarithm is a share of the value.
    tolerances = [_SHARE * scale * (float(limit) if logarithm else 1.0) for limit in (low, high)]
    return (
        float(_rounded(low, ROUND_FLOOR, tolerances[0])),
        float(_rounded(high, ROUND_CEILING, tolerances[1])),
    )


def _rounded(number: Decimal, direction: str, tolerance: float) -> Decimal:
    """A number with two significant digits, or with as many as it takes to stay within ``tolerance``."""
    step = min(number.adjusted() - _DIGITS + 1, math.floor(math.log10(tolerance)))
    return number.quantize(Decimal(1).scaleb(step), direction) if number else number


def _numbers(value: object, count: int) -> tuple[float, ...] | None:
    """Finite numbers of a JSON list; None if it is anything else."""
    if not isinstance(value, list) or len(value) != count:
        return None
    sound = [isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item) for item in value]
    return tuple(float(item) for item in value) if all(sound) else None


def _sound(variable: Variable, limits: tuple[float, ...]) -> bool:
    if isinstance(variable, NumericVariable):
        return limits[0] <= limits[1] and (variable.transform != "log" or limits[0] > 0)
    return 0 <= limits[0] <= limits[1] < len(names(variable)) and all(limit.is_integer() for limit in limits)


def _read_levels(variable: Variable, value: object, report: Report) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item in names(variable) for item in value):
        report("levels is no list of the variable's levels")
        return ()
    return tuple(value)
