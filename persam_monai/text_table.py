# SPDX-License-Identifier: Apache-2.0
"""Tables and numbers for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_DIGITS = 4  # of a number that people compare by eye
_INDENT = "  "


def text_table(heading: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Lines of a table whose columns stand below one another.

    Args:
        heading: names of the columns.
        rows: cells, as many as there are names.
        right: columns that are flush right.

    Example:
        >>> text_table(["class", "patients"], [["DLBCL", "12"], ["FL", "3"]], right=[1])
        ['  class  patients', '  DLBCL        12', '  FL            3']
    """
    everything = [heading, *rows]
    widths = [max(len(row[column]) for row in everything) for column in range(len(heading))]
    return [
        _INDENT
        + "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in everything
    ]


def number(value: float) -> str:
    """A number with four significant digits and no exponent; digits before the decimal point all stay.

    Example:
        >>> [number(value) for value in (0.0123456, 12.0, 123456.7)]
        ['0.01235', '12', '123457']
    """
    if abs(value) >= 10**_DIGITS:
        value = round(value)
        return f"{value:.0f}"
    return np.format_float_positional(value, precision=_DIGITS, fractional=False, trim="-")


def share(part: int, whole: int) -> str:
    """A share in per cent; 0 % and 100 % mean exactly that."""
    if part in (0, whole):
        return f"{100 * bool(part)} %"
    return f"{min(max(100 * part / whole, 0.1), 99.9):.1f} %"
