# SPDX-License-Identifier: Apache-2.0
"""Numbers as people write them: with a comparison sign, a decimal comma, thousands, a unit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from persam_monai.clinical.numbers import DECIMALS, THOUSANDS, NumberFormat, decimal_evidence, number_or_none
from persam_monai.drafting.columns import Cell, Column

# Sign, number, unit. A unit has no space in it. Right behind the number it begins with a letter and is longer than that
# (3a is a grade), with a per cent or degree sign, or with a slash, as 5/nL and 5/L do (but 4711/B20 and 12/Mar/20, with
# two digits in a row, are no numbers, and 3/a is none either); after a space it may also be a single letter or 10^9/L.
_PARTS = re.compile(
    r"(?P<sign><=|>=|[<>≤≥])?\s*"
    r"(?P<number>[+-]?[0-9.,](?:[0-9.,]|[ '\u00a0\u202f\u2009\u2019](?=[0-9]{3}(?![0-9])))*(?:[eE][+-]?[0-9]+)?)"
    r"(?:\s*(?P<near>[%‰°]\S{0,14}|/(?!\S*\d\d)(?:[Lldh]|[^\W\d_]\S{1,13})|[^\W\d_]\S{1,14})"
    r"|\s+(?P<apart>[/×]?[^\W\d_]\S{0,14}|[x×]?10[\^*]\S{1,12}))?"
)

_LARGEST = 1e38  # beyond it a record, in 32-bit floating point, has no room


class Number(NamedTuple):
    """What a cell says."""

    value: float
    sign: str = ""
    unit: str = ""


def read_number(cell: Cell, form: NumberFormat) -> Number | None:
    """The number in a cell, or None if it holds something else."""
    if not isinstance(cell, str):
        return Number(cell) if isinstance(cell, float) and abs(cell) <= _LARGEST else None
    match = _PARTS.fullmatch(cell)
    value = number_or_none(match["number"], form) if match else None
    if match is None or value is None or abs(value) > _LARGEST:
        return None
    return Number(value, match["sign"] or "", match["near"] or match["apart"] or "")


def decimal_of(columns: Iterable[Column], point: bool) -> tuple[str | None, bool]:
    """The decimal sign of a table's text cells, and whether the table tells it (the specification's C4).

    Args:
        columns: of the table.
        point: whether the point is the rule, as in files with commas between the cells.

    Returns:
        ``","``, ``"."``, or ``None`` where no number needs one; and whether that is beyond doubt.
    """
    votes: Counter[str | None] = Counter()
    for column in columns:
        votes.update({decimal_evidence(cell) for cell in column.cells if isinstance(cell, str)})
    if votes["."] or votes[","]:
        return ("," if votes[","] > votes["."] else "."), not (votes["."] and votes[","])
    return (("." if point else ",") if votes["either"] else None), point


def format_of(cells: Sequence[Cell], decimal: str) -> NumberFormat:
    """How a column writes its numbers: the table's decimal sign without thousands, unless another reads more cells."""
    signs = sorted(DECIMALS, key=lambda sign: sign != decimal)
    tried = [NumberFormat(sign, mark) for sign in signs for mark in (None, *THOUSANDS) if mark != sign]
    texts = frozenset(cell for cell in cells if isinstance(cell, str))
    return max(tried, key=lambda form: _readable(texts, form))  # the first of several that read as many


def _readable(texts: frozenset[str], form: NumberFormat) -> int:
    """How many texts are numbers."""
    return sum(read_number(text, form) is not None for text in texts)
