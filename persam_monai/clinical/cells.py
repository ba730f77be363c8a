# SPDX-License-Identifier: Apache-2.0
"""What one cell of a clinical table is before its kind matters: missing, a date, a number, a text, or an error."""

from __future__ import annotations

import datetime
import decimal
import math
import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

import numpy as np

MISSING_SPELLINGS = ("", "na", "n/a", "#n/a", "nan", "<na>", "null")
"""Texts that mean "not known" for every variable, in lower case."""

DOUBTFUL_SPELLINGS = (".", "-", "–", "—", "?", "n.a.", "unk", "unknown", "not known", "not available", "missing")
"""Texts that mean "not known", in lower case, for a variable that does not declare them as a level."""

DECIMALS = (".", ",")
THOUSANDS = (",", ".", " ", "'")

CODE_CURE = '; if it stands for "not known", declare missing_codes'
"""Ends what is expected instead of a cell that may be a code the schema does not know."""

_NO_VALUE_TYPES = ("NAType", "NaTType")  # pandas' own; by name, because importing pandas takes half a second
_SHOWN_CHARACTERS = 60  # enough to recognise a cell; a whole paragraph pasted into one would hide the message

# The true minus sign, the small one and the wide one; typesetting and East Asian programs write them.
_MINUS_SIGNS = str.maketrans(dict.fromkeys("\u2212\ufe63\uff0d", "-"))
# What spreadsheets write for one sign: French ones a space that does not break, Swiss ones a curly apostrophe.
_VARIANTS = {" ": " \u00a0\u202f\u2009", "'": "'\u2019"}
_AMBIGUOUS = re.compile(r"[+-]?[1-9][0-9]{0,2}[.,][0-9]{3}")
# What spreadsheets in any language write in place of a value: #REF!, #BEZUG!, #NAME?, #DIV/0!
_ERROR_VALUE = re.compile(r"#\w[\w/]*[!?]")


class CellRules(NamedTuple):
    """How the schema, or the command line, says that cells are written.

    Attributes:
        decimal: decimal sign of text cells, ``"."`` or ``","``.
        thousands: sign between groups of three digits, not the decimal one; None if there is none. Cells may leave
            it out.
        missing_codes: numbers and texts that mean "not known" for all variables.
    """

    decimal: str = "."
    thousands: str | None = None
    missing_codes: tuple[str | float, ...] = ()


PLAIN_RULES = CellRules()
"""A decimal point, nothing between thousands, no codes."""


class CellError(Exception):
    """A cell that cannot be used.

    Args:
        expected: what would have been right, and what to do. It never repeats the cell, because it is also written
            into a file that people pass on.
        hint: what may be meant, which gives the cell away and is for the screen alone.
    """

    def __init__(self, expected: str, hint: str = "") -> None:
        super().__init__(expected)
        self.expected, self.hint = expected, hint


def shown(value: object) -> str:
    """A cell as messages show it: text in quotes, long text cut."""
    text = "nothing" if value is None else str(value)
    if len(text) > _SHOWN_CHARACTERS:
        text = text[:_SHOWN_CHARACTERS] + "…"
    return f'"{text}"' if isinstance(value, str) else text


def plain_minus(text: str) -> str:
    """A text with a hyphen for each minus sign that is another character."""
    return text if text.isascii() else text.translate(_MINUS_SIGNS)


def tidy(text: str) -> str:
    """A text without signs that nobody sees, with single spaces, and with its accents put together in one way."""
    seen = "".join(sign for sign in text if unicodedata.category(sign) != "Cf")
    return " ".join(unicodedata.normalize("NFC", seen).split())


def folded(text: str) -> str:
    """What is left of a text where case, kinds of minus and what :func:`tidy` takes away do not matter."""
    return tidy(plain_minus(text).casefold())


def is_missing(value: object) -> bool:
    """Whether a cell says that the value is not known, for every variable.

    That is ``None``, NaN, pandas' NA and NaT, or one of :data:`MISSING_SPELLINGS` in any case.
    """
    if isinstance(value, str):
        return value.strip().lower() in MISSING_SPELLINGS
    if value is None or type(value).__name__ in _NO_VALUE_TYPES:
        return True
    return isinstance(value, float | np.floating | decimal.Decimal) and math.isnan(value)


