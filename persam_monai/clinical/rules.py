# SPDX-License-Identifier: Apache-2.0
"""How cells are read where a variable does not say so itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from persam_monai.clinical.numbers import PLAIN_NUMBERS, NumberFormat, number_or_none

_NEAR = 1e-7  # relative; a 32-bit number is nearer than that to the one it keeps
_LARGEST = 1e38  # well within 32 bits


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


def _same_in_32_bits(code: float, number: float) -> bool:
    """Whether a number is what 32 bits keep of a code."""
    # The first is quick, and leaves few to the second; what is too large for 32 bits is infinite there.
    return abs(code - number) <= abs(code) * _NEAR and abs(number) < _LARGEST and float(np.float32(code)) == number


def is_code(value: object, codes: tuple[str | float, ...], numbers: NumberFormat = PLAIN_NUMBERS) -> bool:
    """Whether a cell is one of the codes for "not known".

    Args:
        value: the cell.
        codes: a text is compared in any case, a number (also one written as text) by its value: -9 is -9.0. A number
            that Parquet kept in 32 bits is compared in 32 bits, where -9.9 is -9.8999996.
        numbers: how the cell's numbers are written.
    """
    if not codes:
        return False
    text = value.strip().casefold() if isinstance(value, str) else None
    number = number_or_none(value, numbers)
    for code in codes:
        if text is not None and isinstance(code, str) and code.strip().casefold() == text:
            return True
        known = number_or_none(code) if number is not None else None
        if number is None or known is None:
            continue
        if known == number or (text is None and _same_in_32_bits(known, number)):
            return True
    return False
