# SPDX-License-Identifier: Apache-2.0
"""A column read as numbers: their form, unit, comparison signs and codes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from persam_monai.clinical.numbers import NumberFormat
from persam_monai.cohort.tables.table import as_text
from persam_monai.drafting.columns import Column
from persam_monai.drafting.numbers import Number, format_of, read_number
from persam_monai.drafting.ranges import suspected_codes
from persam_monai.drafting.units import factor

_WITH_UNIT = 0.5  # of the numbers carry a unit: else it says nothing of the others
_MOST_CELLS = 0.8  # of the known cells hold a number; the others are slips or codes of missing values


@dataclass(frozen=True)
class Quantity:
    """Numbers of a column.

    Args:
        values: one per patient in the column's own unit, NaN where missing, a suspected code or no number.
        declaration: what the schema has to say for the cells to be read, besides kind and range.
        form: how the cells are written.
        codes: suspected codes of missing values with their number of patients.
        strays: texts without a number, with their number of patients.
        notes: what a person should know, a sentence each.
    """

    values: np.ndarray = field(repr=False)
    declaration: dict[str, Any]
    form: NumberFormat
    codes: Counter[float]
    strays: Counter[str] = field(repr=False)
    notes: tuple[str, ...]

    @property
    def different(self) -> int:
        """How many different numbers there are."""
        return len(np.unique(self.values[~np.isnan(self.values)]))


def read_quantity(column: Column, decimal: str) -> Quantity | None:
    """Read a column as numbers; None if too few of its cells are.

    Args:
        column: with known cells.
        decimal: the decimal sign of the table.
    """
    known = column.known
    form = format_of(known, decimal)
    read = [None if cell is None else read_number(cell, form) for cell in column.cells]
    numbers = [number for number in read if number is not None]
    strays = Counter(
        as_text(cell) for cell, number in zip(column.cells, read, strict=True) if cell is not None and number is None
    )
    if len(numbers) < _MOST_CELLS * len(known):
        return None
    declaration, notes, factors = _units(numbers)
    if form.decimal != decimal:
        declaration["decimal"] = form.decimal
    if form.thousands:
        declaration["thousands"] = form.thousands
    if any(number.sign for number in numbers):
        declaration["comparisons"] = "limit"
        notes.append(
            f"Comparison signs (patients: {sum(bool(number.sign) for number in numbers)}): limit takes <5 for 5, half "
            "takes it for 2.5, a common choice below a limit of detection."
        )
    values = np.array([np.nan if n is None else n.value * factors.get(n.unit, np.nan) for n in read])
    codes = suspected_codes(values[~np.isnan(values)])
    counts = Counter({code: int((values == code).sum()) for code in codes})
    return Quantity(np.where(np.isin(values, codes), np.nan, values), declaration, form, counts, strays, tuple(notes))


def _units(numbers: list[Number]) -> tuple[dict[str, Any], list[str], dict[str, float]]:
    """Keys for the units in the cells, notes about them, and the factor of each (an empty one among them)."""
    counts = Counter(number.unit for number in numbers if number.unit)
    if not counts:
        return {}, [], {"": 1.0}
    if counts.total() < _WITH_UNIT * len(numbers):
        listed = ", ".join(other for other, _ in counts.most_common())
        note = (
            f"Patients with a unit in the cell: {counts.total()} ({listed}); the others have none. Say which unit they "
            "are in."
        )
        return {}, [note], {"": 1.0}
    (unit, _), *others = counts.most_common()
    factors = {unit: 1.0}
    notes, unclear = [], []
    for other, _ in others:
        by_prefix = factor(other, unit)
        if by_prefix is None:
            unclear.append(other)
        else:
            factors[other] = by_prefix
    if len(factors) > 1:
        notes.append("Several units: check the factors.")
    if unclear:
        listed = ", ".join(f"{other} (patients: {counts[other]})" for other in unclear)
        notes.append(f"Units without a known factor, which are refused until units has them: {listed}.")
    if any(not number.unit for number in numbers):
        notes.append(f"Cells without a unit are taken for {unit}.")
    return {"unit": unit, "units": dict(factors)}, notes, {"": 1.0, **factors}
