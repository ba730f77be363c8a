# SPDX-License-Identifier: Apache-2.0
"""Units behind the numbers of cells: which are admitted, what precedes them, what is told of any other."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping

from persam_monai.clinical.cells import CellError
from persam_monai.clinical.numbers import number_or_none

# A number and what looks like a unit behind it. Not 0x10, and not a letter that was taken for a digit (6O); 10^9/L only
# after a space, because "5.210^9/L" might be 5.2 as well as 5.
_FOLLOWED = re.compile(
    r"(?P<amount>[+-]?[0-9][0-9.,]*(?:[ \u00a0\u202f\u2009'\u2019][0-9]{3}(?![0-9]))*(?:[.,][0-9]*)?"
    r"(?:[eE][+-]?[0-9]+)?)"
    r"(?!x[0-9a-f]+\Z|[OoIl]\Z)"
    r"\s*(?P<unit>[%‰°].*|/?[^\W\d_].*|(?<=\s)[x×*]?\s?10[\^*eE⁰¹²³⁴-⁹].*|[x×*]\s?10[\^*eE⁰¹²³⁴-⁹].*)",
    re.DOTALL,
)
_PLAIN_UNIT = re.compile(r"[^\W\d_]+/[^\W\d_]+")  # such as mg/dL, which YAML reads as text without quotes


def admitted(unit: str | None, units: Mapping[str, float]) -> dict[str, float]:
    """The units that may stand in a cell, with their factors: those of ``units``, and then the variable's own one."""
    if not units or unit is None or number_or_none(unit.strip()) is not None:
        return dict(units)
    return dict(units) if any(one_micro(name) == one_micro(unit) for name in units) else {unit.strip(): 1.0, **units}


def one_micro(unit: str) -> str:
    """A unit with one of the two signs for micro."""
    return unit.replace("\u00b5", "\u03bc")


def without(text: str, unit: str) -> str | None:
    """What stands before a unit; None if the text does not end with it. The two signs for micro are one."""
    text, unit = one_micro(text), one_micro(unit)
    amount = text[: len(text) - len(unit)]
    # Without the space, "5.210^9/L" might be 5.2 as well as 5.
    joined = bool(amount) and not amount[-1].isspace() and unit[0] in "0123456789+-.,"
    return amount.strip() if text.endswith(unit) and not joined else None


def split(text: str) -> tuple[str, str] | None:
    """A number and what looks like a unit behind it; None if nothing does."""
    match = _FOLLOWED.fullmatch(text)
    return (match["amount"], match["unit"]) if match else None


def unit_error(found: str, unit: str | None, units: Mapping[str, float]) -> CellError:
    """What was expected instead of a number with a unit that may not stand there.

    Args:
        found: what stands behind the number.
        unit: the variable's own one.
        units: those that may stand in a cell.
    """
    if units:
        cure = "correct the cell, or add its unit to units in the schema"
        return CellError(f"a number, alone or with one of the units {', '.join(units)}; {cure}.", _hint(found, units))
    if unit is None:
        cure = "if cells have units, declare unit and units in the schema, such as units: {g/L: 1, g/dL: 10}"
        return CellError(f"a number without a unit; {cure}")
    key = unit if _PLAIN_UNIT.fullmatch(unit) else json.dumps(unit, ensure_ascii=False)
    cure = f"if cells have units, declare units in the schema, such as units: {{{key}: 1}}"
    return CellError(f"a number in {unit} without the unit; {cure}")


def _hint(found: str, units: Collection[str]) -> str:
    """The unit that differs in case or sign for micro alone; a near spelling may be off by a factor of 1000."""
    meant = [unit for unit in units if unit.casefold() == found.strip().casefold()]
    return f' Did you mean "{meant[0]}"?' if len(meant) == 1 else ""
