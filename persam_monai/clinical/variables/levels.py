# SPDX-License-Identifier: Apache-2.0
"""Variables whose cells are one of several texts: binary, categorical and ordinal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from persam_monai.clinical.cells import CODE_CURE, CellError, folded, plain_minus, shown
from persam_monai.clinical.names import parse_names
from persam_monai.clinical.numbers import number_or_none
from persam_monai.clinical.rules import CellRules
from persam_monai.clinical.variables.base import Report, Variable
from persam_monai.clinical.variables.options import parse_codes
from persam_monai.errors import did_you_mean

OTHER = "other"
"""What all texts that are no level count as, with ``other: true``."""

_WHOLE = re.compile("-?[0-9]+")
_WITH_ZEROS = re.compile(r"(-?[0-9]+)\.0+")


@dataclass(frozen=True)
class LevelVariable(Variable):
    """A variable with declared levels.

    Args:
        name: the column of the cohort table.
        levels: the spellings in the table.
    """

    levels: tuple[str, ...] = ()

    def _options(self) -> dict[str, Any]:
        return {"levels": list(self.levels)} if self.levels else {}

    @property
    def spellings(self) -> tuple[str, ...]:
        """What :meth:`cell` writes, in the order of the numbers."""
        return self.levels

    @property
    def answers(self) -> tuple[str, ...]:
        """See :attr:`Variable.answers`."""
        return self.spellings

    @property
    def date_cure(self) -> str:
        """See :attr:`Variable.date_cure`."""
        return "text, not a date; format the column as text, then type the cells again"

    def _cell_known(self, numbers: np.ndarray, rules: CellRules) -> str:
        return self.spellings[int(numbers[0])]

    def place(self, value: object) -> int | None:
        """Which level a cell is, from 0; None if it is none.

        A cell is a level as declared; or, if that is one level alone, but for case and signs that look alike; or,
        if all levels are whole numbers, with zeros behind a point: pandas writes 1.0 where cells of a column are empty.
        """
        text = _text(value)
        if text in self.levels:
            return self.levels.index(text)
        same = [place for place, level in enumerate(self.levels) if folded(level) == folded(text)]
        if same:
            return same[0] if len(same) == 1 else None
        whole = _WITH_ZEROS.fullmatch(plain_minus(text))
        if whole and whole[1] in self.levels and all(_WHOLE.fullmatch(level) for level in self.levels):
            return self.levels.index(whole[1])
        return None

    def _known_place(self, value: object) -> int:
        """As :meth:`place`, with an error for what is no level."""
        place = self.place(value)
        if place is None:
            cure = f"write the level as declared, or add it to levels in the schema{CODE_CURE}"
            hint = did_you_mean(_text(value), self.levels)
            raise CellError(f"one of {', '.join(self.levels)}; {cure}.", hint)
        return place


@dataclass(frozen=True)
class BinaryVariable(LevelVariable):
    """A question with two answers, 0 and 1.

    Args:
        name: the column of the cohort table.
        levels: the spellings of 0 and 1 in the table; empty for yes/no, y/n, true/false and 1/0 in any case.
    """

    kind = "binary"
    keys = ("levels", "missing_codes")

    @classmethod
    def parse(cls, name: str, declaration: Mapping[str, Any], report: Report) -> BinaryVariable:
        """See :meth:`Variable.parse`."""
        levels = parse_levels(declaration, report, exactly=2) if "levels" in declaration else ()
        return cls(name, levels, missing_codes=parse_codes(declaration, lambda text: report("missing_codes", text)))

    @property
    def answers(self) -> tuple[str, ...]:
        """See :attr:`Variable.answers`."""
        return self.levels or tuple(_ANSWERS)

    @property
    def spellings(self) -> tuple[str, ...]:
        """See :attr:`LevelVariable.spellings`."""
        return self.levels or ("no", "yes")

    def _encode_known(self, value: object, rules: CellRules) -> tuple[float, ...]:
        if self.levels:
            return (float(self._known_place(value)),)
        answer = _ANSWERS.get(str(value).strip().lower())
        if answer is None:
            answer = number_or_none(value)  # "1.0" too: pandas writes it when cells of a column are empty
        if answer not in (0.0, 1.0):
            raise CellError(
                "yes or no (or y/n, true/false, 1/0), or an empty cell; other answers are declared in the schema, such "
                f"as levels: [negative, positive]{CODE_CURE}"
            )
        return (float(answer),)


@dataclass(frozen=True)
class OrdinalVariable(LevelVariable):
    """One of several levels in an order, as its place from 0.

    Args:
        name: the column of the cohort table.
        levels: the spellings in the table, at least two, lowest first.
    """

    kind = "ordinal"
    keys = ("levels", "missing_codes")

    @classmethod
    def parse(cls, name: str, declaration: Mapping[str, Any], report: Report) -> OrdinalVariable:
        """See :meth:`Variable.parse`."""
        codes = parse_codes(declaration, lambda text: report("missing_codes", text))
        return cls(name, parse_levels(declaration, report), missing_codes=codes)

    def _encode_known(self, value: object, rules: CellRules) -> tuple[float, ...]:
        return (float(self._known_place(value)),)


@dataclass(frozen=True)
class CategoricalVariable(LevelVariable):
    """One of several levels without an order, as one 0/1 number per level.

    Args:
        name: the column of the cohort table.
        levels: the spellings in the table, at least two; their order is that of the numbers.
        other: whether any further text counts as one more level, which comes last.
    """

    kind = "categorical"
    keys = ("levels", "other", "missing_codes")

    other: bool = False

    @classmethod
    def parse(cls, name: str, declaration: Mapping[str, Any], report: Report) -> CategoricalVariable:
        """See :meth:`Variable.parse`."""
        levels, other = parse_levels(declaration, report), declaration.get("other", False)
        if not isinstance(other, bool):
            report("other", f"found {shown(other)}; expected true or false.")
            other = False
        if other and any(level.casefold() == OTHER for level in levels):
            report("levels", f'"{OTHER}" is what other: true adds; remove the level, or other: true.')
        codes = parse_codes(declaration, lambda text: report("missing_codes", text))
        return cls(name, levels, other, missing_codes=codes)

    @property
    def spellings(self) -> tuple[str, ...]:
        """See :attr:`LevelVariable.spellings`."""
        return (*self.levels, OTHER) if self.other else self.levels

    @property
    def components(self) -> tuple[str, ...]:
        """``"name=level"`` for each level, and ``"name=other"`` with ``other``."""
        return tuple(f"{self.name}={level}" for level in self.spellings)

    def _options(self) -> dict[str, Any]:
        return super()._options() | ({"other": True} if self.other else {})

    def _encode_known(self, value: object, rules: CellRules) -> tuple[float, ...]:
        place = self.place(value) if self.other else self._known_place(value)
        place = len(self.levels) if place is None else place
        return tuple(float(place == known) for known in range(self.width))

    def _cell_known(self, numbers: np.ndarray, rules: CellRules) -> str:
        return self.spellings[int(np.argmax(numbers))]


_ANSWERS = {"yes": 1.0, "y": 1.0, "true": 1.0, "1": 1.0, "no": 0.0, "n": 0.0, "false": 0.0, "0": 0.0}


def parse_levels(declaration: Mapping[str, Any], report: Report, exactly: int | None = None) -> tuple[str, ...]:
    """The levels of a declaration, none if they are missing or no list."""
    if "levels" not in declaration:
        report("levels", "is missing; expected a list, such as levels: [female, male].")
        return ()
    return parse_names(declaration["levels"], "level", lambda text: report("levels", text), exactly)


def _text(value: object) -> str:
    """A cell as a level would be written: 2.0 means the level "2"."""
    if isinstance(value, str):
        return value.strip()
    number = number_or_none(value)
    if number is not None and number.is_integer():
        return str(int(number))
    if number is None and not isinstance(value, bool | np.bool_):
        raise CellError("text, a number or a truth value")
    return str(value)
