# SPDX-License-Identifier: Apache-2.0
"""What kind of variable a column may be, by its name and its cells."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from persam_monai.cohort.tables.table import as_text
from persam_monai.drafting.columns import Column
from persam_monai.drafting.marks import unlisted
from persam_monai.drafting.numbers import read_number
from persam_monai.drafting.quantities import Quantity, read_quantity
from persam_monai.drafting.ranges import looks_logarithmic, plausible_range, two_scales
from persam_monai.drafting.scales import in_order, no_then_yes
from persam_monai.drafting.unknown import Code, quoted, without_unknown

_ANSWERS = frozenset({"yes", "no", "y", "n", "true", "false", "1", "0"})
_SCORES = frozenset({"grade", "stage", "score", "ecog", "ipi", "flipi", "class", "grad", "stadium", "risk", "status"})
_COUNTS = frozenset({"count", "number", "num", "anzahl", "n", "children", "pregnancies", "years", "weeks", "days"})
_LOWEST, _HIGHEST = 1, 4  # grades count from 0 or 1 to 4 at most,
_HIGHEST_SCORE = 6  # or a little further where the name says so
_HIGHEST_CODE = 9  # of two numbers that stand for no and yes, or for two names
_FEW_NUMBERS, _FEW_TEXTS = 6, 12  # different ones: with texts among them, they are levels such as 1, 2, mixed
_MANY_LEVELS = 12  # to think about putting the rare ones together
_REPEATED = 3  # patients with the same text among numbers: a code, and no slip or remark of one patient
_WHOLE, _PART = re.compile(r"^(\d+)\.0$"), re.compile(r"\d*\.\d*[1-9]\d*")
_SHORT = 20  # characters of such a code


@dataclass
class Guess:
    """What a column may be declared as.

    Args:
        declaration: the variable's keys in the schema.
        values: ``[patients, components]``, NaN where missing, to look for leaks.
        different: number of different values.
        notes: what a person should know, a sentence each.
        reason: why the variable is set aside, or None.
        codes: what looks like "not known", with its number of patients.
    """

    declaration: dict[str, Any]
    values: np.ndarray = field(repr=False)
    different: int
    notes: list[str] = field(default_factory=list)
    reason: str | None = None
    codes: Counter[Code] = field(default_factory=Counter)


def guess_kind(column: Column, decimal: str) -> Guess:
    """Guess from a column that has at least two different cells.

    Args:
        column: with known cells.
        decimal: the decimal sign of the table.
    """
    rest, codes = without_unknown(column, decimal)
    if len({as_text(cell).casefold() for cell in rest.known}) < 2:
        listed = ", ".join(map(quoted, codes))
        reason = f'at most one value besides what looks like "not known" ({listed})'
        return Guess({}, np.empty((0, 0)), 0, reason=reason)
    guess = _guess_known(rest, decimal)
    guess.codes = codes + guess.codes
    return guess


def _guess_known(column: Column, decimal: str) -> Guess:
    """As :func:`guess_kind`, for cells that do not look like "not known"."""
    levels = _Levels(column)
    if levels.spelled.keys() <= _ANSWERS and len(levels.spelled) > 1:
        return _of_levels(levels, "binary", [])
    if (ordered := in_order(levels.names)) is not None and not all(name.isdecimal() for name in ordered):
        return _of_levels(levels, "ordinal", ordered)
    quantity = read_quantity(column, decimal)
    mixed = quantity is not None and quantity.strays and quantity.different <= _FEW_NUMBERS
    if quantity is None or (mixed and len(levels.names) <= _FEW_TEXTS):
        return _of_texts(levels)
    return _of_numbers(column.name, levels, quantity)


class _Levels:
    """The texts of a column; those that differ in upper and lower case alone are one level."""

    def __init__(self, column: Column) -> None:
        texts = [None if cell is None else as_text(cell) for cell in column.cells]
        if not any(text and _PART.fullmatch(text) for text in texts):  # pandas writes 1.0 where others are empty
            texts = [text and _WHOLE.sub(r"\1", text) for text in texts]
        spellings = Counter(text for text in texts if text is not None)
        self.counts: Counter[str] = Counter()
        self.spelled: dict[str, str] = {}
        for text, count in sorted(spellings.items(), key=lambda item: (-item[1], item[0])):
            self.spelled.setdefault(text.casefold(), text)
            self.counts[self.spelled[text.casefold()]] += count
        self.names = sorted(self.counts, key=lambda name: (-self.counts[name], name))
        self.of_patient = [None if text is None else self.spelled[text.casefold()] for text in texts]

    def leave_out(self, names: set[str]) -> None:
        """Take some for missing."""
        self.names = [name for name in self.names if name not in names]
        self.counts = Counter({name: self.counts[name] for name in self.names})
        self.of_patient = [None if own in names else own for own in self.of_patient]

    def one_hot(self) -> np.ndarray:
        """``[patients, levels]``, NaN where missing."""
        rows = [[np.nan if own is None else float(own == name) for name in self.names] for own in self.of_patient]
        return np.array(rows)


def _of_levels(levels: _Levels, kind: str, names: list[str]) -> Guess:
    """A variable with these levels, which include all that are in the cells."""
    guess = Guess({"kind": kind, **({"levels": names} if names else {})}, levels.one_hot(), len(levels.names))
    nobody = [name for name in names if name not in levels.counts]
    if nobody:
        guess.notes.append(f"Nobody has {', '.join(nobody)}.")
    return guess


def _of_texts(levels: _Levels) -> Guess:
    """Texts without an evident order."""
    if len(levels.names) == 2:
        guess = _of_levels(levels, "binary", no_then_yes(levels.names))
    else:
        guess = _of_levels(levels, "categorical", levels.names)
        if len(levels.names) > _MANY_LEVELS:
            guess.notes.append("Many levels: keep the common ones, and let the rest count as other with other: true.")
    guess.reason = unlisted(levels.counts)
    if guess.reason is not None:
        guess.declaration = {}  # such cells are shown nowhere
    return guess


def _of_numbers(name: str, levels: _Levels, quantity: Quantity) -> Guess:
    """Numbers: measured, counted, or codes of levels."""
    graded = _graded(name, levels, quantity)
    if graded:
        numbers = {text: read_number(text, quantity.form) for text in levels.names}
        levels.leave_out({text for text, n in numbers.items() if n is not None and n.value in quantity.codes})
    guess = _of_levels(levels, *graded) if graded else _measured(quantity)
    guess.codes.update(dict[Code, int](quantity.codes.items()))
    if quantity.strays:
        guess.notes.append(_about_strays(quantity.strays))
    return guess


def _graded(name: str, levels: _Levels, quantity: Quantity) -> tuple[str, list[str]] | None:
    """Kind and levels of a few whole numbers; None if they are a quantity."""
    numbers = {text: read_number(text, quantity.form) for text in levels.names}
    plain = {n.value: text for text, n in numbers.items() if n is not None and n.value not in quantity.codes}
    found = sorted(plain)
    if any(number is not None and number.unit for number in numbers.values()):
        return None
    whole = all(value.is_integer() and value >= 0 for value in found)
    if quantity.declaration or quantity.strays or not whole or len(plain) + len(quantity.codes) < len(levels.names):
        return None  # a unit, thousands and the like; or two spellings of one number
    if len(found) < 2:  # all others are suspected codes
        return None
    if found == [0, 1] and all(plain[value] == f"{value:g}" for value in found):
        return "binary", []
    if len(found) == 2 and found[1] <= _HIGHEST_CODE:
        return "binary", [plain[value] for value in found]
    words = set(re.findall(r"[a-z]+", name.lower()))
    highest = _HIGHEST_SCORE if words & _SCORES else _HIGHEST
    if words & _COUNTS or found[0] > _LOWEST or found[-1] > highest:
        return None
    return "ordinal", [plain.get(value, f"{value}") for value in range(int(found[0]), int(found[-1]) + 1)]


def _measured(quantity: Quantity) -> Guess:
    """A numeric variable."""
    values = quantity.values[~np.isnan(quantity.values)]
    keys, unit = dict(quantity.declaration), quantity.declaration.get("unit")
    ordered: dict[str, Any] = {"kind": "numeric"}
    if unit is not None:
        ordered["unit"] = keys.pop("unit")
    logarithmic = looks_logarithmic(values)
    ordered["range"] = list(plausible_range(values, unit, positive=logarithmic))
    if logarithmic:
        ordered["transform"] = "log"
    guess = Guess({**ordered, **keys}, quantity.values[:, None], quantity.different, list(quantity.notes))
    if quantity.different == 1:
        guess.reason = "constant: the same number wherever it is known"
    if (scales := two_scales(values)) is not None:
        times, few = scales
        guess.notes.insert(
            0, f"Two scales? Some values are about {times} times the others (patients: {few}): are the units the same?"
        )
    guess.notes.insert(0, "The range comes from the data: put the plausible one.")
    return guess


def _about_strays(strays: Counter[str]) -> str:
    """What stands between numbers; texts of few patients may be anything, and are not shown."""
    codes = [text for text, count in strays.items() if count >= _REPEATED and len(text) <= _SHORT]
    text = f"Cells without a number, which are refused (patients: {strays.total()}): correct them in the table"
    if codes:
        listed = ", ".join('"' + code.replace('"', "'") + '"' for code in codes)
        text += f", or, if they mean a missing value, add missing_codes: [{listed}]"
    return text + "."