def is_doubtful(value: object) -> bool:
    """Whether a cell is one of :data:`DOUBTFUL_SPELLINGS` in any case: missing, unless it is declared as a level."""
    return isinstance(value, str) and plain_minus(value.strip().lower()) in DOUBTFUL_SPELLINGS


def is_date(value: object) -> bool:
    """Whether a cell arrived as a date, a time or a duration, as Excel and Parquet keep them."""
    return isinstance(value, datetime.date | datetime.time | datetime.timedelta | np.datetime64 | np.timedelta64)


def check_value(value: object) -> None:
    """Refuse a spreadsheet's error in place of a value.

    Raises:
        CellError: for the likes of ``#REF!`` and ``#DIV/0!``; ``#N/A`` is a missing value.
    """
    if isinstance(value, str) and _ERROR_VALUE.fullmatch(value.strip()):
        raise CellError("a value, and no error of a spreadsheet; correct the formula, or empty the cell")


def as_text(cell: object) -> str:
    """A cell as the text that a person sees there: whole numbers have no decimal point, an empty cell is ``""``."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() else repr(cell)
    if isinstance(cell, bool):
        return str(cell).upper()  # as Excel shows it and writes it to text files
    return str(cell).strip()


def parse_number(value: object, rules: CellRules = PLAIN_RULES) -> float:
    """The finite number that a cell holds.

    Example:
        >>> parse_number("1.234,5", CellRules(",", "."))
        1234.5
    """
    number = number_or_none(value, rules)
    if number is None:
        example = f"1{rules.thousands or ''}234{rules.decimal}5"
        raise CellError(
            f"a number such as {example}, without a unit, or an empty cell; if the table writes numbers in another "
            f"way, declare decimal and thousands{CODE_CURE}"
        )
    return number


def number_or_none(value: object, rules: CellRules = PLAIN_RULES) -> float | None:
    """As :func:`parse_number`, with None instead of the error."""
    if isinstance(value, str):
        match = _number_pattern(rules.decimal, rules.thousands).fullmatch(plain_minus(value.strip()))
        if match is None:
            return None
        whole = re.sub("[^0-9+-]", "", match["whole"])
        number = float(f"{whole}.{match['part'] or '0'}{match['exponent']}")
    elif isinstance(value, bool | np.bool_) or is_date(value) or not hasattr(value, "__float__"):
        return None
    else:
        try:
            number = float(value)
        except (OverflowError, TypeError, ValueError):  # an int of more than 308 digits, an array
            return None
    return number if math.isfinite(number) else None


@lru_cache
def _number_pattern(decimal: str, thousands: str | None) -> re.Pattern[str]:
    """Numbers as they are written; float() alone would also read "1_000", "infinity" and digits of other scripts."""
    whole = "[0-9]+"
    if thousands is not None:
        separator = f"[{re.escape(_VARIANTS.get(thousands, thousands))}]"
        whole = rf"(?:[1-9][0-9]{{0,2}}(?:{separator}[0-9]{{3}})+|[0-9]+)"
    sign = re.escape(decimal)
    return re.compile(
        rf"(?P<whole>[+-]?(?:{whole}|(?={sign}[0-9])))(?:{sign}(?P<part>[0-9]*))?(?P<exponent>(?:[eE][+-]?[0-9]+)?)"
    )


def is_ambiguous(text: str) -> bool:
    """Whether a text may be a number with three decimals as well as one of thousands: ``1.234``, ``12,500``."""
    return _AMBIGUOUS.fullmatch(plain_minus(text.strip())) is not None


def is_code(value: object, codes: tuple[str | float, ...], rules: CellRules = PLAIN_RULES) -> bool:
    """Whether a cell is one of the codes for "not known".

    Args:
        value: the cell.
        codes: a text is compared in any case, a number (also one written as text) by its value: -9 is -9.0.
        rules: how the cell's numbers are written.
    """
    if not codes:
        return False
    text = value.strip().casefold() if isinstance(value, str) else None
    number = number_or_none(value, rules)
    for code in codes:
        if text is not None and isinstance(code, str) and code.strip().casefold() == text:
            return True
        if number is not None and number_or_none(code) == number:
            return True
    return False
