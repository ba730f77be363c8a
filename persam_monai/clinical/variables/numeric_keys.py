# SPDX-License-Identifier: Apache-2.0
"""The keys of a numeric variable in the schema."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from persam_monai.clinical.cells import shown
from persam_monai.clinical.names import name_fault
from persam_monai.clinical.numbers import PLAIN_NUMBERS, NumberFormat, number_or_none
from persam_monai.clinical.variables.base import Report
from persam_monai.clinical.variables.cell_units import one_micro
from persam_monai.clinical.variables.options import parse_codes, parse_sign

_COMPARISONS = ("limit", "half")
_EXPONENT = re.compile("[eE][+-]?[0-9]+")


def parse_numeric(declaration: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """The fields of a numeric variable, harmless where there is a fault.

    Args:
        declaration: the variable's mapping.
        report: takes each fault with its key.
    """
    unit, transform = declaration.get("unit"), declaration.get("transform", "none")
    comparisons = declaration.get("comparisons")
    if "unit" in declaration and not (isinstance(unit, str) and unit.strip()):
        quoted = f' (put it in quotes: "{unit}")' if unit and not isinstance(unit, str) else ""
        report("unit", f"found {shown(unit)}; expected text, such as U/L{quoted}.")
        unit = None
    if transform not in ("log", "none"):
        report("transform", f"found {shown(transform)}; expected log or none.")
        transform = "none"
    if "comparisons" in declaration and comparisons not in _COMPARISONS:
        report("comparisons", f"found {shown(comparisons)}; expected {' or '.join(_COMPARISONS)}.")
        comparisons = None
    limits = _parse_range(declaration["range"], report) if "range" in declaration else None
    if limits and transform == "log" and limits[1] <= 0:
        report("range", "admits no positive value, but transform: log needs one; correct one of the two.")
    return {
        "unit": unit,
        "range": limits,
        "transform": transform,
        "units": _parse_units(declaration["units"], declaration.get("unit"), report) if "units" in declaration else {},
        "comparisons": comparisons,
        "decimal": parse_sign(declaration, "decimal", lambda text: report("decimal", text)),
        "thousands": parse_sign(declaration, "thousands", lambda text: report("thousands", text)),
        "missing_codes": parse_codes(declaration, lambda text: report("missing_codes", text)),
    }


def _parse_range(value: object, report: Report) -> tuple[float, float] | None:
    """The two ends of a plausible range, or None after a report."""
    numbers = value if isinstance(value, list | tuple) else []
    meant = [f"{shown(end)} is text to YAML: write {text}" for end in numbers if (text := _meant(end)) is not None]
    if meant and len(numbers) == 2:
        report("range", f"found {shown(value)}; {'; '.join(meant)}.")
        return None
    if len(numbers) != 2 or any(isinstance(number, bool) or not isinstance(number, int | float) for number in numbers):
        report("range", f"found {shown(value)}; expected [lowest, highest], two plain numbers such as [0, 120].")
        return None
    low, high = number_or_none(numbers[0]), number_or_none(numbers[1])
    if low is None or high is None or low >= high:
        report("range", f"found {shown(value)}; expected [lowest, highest] with lowest below highest, both finite.")
        return None
    return low, high


def _parse_units(value: object, unit: object, report: Report) -> dict[str, float]:
    """The sound ones of the units that may stand in cells, with their factors."""
    if not isinstance(value, Mapping) or not value:
        report("units", f"found {shown(value)}; expected each unit with its factor, such as {{g/L: 1, g/dL: 10}}.")
        return {}
    if unit is None:
        report("units", "needs unit, the one that all values are turned into; add it, such as unit: g/L.")
    units: dict[str, float] = {}
    for name, factor in value.items():
        fault = _unit_fault(name, factor, unit)
        if fault is None and any(one_micro(name) == one_micro(other) for other in units):
            fault = f"{name} stands twice, with the two signs for micro (µ); remove one."
        if fault is None:
            units[name] = float(factor)
        else:
            report("units", fault)
    return units


def _meant(value: object) -> str | None:
    """How YAML wants a number that it read as text, such as 1e3 or one in quotes; None for what is no such text."""
    if not isinstance(value, str):
        return None
    for numbers in (PLAIN_NUMBERS, NumberFormat(",")):
        number = number_or_none(value, numbers)
        if number is not None:
            return format(Decimal(f"{number:.15g}"), "f")  # YAML 1.1 reads 1e+20 as text too
    return None


def _unit_fault(name: object, factor: object, unit: object) -> str | None:
    """What is wrong with one unit that may stand in cells."""
    if not isinstance(name, str):
        return f'found {shown(name)}; expected the name of a unit as text, such as "g/L".'
    if number_or_none(name) is not None:
        return f"found {shown(name)}, which is a number; expected the name of a unit, such as g/L."
    if _EXPONENT.fullmatch(name):
        return f"found {shown(name)}, which 5{name} has for its exponent; choose another spelling in table and schema."
    fault = name_fault(name)
    if fault is not None:
        return fault
    meant = _meant(factor)
    if meant is not None:
        return f"found {shown(factor)} for {name}, which is text to YAML: write {meant}."
    number = None if isinstance(factor, str) else number_or_none(factor)
    if number is None or not 0 < number < math.inf:
        return f"found {shown(factor)} for {name}; expected the number, above 0, that its values are multiplied by."
    if isinstance(unit, str) and one_micro(name) == one_micro(unit.strip()) and number != 1:
        return f"found {shown(factor)} for {name}, which is the variable's own unit; expected the factor 1."
    return None
