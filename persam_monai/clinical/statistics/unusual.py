# SPDX-License-Identifier: Apache-2.0
"""What is unusual about one value of a record, against the training records."""

from __future__ import annotations

import math

import numpy as np

from persam_monai.clinical.statistics.variable import VariableStatistics, has_range, names
from persam_monai.clinical.variables.base import Variable
from persam_monai.clinical.variables.numeric import NumericVariable

_SAME = 1e-6  # relative difference of values that are one; ten times what 32-bit numbers keep


def unusual(variable: Variable, numbers: np.ndarray, cell: str, training: VariableStatistics) -> str | None:
    """A sentence about a value that the training records did not prepare the network for; None for any other.

    Args:
        variable: what it is.
        numbers: float32 ``[width]``, none of them NaN.
        cell: the same as text.
        training: the variable in the training records.
    """
    if not training.known:
        return f"{variable.name}: no training patient had a value"
    if not has_range(variable):
        seen = training.levels is None or cell in training.levels
        return None if seen else f'{variable.name}: no training patient had "{cell}"'
    assert training.range is not None  # from_dict refuses a known variable without
    value, (low, high) = float(numbers[0]), training.range
    if low == high:
        if math.isclose(value, training.mean[0], rel_tol=_SAME):
            return None
        extent = f"differs from {_written(variable, low)}, the only value in training"
    else:
        lowest, highest = (_encoded(variable, limit) for limit in training.range)
        if lowest - training.scale[0] <= value <= highest + training.scale[0]:
            return None
        extent = f"is far outside the training range {_limits(variable, low, high)}"
    return f"{variable.name}: {_quoted(variable, cell)} {extent}{_question(variable)}"


def _encoded(variable: Variable, value: float) -> float:
    return variable.transformed(value) if isinstance(variable, NumericVariable) else value


def _question(variable: Variable) -> str:
    return "; is the unit right?" if isinstance(variable, NumericVariable) else ""


def _quoted(variable: Variable, cell: str) -> str:
    """A value as sentences show it: a number with its unit, a level in quotes."""
    if not isinstance(variable, NumericVariable):
        return f'"{cell}"'
    unit = (variable.unit or "").strip()
    # A cell that would be a missing code without its unit has it already.
    return f"{cell} {unit}" if unit and not cell.endswith(f" {unit}") else cell


def _written(variable: Variable, value: float) -> str:
    """A limit of the training range as sentences show it."""
    return _quoted(variable, f"{value:.10g}" if isinstance(variable, NumericVariable) else names(variable)[int(value)])


def _limits(variable: Variable, low: float, high: float) -> str:
    lowest = f"{low:.10g}" if isinstance(variable, NumericVariable) else _written(variable, low)
    return f"{lowest} to {_written(variable, high)}"
