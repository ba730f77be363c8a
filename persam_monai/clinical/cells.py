# SPDX-License-Identifier: Apache-2.0
"""What one cell of a clinical table is before its kind matters: missing, a date, or a problem to report."""

from __future__ import annotations

import datetime
import decimal
import math
import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

MISSING_SPELLINGS = ("", "na", "n/a", "#n/a", "nan", "<na>", "null")
"""Texts that mean "not known" for every variable, in lower case."""

DOUBTFUL_SPELLINGS = (".", "-", "–", "—", "?", "n.a.", "unk", "unknown", "not known", "not available", "missing")
"""Texts that mean "not known", in lower case, for a variable that does not declare them as a level."""

# Of tables and registries, without what :func:`_bare` takes away. "Unclear" and "indeterminate" are results.
_UNKNOWN_WORDS = frozenset(
    {"unbekannt", "unbek", "unb", "keineangabe", "keineangaben", "ka", "nb", "nd", "entfällt", "fehlt"}
    | {f"nicht{what}" for what in ("erhoben", "bekannt", "bestimmt", "durchgeführt", "beurteilbar", "angegeben")}
    | {f"nicht{what}" for what in ("vorhanden", "verfügbar", "untersucht", "dokumentiert", "getestet", "gemacht")}
    | {f"not{what}" for what in ("done", "recorded", "reported", "assessed", "evaluated", "determined", "tested")}
    | {f"not{what}" for what in ("applicable", "performed", "measured", "documented", "stated", "collected")}
    | {f"not{what}" for what in ("provided", "specified", "entered", "obtained", "asked", "allowedtocollect")}
    | {"unavailable", "unspecified", "unreported", "nodata", "noinformation", "nk", "n/d", "n/b", "k/a", "undefined"}
    | {"discrepancy", "pending", "withheld", "inconnu", "nonrenseigné", "desconocido", "sconosciuto", "onbekend"}
)
# Brackets, quotes, dashes, points and spaces.
_DRESS = re.compile(r"[\s._?…\-–—−'\"`´‘’‚“”„«»\[\](){}]")
_SIGN = re.compile(r"\W*[+<>=≤≥]\W*")  # beside "+" or ">" a dash is a result

_NO_VALUE_TYPES = ("NAType", "NaTType")  # pandas' own; by name, because importing pandas takes half a second
_SHOWN_CHARACTERS = 60  # enough to recognise a cell; a whole paragraph pasted into one would hide the message


CODE_CURE = '; if it stands for "not known", declare missing_codes'
"""Ends what is expected instead of a cell that may be a code the schema does not know."""

# The true minus sign, the small one and the wide one; typesetting and East Asian programs write them.
_MINUS_SIGNS = str.maketrans(dict.fromkeys("\u2212\ufe63\uff0d", "-"))


class CellError(Exception):
    """A cell that its variable does not admit.

    Args:
        expected: see :class:`CellProblem`.
        hint: see :class:`CellProblem`.
    """

    def __init__(self, expected: str, hint: str = "") -> None:
        super().__init__(expected)
        self.expected, self.hint = expected, hint


@dataclass(frozen=True)
class CellProblem:
    """One cell that cannot be used, without the place of its table.

    Args:
        column: name of the variable.
        found: the cell as shown to the user on the screen.
        expected: what would have been right, and what to do, as the end of a sentence. It never repeats the cell,
            because it is also written into a file that people pass on.
        hint: what may be meant, which gives the cell away and is for the screen alone; it begins with a space and
            follows ``expected``, which then ends with a full stop. Empty if there is none.
    """

    column: str
    found: str
    expected: str
    hint: str = ""

    def __str__(self) -> str:
        return f'column "{self.column}": found {self.found}, expected {self.expected}{self.hint}'


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
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    return isinstance(value, float | np.floating | decimal.Decimal) and math.isnan(value)


def is_doubtful(value: object) -> bool:
    """Whether a cell is one of :data:`DOUBTFUL_SPELLINGS` in any case: missing, unless it is declared as a level."""
    return isinstance(value, str) and plain_minus(value.strip().lower()) in DOUBTFUL_SPELLINGS


def unknown_among(texts: Collection[str]) -> set[str]:
    """Those of a column's texts, or of a variable's levels, that look like "not known", whatever stands around a word.

    Example:
        >>> sorted(unknown_among(["[Not Available]", "'--", "G1", "<unknown>"]))
        ["'--", '<unknown>', '[Not Available]']
    """
    words = _UNKNOWN_WORDS | {_bare(text) for text in (*MISSING_SPELLINGS, *DOUBTFUL_SPELLINGS)}
    if any(_SIGN.fullmatch(text) for text in texts):
        words -= {""}
    return {text for text in texts if _bare(text) in words}


def _bare(text: str) -> str:
    return _DRESS.sub("", text.casefold()).strip("<>")


def is_date(value: object) -> bool:
    """Whether a cell arrived as a date, a time or a duration, as Excel and Parquet keep them."""
    dates = datetime.date | datetime.time | datetime.timedelta | np.datetime64 | np.timedelta64
    return isinstance(value, dates)  # a datetime is a date as well
