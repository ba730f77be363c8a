# SPDX-License-Identifier: Apache-2.0
"""The four kinds of clinical variables: how the schema declares them, how a cell becomes numbers, and back."""

from __future__ import annotations

import math
import re
import sys
from abc import abstractmethod
from decimal import Decimal
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator

from persam_monai.clinical.cells import (
    CODE_CURE,
    PLAIN_RULES,
    CellError,
    CellRules,
    check_value,
    folded,
    is_code,
    is_date,
    is_doubtful,
    is_missing,
    number_or_none,
    parse_number,
    plain_minus,
    shown,
)
from persam_monai.errors import did_you_mean

OTHER = "other"
"""What all texts that are no level count as, with ``other: true``."""

_ANSWERS = {"yes": 1.0, "y": 1.0, "true": 1.0, "1": 1.0, "no": 0.0, "n": 0.0, "false": 0.0, "0": 0.0}
_COMPARED = re.compile(r"(<=|>=|[<>≤≥])\s*(.*)", re.DOTALL)
_WHOLE = re.compile("-?[0-9]+")
_WITH_ZEROS = re.compile(r"(-?[0-9]+)\.0+")
_LARGEST = float(np.finfo(np.float32).max)
_DOUBLE_DIGITS = 17  # enough to tell any two 64-bit numbers apart
_PLAIN_NUMBERS = (1e-6, 1e16)  # between these a number is written without an exponent


def _name(value: object) -> object:
    """Names of classes, levels, groups and variables, as YAML delivers them."""
    if isinstance(value, bool):
        raise ValueError("YAML reads yes, no, on, off, true and false without quotes as truth values; put it in quotes")
    if isinstance(value, int):
        return str(value)  # the same text without quotes
    if not isinstance(value, str):
        raise ValueError(f"expected text; put it in quotes, such as {shown(str(value))}")
    if is_missing(value):
        raise ValueError("it stands for a missing value in the table; choose another name")
    if value != value.strip():
        raise ValueError("remove the spaces around it")
    return value


def _code(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("expected a number or a text; put it in quotes")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("expected a finite number or a text")
    return value if isinstance(value, str) else float(value)


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) < 2:
        raise ValueError(f"expected at least 2 names, found {len(names)}")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"{', '.join(sorted(twice))} is listed twice; remove one")
    return names


Name = Annotated[str, BeforeValidator(_name)]
Names = Annotated[tuple[Name, ...], AfterValidator(_distinct)]
Codes = tuple[Annotated[str | float, BeforeValidator(_code)], ...]


