# SPDX-License-Identifier: Apache-2.0
"""Columns that are no clinical variables: identifiers, dates, free text."""

from __future__ import annotations

import re
from collections import Counter

from persam_monai.clinical.cells import is_date
from persam_monai.cohort.tables.table import as_text
from persam_monai.drafting.columns import Cell, Column
from persam_monai.drafting.names import words_of

# Words of a column's name that say it where the cells nearly all differ.
_PERHAPS_IDENTIFIERS = frozenset(
    {"id", "case", "number", "no", "nr", "code", "patient", "pid", "uid", "uuid", "insurance", "sample", "key"}
    | {"specimen", "block", "record", "study", "fall", "file", "path", "slide"}
)
_DATES = frozenset({"date", "datum", "timestamp"})
_MANY_DIFFERENT = 0.5  # share of known cells; among fewer, a level is shared by many patients
_NEARLY_ALL = 0.9  # share of known cells, for numbers: those of a measurement repeat sooner or later
_ALL_DIFFERENT = 3  # patients; two different cells are the two levels of a binary variable
_LONG = 60  # characters of a cell, and
_WORDY = 5  # words of the average cell, beyond which it is a sentence and no level
_MOST_LEVELS = 50
_FEW_LEVELS = 5
_LONG_NUMBER = re.compile(r"\d{6,}")  # as of records and telephones
_RUNNING = 10  # patients, beyond whom numbers without a gap are no accident
_ALONE = 0.3  # share of patients whose level nobody else has, beyond which it is no list of choices

_PERSON = re.compile(r"\b(Dr|Prof)\.|\S@\S+\.\w")
_DECIMAL = re.compile(r"[+-]?\d*[.,]\d+")
_DATE = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})|\d{1,2}[ -]?[A-Za-z]{3,9}[ -]\d{4})"
    r"([T ]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?Z?)?"
)


def identifying(column: Column) -> str | None:
    """Why a column's cells may tell who a patient is or when something happened; None if nothing says so."""
    known = column.known
    words = words_of(column.name)
    if any(_PERSON.search(as_text(cell)) for cell in known):
        return "titles of persons or e-mail addresses in the cells: an identifier or free text"
    dates = sum(is_date(cell) or bool(_DATE.fullmatch(as_text(cell))) for cell in known)
    if dates > len(known) / 2 or words & _DATES:
        return "dates, which are no values; a duration or an age can be one (compute it in the table)"
    different = len({as_text(cell).casefold() for cell in known}) / len(known)
    if different == 1 and len(known) >= _ALL_DIFFERENT and all(_LONG_NUMBER.fullmatch(as_text(cell)) for cell in known):
        return (
            "whole numbers of six digits or more, all different: an identifier; if they are measured or counted, "
            "such as cells per µL, declare the variable by hand"
        )
    whole = [cell for cell in map(_whole, known) if cell is not None]
    if len(whole) == len(known):
        if words & _PERHAPS_IDENTIFIERS and different > _NEARLY_ALL and len(known) >= _ALL_DIFFERENT:
            return "an identifier by its name, and nearly every patient has another number"
        if len(whole) > _RUNNING and sorted(whole) == list(range(min(whole), min(whole) + len(whole))):
            return "a running number: every patient has the next one"
    elif not any(_DECIMAL.fullmatch(as_text(cell)) for cell in known) and (
        words & _PERHAPS_IDENTIFIERS and different > _MANY_DIFFERENT and len(known) >= _ALL_DIFFERENT
    ):
        return "an identifier by its name, and most patients have another text"
    return None


def unlisted(levels: Counter[str]) -> str | None:
    """Why texts are no levels; None if they may be.

    Args:
        levels: each text with its number of patients.
    """
    patients, alone = levels.total(), sum(count == 1 for count in levels.values())
    words = sum(len(text.split()) * count for text, count in levels.items()) / patients
    if words > _WORDY or max(map(len, levels)) > _LONG:
        return "free text"
    if len(levels) == patients >= _ALL_DIFFERENT:
        return "every patient has another text: an identifier or free text"
    if len(levels) > _MOST_LEVELS or (len(levels) > _FEW_LEVELS and alone > _ALONE * patients):
        return f"{len(levels)} different texts, too many for levels: an identifier or free text"
    return None


def _whole(cell: Cell) -> int | None:
    text = as_text(cell)
    return int(text) if re.fullmatch(r"\d{1,15}", text) else None
