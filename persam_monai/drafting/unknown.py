# SPDX-License-Identifier: Apache-2.0
"""Cells that look as if they meant "not known": words, and numbers among texts."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from persam_monai.clinical.numbers import NumberFormat, number_or_none
from persam_monai.cohort.tables.table import as_text
from persam_monai.drafting.columns import Cell, Column
from persam_monai.drafting.ranges import CODES
from persam_monai.drafting.scales import in_order
from persam_monai.drafting.text import scalar

Code = str | float

# In lower case without points and spaces. "Unclear" and "indeterminate" are results, and not here.
_WORDS = frozenset(
    {"unbekannt", "unbek", "unb", "keineangabe", "keineangaben", "ka", "nb", "nd", "na", "entfällt", "fehlt"}
    | {f"nicht{what}" for what in ("erhoben", "bekannt", "bestimmt", "durchgeführt", "beurteilbar", "angegeben")}
    | {f"nicht{what}" for what in ("vorhanden", "verfügbar", "untersucht", "dokumentiert", "getestet", "gemacht")}
    | {f"not{what}" for what in ("done", "known", "recorded", "reported", "assessed", "evaluated", "determined")}
    | {f"not{what}" for what in ("tested", "applicable", "available", "performed", "measured", "documented", "stated")}
    | {"unknown", "unk", "nodata", "noinformation", "nk", "n/d", "n/b", "k/a", "??", "???", "missing", "undefined"}
)
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
    unknown = {text for text in texts if _looks_unknown(text, texts)}
    spelled: dict[str, str] = {}  # one spelling is enough: codes are compared in any case
    counts: Counter[Code] = Counter()
    for cell in column.known:
        if isinstance(cell, str) and cell in unknown:
            counts[spelled.setdefault(cell.casefold(), cell)] += 1
    return replace(column, cells=tuple(None if cell in unknown else cell for cell in column.cells)), counts


def _looks_unknown(text: str, others: Collection[str]) -> bool:
    """Whether one of several texts means "not known", among the others."""
    if _is_word(text):
        return True
    staged = _UNSTAGED.fullmatch(text)
    if staged is not None:
        stage = re.compile(f"({re.escape(staged['prefix'])})?(is|[0-4].*)", re.IGNORECASE)
        return any(stage.fullmatch(other) for other in others)
    rest = sorted(other for other in others if other not in _UNKNOWN_STAGE and not _is_word(other))
    return text in _UNKNOWN_STAGE and in_order(rest) is not None


def _is_word(text: str) -> bool:
    return re.sub(r"[.\s]", "", text.casefold()) in _WORDS


def _number(cell: Cell, form: NumberFormat) -> float | None:
    """The plain number in a cell."""
    if isinstance(cell, float):
        return cell
    return number_or_none(as_text(cell), form)
