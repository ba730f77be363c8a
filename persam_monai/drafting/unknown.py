# SPDX-License-Identifier: Apache-2.0
"""Cells that look as if they meant "not known": words, and numbers among texts."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from persam_monai.clinical.cells import unknown_among
from persam_monai.clinical.numbers import NumberFormat, number_or_none
from persam_monai.cohort.tables.table import as_text
from persam_monai.drafting.columns import Cell, Column
from persam_monai.drafting.ranges import CODES
from persam_monai.drafting.scales import in_order
from persam_monai.drafting.text import scalar

Code = str | float

_UNSTAGED = re.compile(r"(?P<prefix>[cpyr]{0,2}[tnmgrlv])x", re.IGNORECASE)  # of the TNM classification, and of grades
_UNKNOWN_STAGE = ("x", "X")  # beside levels with an order
_NUMBERS = 0.8  # of the known cells: as for a quantity, whose codes are told by its values


def without_unknown(column: Column, decimal: str) -> tuple[Column, Counter[Code]]:
    """A column whose cells that look like "not known" are missing, and these with their number of patients.

    Args:
        column: with known cells.
        decimal: the decimal sign of the table.
    """
    rest, words = _without_words(column)
    form = NumberFormat(".", None) if decimal == "." else NumberFormat(",", None)
    read = [None if cell is None else _number(cell, form) for cell in rest.cells]
    numbers = [number for number in read if number is not None]
    if not numbers or len(numbers) >= _NUMBERS * len(rest.known):
        return rest, words
    codes = {number for number in numbers if number in CODES and number < 0}
    if any(number < 0 for number in numbers if number not in codes):
        codes = set()
    if all(number in CODES for number in numbers):
        codes = set(numbers)
    counts: Counter[Code] = Counter(number for number in numbers if number in codes)
    kept = [None if number in codes else cell for cell, number in zip(rest.cells, read, strict=True)]
    return replace(rest, cells=tuple(kept)), words + counts


def quoted(code: Code | Sequence[Code]) -> str:
    """A code or a list of codes as YAML, texts always in quotes."""
    if isinstance(code, str):
        return json.dumps(code, ensure_ascii=not code.isprintable())
    return scalar(code) if isinstance(code, float) else f"[{', '.join(map(quoted, code))}]"


def _without_words(column: Column) -> tuple[Column, Counter[Code]]:
    texts = {cell for cell in column.known if isinstance(cell, str)}
    unknown = unknown_among(texts)
    unknown |= {text for text in texts if _unstaged(text, texts - unknown)}
    spelled: dict[str, str] = {}  # one spelling is enough: codes are compared in any case
    counts: Counter[Code] = Counter()
    for cell in column.known:
        if isinstance(cell, str) and cell in unknown:
            counts[spelled.setdefault(cell.casefold(), cell)] += 1
    return replace(column, cells=tuple(None if cell in unknown else cell for cell in column.cells)), counts


def _unstaged(text: str, others: Collection[str]) -> bool:
    """Whether a text says that a stage or grade is not known, among the others."""
    staged = _UNSTAGED.fullmatch(text)
    if staged is not None:
        stage = re.compile(f"({re.escape(staged['prefix'])})?(is|[0-4].*)", re.IGNORECASE)
        return any(stage.fullmatch(other) for other in others)
    return text in _UNKNOWN_STAGE and in_order(sorted(set(others) - set(_UNKNOWN_STAGE))) is not None


def _number(cell: Cell, form: NumberFormat) -> float | None:
    """The plain number in a cell."""
    if isinstance(cell, float):
        return cell
    return number_or_none(as_text(cell), form)