class Variable(BaseModel):
    """One variable of the clinical record."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    missing_codes: Codes = Field((), description='numbers and texts that mean "not known" for this variable')

    _name: str = PrivateAttr("")

    def named(self, name: str) -> Variable:
        """The same variable, under the name that it has in the schema and in the cohort table."""
        self._name = name
        return self

    @property
    def name(self) -> str:
        """The column of the cohort table."""
        return self._name

    @property
    def components(self) -> tuple[str, ...]:
        """A name for each number that a cell becomes."""
        return (self.name,)

    @property
    def width(self) -> int:
        """How many numbers a cell becomes."""
        return len(self.components)

    @property
    def answers(self) -> tuple[str, ...]:
        """The texts that a cell may hold, if they can be counted; none of them may be a code for "not known"."""
        return ()

    @abstractmethod
    def _encode_known(self, value: object, rules: CellRules) -> tuple[float, ...]:
        """Numbers of a cell that is neither missing nor a date."""

    @abstractmethod
    def _cell_known(self, numbers: np.ndarray, rules: CellRules) -> str:
        """The cell that becomes these numbers, none of them NaN."""

    def is_missing(self, value: object, rules: CellRules = PLAIN_RULES) -> bool:
        """Whether a cell says that the value is not known: a common spelling or a code, and no declared level."""
        if is_missing(value) or is_code(value, (*self.missing_codes, *rules.missing_codes), rules):
            return True
        return is_doubtful(value) and folded(str(value)) not in map(folded, self.answers)

    def encode(self, value: object, rules: CellRules = PLAIN_RULES) -> tuple[float, ...]:
        """The ``width`` numbers of one cell; all NaN when it is missing.

        Args:
            value: text as in the table, a number or a truth value.
            rules: how cells are written.

        Raises:
            CellError: if the variable does not admit the cell.
        """
        if self.is_missing(value, rules):
            return (math.nan,) * self.width
        check_value(value)
        if is_date(value):
            raise CellError("no date; give the column another format, then type the cells again")
        return self._encode_known(value, rules)

    def cell(self, numbers: np.ndarray, rules: CellRules = PLAIN_RULES) -> str:
        """The way back from :meth:`encode`: a cell that becomes the same numbers, empty when they are NaN.

        Args:
            numbers: float32 ``[width]``.
            rules: as they were in :meth:`encode`.
        """
        return "" if np.isnan(numbers).any() else self._cell_known(numbers, rules)


class NumericVariable(Variable):
    """A measured quantity; the network sees the number, or its natural logarithm."""

    kind: Literal["numeric"]
    unit: str | None = Field(None, description="of the numbers and of `range`; shown in messages and reports")
    range: tuple[float, float] | None = Field(
        None, description="lowest and highest plausible value, both included, before `transform`"
    )
    transform: Literal["none", "log"] = Field("none", description="`log` for the natural logarithm")
    comparisons: Literal["limit", "half"] | None = Field(
        None, description="what `<5` means: `limit` for 5, `half` for 2.5 (and `>5` for 5); without it, an error"
    )

    @model_validator(mode="after")
    def _check_range(self) -> NumericVariable:
        if self.range is not None:
            low, high = self.range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError("range: expected [lowest, highest], two finite numbers with the lower one first")
            if self.transform == "log" and high <= 0:
                raise ValueError("range: has no positive value, but transform: log needs one; correct one of the two")
        return self

    def encoded(self, value: float) -> float:
        """What the network sees of a value.

        Raises:
            CellError: if the value is outside ``range``, has no logarithm, or is too large for 32 bits.
        """
        if self.range is not None and not self.range[0] <= value <= self.range[1]:
            limits = f"{self.range[0]:.10g} to {self.range[1]:.10g}{f' {self.unit}' if self.unit else ''}"
            raise CellError(
                f"a number from {limits} (is the unit right? else widen the range in the schema){CODE_CURE}"
            )
        if self.transform == "log" and value <= 0:
            raise CellError("a number above 0, because the schema says transform: log; correct the cell or the schema")
        encoded = self.transformed(value)
        if abs(encoded) > _LARGEST:
            raise CellError("a number that fits in 32-bit floating point")
        return encoded

    def transformed(self, value: float) -> float:
        """A value, or its logarithm; nothing is checked."""
        return math.log(value) if self.transform == "log" else value

    def value(self, encoded: float) -> float:
        """The way back from :meth:`encoded`, inside ``range``."""
        value = float(encoded)
        if self.transform == "log":
            try:
                value = math.exp(value)
            except OverflowError:  # the logarithm of the largest numbers, rounded up to 32 bits
                value = sys.float_info.max
        return value if self.range is None else min(max(value, self.range[0]), self.range[1])

    def text(self, encoded: float) -> str:
        """The shortest text, with a decimal point, of a value that is encoded as this number."""
        value = self.value(float(encoded)) + 0.0  # no sign before 0
        for digits in range(1, _DOUBLE_DIGITS + 1):
            text = f"{value:.{digits}g}"
            if self._becomes(float(text), np.float32(encoded)):
                break
        size = abs(float(text))
        plain = "e" not in text or (size and not _PLAIN_NUMBERS[0] <= size < _PLAIN_NUMBERS[1])
        return text if plain else format(Decimal(text), "f")

    def _becomes(self, value: float, encoded: np.float32) -> bool:
        try:
            return bool(np.float32(self.encoded(value)) == encoded)
        except CellError:
            return False

    def _encode_known(self, value: object, rules: CellRules) -> tuple[float, ...]:
        compared = _COMPARED.fullmatch(value.strip()) if isinstance(value, str) else None
        if compared is None:
            return (self.encoded(parse_number(value, rules)),)
        if self.comparisons is None:
            raise CellError(
                "a number without a comparison sign; if the column has limits of detection, declare comparisons: limit "
                "or comparisons: half in the schema"
            )
        limit = parse_number(compared[2], rules)
        if self.comparisons == "limit" or compared[1] in (">", ">=", "≥"):
            return (self.encoded(limit),)
        if limit < 0:
            raise CellError("a limit from 0 up, because comparisons: half of a negative one would lie above it")
        return (self.encoded(limit / 2),)

    def _cell_known(self, numbers: np.ndarray, rules: CellRules) -> str:
        return self.text(numbers[0]).replace(".", rules.decimal)


class LevelVariable(Variable):
    """A variable with declared levels."""

    levels: Names = Field(description="the spellings in the table, at least two different ones")

    @property
    def spellings(self) -> tuple[str, ...]:
        """What :meth:`cell` writes, in the order of the numbers."""
        return self.levels

    @property
    def answers(self) -> tuple[str, ...]:
        """See :attr:`Variable.answers`."""
        return self.spellings

    def _cell_known(self, numbers: np.ndarray, rules: CellRules) -> str:
        return self.spellings[int(numbers[0])]

    def position(self, value: object) -> int | None:
        """Which level a cell is, from 0; None if it is none.

        A cell is a level as declared; or, if that is one level alone, but for case and signs that look alike; or,
        if all levels are whole numbers, with zeros behind a point: pandas writes 1.0 where cells of a column are empty.
        """
        text = _level_text(value)
        if text in self.levels:
            return self.levels.index(text)
        same = [index for index, level in enumerate(self.levels) if folded(level) == folded(text)]
        if same:
            return same[0] if len(same) == 1 else None
        whole = _WITH_ZEROS.fullmatch(plain_minus(text))
        if whole and whole[1] in self.levels and all(_WHOLE.fullmatch(level) for level in self.levels):
            return self.levels.index(whole[1])
        return None

    def _known_position(self, value: object) -> int:
        position = self.position(value)
        if position is None:
            cure = f"write the level as declared, or add it to levels in the schema{CODE_CURE}"
            hint = did_you_mean(_level_text(value), self.levels)
            raise CellError(f"one of {', '.join(self.levels)}; {cure}", hint)
        return position

    def _encode_known(self, value: object, rules: CellRules) -> tuple[float, ...]:
        return (float(self._known_position(value)),)


def _two(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) != 2:
        raise ValueError(f"expected exactly 2 names, found {len(names)}")
    return names


class BinaryVariable(LevelVariable):
    """A question with two answers, 0 and 1."""

    kind: Literal["binary"]
    levels: Annotated[Names, AfterValidator(_two)] = Field(
        (), description="the spellings of 0 and 1; without it yes/no, y/n, true/false and 1/0 in any case"
    )

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
            return super()._encode_known(value, rules)
        answer = _ANSWERS.get(str(value).strip().lower())
        if answer is None:
            answer = number_or_none(value)  # "1.0" too: pandas writes it when cells of a column are empty
        if answer not in (0.0, 1.0):
            raise CellError(
                "yes or no (or y/n, true/false, 1/0), or an empty cell; other answers are declared in the schema, such "
                f"as levels: [negative, positive]{CODE_CURE}"
            )
        return (float(answer),)


class OrdinalVariable(LevelVariable):
    """One of several levels in an order, lowest first; the network sees its position from 0."""

    kind: Literal["ordinal"]


class CategoricalVariable(LevelVariable):
    """One of several levels without an order; the network sees one 0/1 number per level."""

    kind: Literal["categorical"]
    other: bool = Field(False, description="whether any further text counts as one more level, which comes last")

    @model_validator(mode="after")
    def _check_other(self) -> CategoricalVariable:
        if self.other and any(level.casefold() == OTHER for level in self.levels):
            raise ValueError(f'levels: "{OTHER}" is what other: true adds; remove the level, or other: true')
        return self

    @property
    def spellings(self) -> tuple[str, ...]:
        """See :attr:`LevelVariable.spellings`."""
        return (*self.levels, OTHER) if self.other else self.levels

    @property
    def components(self) -> tuple[str, ...]:
        """``"name=level"`` for each level, and ``"name=other"`` with ``other``."""
        return tuple(f"{self.name}={level}" for level in self.spellings)

    def _encode_known(self, value: object, rules: CellRules) -> tuple[float, ...]:
        position = self.position(value) if self.other else self._known_position(value)
        position = len(self.levels) if position is None else position
        return tuple(float(position == known) for known in range(self.width))

    def _cell_known(self, numbers: np.ndarray, rules: CellRules) -> str:
        return self.spellings[int(np.argmax(numbers))]


AnyVariable = Annotated[
    NumericVariable | BinaryVariable | CategoricalVariable | OrdinalVariable, Field(discriminator="kind")
]
KINDS: dict[str, type[Any]] = {
    "numeric": NumericVariable,
    "binary": BinaryVariable,
    "categorical": CategoricalVariable,
    "ordinal": OrdinalVariable,
}


def _level_text(value: object) -> str:
    """A cell as a level would be written: 2.0 means the level "2"."""
    if isinstance(value, str):
        return value.strip()
    number = number_or_none(value)
    if number is not None and number.is_integer():
        return str(int(number))
    if number is None and not isinstance(value, bool | np.bool_):
        raise CellError("text, a number or a truth value")
    return str(value)
