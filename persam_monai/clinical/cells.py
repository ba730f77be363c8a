# SPDX-License-Identifier: Apache-2.0
"""What one cell of a clinical table says: missing, a number, or a problem to report."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

# Spellings of "not known", in lower case. Short on purpose: "none" and "-" are levels or results in real tables.
MISSING_SPELLINGS = ("", "na", "n/a", "nan")

# float() alone would also read "1_000", "infinity" and digits of other scripts.
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
_SHOWN_CHARACTERS = 60  # enough to recognise a cell; a whole paragraph pasted into one would hide the message


class CellError(Exception):
    """A cell that its variable does not admit; the text says what was expected instead."""


@dataclass(frozen=True)
class CellProblem:
    """One cell that cannot be used, without the place of its table.

    Args:
        column: name of the variable.
        found: the cell as shown to the user.
        expected: what would have been right, and what to do, as the end of a sentence.
    """

    column: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f'column "{self.column}": found {self.found}, expected {self.expected}'


def shown(value: object) -> str:
    """A cell as messages show it: text in quotes, long text cut."""
    text = str(value)
    if len(text) > _SHOWN_CHARACTERS:
        text = text[:_SHOWN_CHARACTERS] + "…"
    return f'"{text}"' if isinstance(value, str) else text


def is_missing(value: object) -> bool:
    """Whether a cell says that the value is not known: ``None``, NaN, or one of ``MISSING_SPELLINGS`` in any case."""
    if isinstance(value, str):
        return value.strip().lower() in MISSING_SPELLINGS
    return value is None or (isinstance(value, float | np.floating) and math.isnan(value))


def parse_number(value: object) -> float:
    """The finite number that a cell holds.

    Args:
        value: text with a decimal point, or an int or float. Truth values are not numbers here.

    Raises:
        CellError: if it is anything else, with a hint for decimal commas.
    """
    if isinstance(value, str):
        text = value.strip()
        if _NUMBER.fullmatch(text):
            number = float(text)
        elif _DECIMAL_COMMA.fullmatch(text):
            raise CellError("a number with a decimal point, such as 1.5, and no comma")
        else:
            raise CellError("a number, or an empty cell if it is not known")
    elif isinstance(value, bool) or not hasattr(value, "__float__"):
        raise CellError("a number, or an empty cell if it is not known")
    else:
        try:
            number = float(value)
        except OverflowError:  # an int of more than 308 digits
            number = math.inf
    if not math.isfinite(number):
        raise CellError("a finite number")
    return number
