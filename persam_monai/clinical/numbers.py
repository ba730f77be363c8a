# SPDX-License-Identifier: Apache-2.0
"""Numbers in cells: how they are written, read, and which decimal sign a table's cells show."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from persam_monai.clinical.cells import CODE_CURE, CellError, plain_minus

DECIMALS = (".", ",")
THOUSANDS = (",", ".", " ", "'")

# What spreadsheets write for one sign: French ones a space that does not break, Swiss ones a curly apostrophe.
_VARIANTS = {" ": " \u00a0\u202f\u2009", "'": "'\u2019"}
_GAPS = _VARIANTS[" "] + _VARIANTS["'"]

_EXPONENT = r"(?:[eE][+-]?[0-9]+)?"
_GROUPED = re.compile(rf"[+-]?[0-9]{{1,3}}(?:[.,{_GAPS}][0-9]{{3}})+(?:[.,][0-9]*)?")
# A number, perhaps after a comparison sign and before a unit; the unit may begin with a digit, as 10^9/L does.
_NUMERIC_PART = re.compile(
    rf"(?:[<>≤≥]=?\s*)?[+-]?(?P<number>[0-9.,]+(?:[{_GAPS}][0-9]{{3}}(?![0-9]))*(?:[.,][0-9]*)?)"
    rf"(?P<exponent>{_EXPONENT})(?:\s*[^\s0-9.,+-].*|\s+(?=[0-9.,\s]*[^\s0-9.,])[0-9].*)?",
    re.DOTALL,
)
_WORDS = {",": "a comma", ".": "a point", " ": "a space", "'": "an apostrophe"}
_EITHER = re.compile(r"[1-9][0-9]{0,2}[.,][0-9]{3}")


@dataclass(frozen=True)
class NumberFormat:
    """How numbers are written in text cells.

    Args:
        decimal: ``"."`` or ``","``.
        thousands: the sign between groups of three digits, ``","``, ``"."``, ``" "`` or ``"'"``, not the decimal one;
            None if there is none. Cells may leave it out.
    """

    decimal: str = "."
    thousands: str | None = None

    def write(self, text: str) -> str:
        """A number written with a decimal point, in this format."""
        return text.replace(".", self.decimal)


PLAIN_NUMBERS = NumberFormat()
"""A decimal point, nothing between thousands."""


def parse_number(value: object, numbers: NumberFormat = PLAIN_NUMBERS) -> float:
    """The finite number that a cell holds.

    Args:
        value: text, or an int or float, which is taken as it is. Truth values and dates are not numbers here.
        numbers: how text is written.

    Raises:
        CellError: if it is anything else, with a hint for decimal and thousands signs.
    """
    if isinstance(value, str):
        text = value.strip()
        number = read_text(text, numbers)
        if number is None:
            raise CellError(_cure(text, numbers))
    else:
        number = _typed(value)
        if number is None:
            raise CellError("a number, or an empty cell if it is not known")
    if not math.isfinite(number):
        raise CellError("a finite number")
    return number


def number_or_none(value: object, numbers: NumberFormat = PLAIN_NUMBERS) -> float | None:
    """As :func:`parse_number`, with None instead of the error."""
    number = read_text(value.strip(), numbers) if isinstance(value, str) else _typed(value)
    return number if number is not None and math.isfinite(number) else None


def decimal_evidence(text: str) -> Literal[".", ",", "either"] | None:
    """Which decimal sign a text cell shows.

    A comparison sign before the number and a unit after it do not hide it.

    Args:
        text: the cell.

    Returns:
        ``"."`` or ``","`` if it can only be that; ``"either"`` for the likes of ``1,200`` and ``1.200``, whose sign may
        separate thousands; None if the cell shows no sign, separates nothing but thousands, is no number,
        or has a letter right behind the sign (``2.Mai``).

    Example:
        >>> [decimal_evidence(cell) for cell in ("<1,5", "0.250 U/L", "1,200", "12")]
        [',', '.', 'either', None]
    """
    match = _NUMERIC_PART.fullmatch(plain_minus(text.strip()))
    number = match["number"] if match else ""
    if match is None or not any(character.isdigit() for character in number):
        return None
    if _EITHER.fullmatch(number) and not match["exponent"]:
        return "either"
    if number[-1] in DECIMALS and match.string[match.end("number") :][:1].isalpha() and not match["exponent"]:
        return None  # 2.Mai: a full stop or comma of the text
    signs = [character for character in number if character in DECIMALS]
    if not signs or signs.count(signs[-1]) > 1:  # a sign that stands twice separates thousands, or a date
        return None
    return "." if signs[-1] == "." else ","


@lru_cache
def _pattern(numbers: NumberFormat) -> re.Pattern[str]:
    """Numbers in this format; float() alone would also read "1_000", "infinity" and digits of other scripts."""
    whole = "[0-9]+"
    if numbers.thousands is not None:
        separator = f"[{re.escape(_VARIANTS.get(numbers.thousands, numbers.thousands))}]"
        whole = rf"(?:[1-9][0-9]{{0,2}}(?:{separator}[0-9]{{3}})+|[0-9]+)"
    sign = re.escape(numbers.decimal)
    return re.compile(rf"(?P<whole>[+-]?{whole})(?:{sign}(?P<part>[0-9]*))?(?P<exponent>{_EXPONENT})")


def read_text(text: str, numbers: NumberFormat) -> float | None:
    """The number that a text without spaces around it says, infinite if it is too large; None if it is no number."""
    text = plain_minus(text)
    bare = re.fullmatch(rf"([+-]?){re.escape(numbers.decimal)}([0-9]+{_EXPONENT})", text)  # .5
    if bare:
        return float(f"{bare[1]}0.{bare[2]}")
    match = _pattern(numbers).fullmatch(text)
    if match is None:
        return None
    whole = re.sub("[^0-9+-]", "", match["whole"])
    return float(f"{whole}.{match['part'] or '0'}{match['exponent']}")


def _typed(value: object) -> float | None:
    """The number that is no text, infinite if it is too large; None if it is no number."""
    if isinstance(value, bool | np.bool_ | str | np.datetime64 | np.timedelta64) or not hasattr(value, "__float__"):
        return None
    try:
        return float(value)
    except OverflowError:  # an int of more than 308 digits
        return math.inf
    except (TypeError, ValueError):  # an array of several numbers, a complex number
        return None


def _cure(text: str, numbers: NumberFormat) -> str:
    """What was expected instead of a text that is no number in this format; without the text."""
    text, sign, thousands = plain_minus(text), numbers.decimal, numbers.thousands
    other = "," if sign == "." else "."
    point, comma = ("point", "comma") if sign == "." else ("comma", "point")
    grouped = f"a number such as 1{thousands}234{sign}5"
    if thousands is not None and _misplaced(text, sign, thousands):
        return f"{grouped}: {_WORDS[thousands]} only before every three digits"
    plain = f"a number with a decimal {point}, such as 1{sign}5, and no {comma}"
    if read_text(text, NumberFormat(other)) is not None:
        either = f' or thousands: "{other}"' if _EITHER.fullmatch(text.lstrip("+-")) else ""
        return f'{plain} (if the {comma} is meant, declare decimal: "{other}"{either} in the schema)'
    if is_grouped(text):
        if thousands is not None:
            return f"{grouped}, and no other sign between thousands (if one is meant, correct thousands: in the schema)"
        return f"{plain} or other sign between thousands (if one is meant, declare thousands: in the schema)"
    return f"a number, or an empty cell{CODE_CURE}"


def is_grouped(text: str) -> bool:
    """Whether a text is a number with some sign between its thousands."""
    return _GROUPED.fullmatch(plain_minus(text)) is not None


def _misplaced(text: str, decimal: str, thousands: str) -> bool:
    """Whether a text has digits, a format's own signs and nothing else, the one between thousands among them."""
    separators = _VARIANTS.get(thousands, thousands)
    digits = rf"[+-]?[0-9][0-9{re.escape(decimal + separators)}]*{_EXPONENT}"
    return any(sign in text for sign in separators) and re.fullmatch(digits, text) is not None
