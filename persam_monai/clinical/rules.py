# SPDX-License-Identifier: Apache-2.0
"""How cells are read where a variable does not say so itself."""

from __future__ import annotations

from dataclasses import dataclass

from persam_monai.clinical.numbers import PLAIN_NUMBERS, NumberFormat, number_or_none


@dataclass(frozen=True)
class CellRules:
    """What the schema declares for all variables, and what the table was found to use.

    Args:
        missing_codes: numbers and texts that mean "not known".
        decimal: the schema's decimal sign, ``"."`` or ``","``; None if it declares none.
        thousands: the schema's sign between thousands; None if it declares none.
        table_decimal: the decimal sign that the table shows, where the schema declares none; None for the point.
    """

    missing_codes: tuple[str | float, ...] = ()
    decimal: str | None = None
    thousands: str | None = None
    table_decimal: str | None = None


PLAIN_RULES = CellRules()
"""No codes, a decimal point, nothing between thousands."""


def is_code(value: object, codes: tuple[str | float, ...], numbers: NumberFormat = PLAIN_NUMBERS) -> bool:
    """Whether a cell is one of the codes for "not known".

    Args:
        value: the cell.
        codes: a text is compared in any case, a number (also one written as text) by its value: -9 is -9.0.
        numbers: how the cell's numbers are written.
    """
    if not codes:
        return False
    text = value.strip().casefold() if isinstance(value, str) else None
    number = number_or_none(value, numbers)
    for code in codes:
        if text is not None and isinstance(code, str) and code.strip().casefold() == text:
            return True
        if number is not None and number_or_none(code) == number:
            return True
    return False
