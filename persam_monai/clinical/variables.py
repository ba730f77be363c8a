# SPDX-License-Identifier: Apache-2.0
"""The kinds of clinical variable. A kind knows how the schema declares it and how a cell becomes numbers.

A further kind is one more class here, entered in :data:`KINDS`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from persam_monai.clinical.cells import CellError, is_missing, parse_number, shown
from persam_monai.clinical.names import parse_names
from persam_monai.errors import did_you_mean

Report = Callable[[str, str], None]
"""Takes a key of the variable's declaration and what is wrong with it."""


@dataclass(frozen=True)
class Variable(ABC):
    """One variable of the clinical record.

    Args:
        name: the column of the cohort table.
    """

    kind: ClassVar[str]
    keys: ClassVar[tuple[str, ...]] = ()

    name: str

    @classmethod
    @abstractmethod
    def parse(cls, name: str, declaration: Mapping[str, Any], report: Report) -> Variable:
        """Build the variable from its mapping in the schema; faults go to ``report`` and get a harmless default."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The declaration that :meth:`parse` reads back to an equal variable; JSON-able."""

    @abstractmethod
    def _encode_known(self, value: object) -> tuple[float, ...]:
        """Numbers of a cell that is not missing."""

    @abstractmethod
    def _describe_known(self, numbers: np.ndarray) -> str:
        """The cell that became these numbers, none of them NaN."""

    @property
    def components(self) -> tuple[str, ...]:
        """A name for each number that a cell becomes."""
        return (self.name,)

    @property
    def width(self) -> int:
        """How many numbers a cell becomes."""
        return len(self.components)

    def encode(self, value: object) -> tuple[float, ...]:
        """The ``width`` numbers of one cell; all NaN when it is missing.

        Raises:
            CellError: if the variable does not admit the cell.
        """
        return (math.nan,) * self.width if is_missing(value) else self._encode_known(value)

    def describe(self, numbers: np.ndarray) -> str:
        """The way back from :meth:`encode`, for people: ``"250"``, ``"yes"``, ``"female"``, ``"an empty cell"``.

        Args:
            numbers: float32 ``[width]``.
        """
        return "an empty cell" if np.isnan(numbers).any() else self._describe_known(numbers)


@dataclass(frozen=True)
class NumericVariable(Variable):
    """A measured quantity.

    Args:
        name: the column of the cohort table.
        unit: shown in messages and reports; the cells hold bare numbers.
        range: lowest and highest plausible value, both included, before ``transform``; None for no limits.
        transform: ``"log"`` for the natural logarithm, ``"none"`` for the value as it is.
    """

    kind = "numeric"
    keys = ("unit", "range", "transform")

    unit: str | None = None
    range: tuple[float, float] | None = None
    transform: str = "none"

    @classmethod
    def parse(cls, name: str, declaration: Mapping[str, Any], report: Report) -> NumericVariable:
        """See :meth:`Variable.parse`."""
        unit, transform = declaration.get("unit"), declaration.get("transform", "none")
        if unit is not None and not isinstance(unit, str):
            report("unit", f'found {shown(unit)}; expected text, such as U/L (put it in quotes: "{unit}").')
            unit = None
        if transform not in ("log", "none"):
            report("transform", f"found {shown(transform)}; expected log or none.")
            transform = "none"
        limits = _parse_range(declaration["range"], report) if "range" in declaration else None
        if limits and transform == "log" and limits[1] <= 0:
            report("range", "admits no positive value, but transform: log needs one; correct one of the two.")
        return cls(name, unit, limits, transform)

    def to_dict(self) -> dict[str, Any]:
        """See :meth:`Variable.to_dict`."""
        declaration: dict[str, Any] = {"kind": self.kind}
        if self.unit is not None:
            declaration["unit"] = self.unit
        if self.range is not None:
            declaration["range"] = list(self.range)
        if self.transform != "none":
            declaration["transform"] = self.transform
        return declaration

    def _encode_known(self, value: object) -> tuple[float, ...]:
        number = parse_number(value)
        if self.range is not None and not self.range[0] <= number <= self.range[1]:
            unit = f" {self.unit}" if self.unit else ""
            limits = f"{self.range[0]:.10g} to {self.range[1]:.10g}{unit}"
            raise CellError(f"a number from {limits} (is the unit right? else widen the range in the schema)")
        if self.transform == "log":
            if number <= 0:
                raise CellError("a number above 0, because the schema says transform: log")
            number = math.log(number)
        if abs(number) > float(np.finfo(np.float32).max):
            raise CellError("a number that fits in 32-bit floating point")
        return (number,)

    def _describe_known(self, numbers: np.ndarray) -> str:
        if self.transform == "log":
            return f"{math.exp(numbers[0]):.6g}"  # float32 keeps about six digits of a value through its logarithm
        return np.format_float_positional(np.float32(numbers[0]), trim="-")


@dataclass(frozen=True)
class BinaryVariable(Variable):
    """A question with the answers yes (1) and no (0); also true/false and 1/0, in any case."""

    kind = "binary"
    _answers: ClassVar[dict[str, float]] = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}

    @classmethod
    def parse(cls, name: str, declaration: Mapping[str, Any], report: Report) -> BinaryVariable:
        """See :meth:`Variable.parse`."""
        return cls(name)

    def to_dict(self) -> dict[str, Any]:
        """See :meth:`Variable.to_dict`."""
        return {"kind": self.kind}

    def _encode_known(self, value: object) -> tuple[float, ...]:
        answer = self._answers.get(str(value).strip().lower())
        if answer is None:
            try:
                answer = parse_number(
                    value
                )  # "1.0" too: spreadsheets and pandas write it when cells of a column are empty
            except CellError:
                answer = None
        if answer not in (0.0, 1.0):
            raise CellError("yes or no (or true/false, 1/0), or an empty cell if it is not known")
        return (float(answer),)

    def _describe_known(self, numbers: np.ndarray) -> str:
        return "yes" if numbers[0] else "no"


@dataclass(frozen=True)
class CategoricalVariable(Variable):
    """One of several levels without an order, as one 0/1 number per level.

    Args:
        name: the column of the cohort table.
        levels: the spellings in the table, at least two; their order is that of the numbers.
    """

    kind = "categorical"
    keys = ("levels",)

    levels: tuple[str, ...] = ()

    @classmethod
    def parse(cls, name: str, declaration: Mapping[str, Any], report: Report) -> CategoricalVariable:
        """See :meth:`Variable.parse`."""
        if "levels" not in declaration:
            report("levels", "is missing; expected a list, such as levels: [female, male].")
            return cls(name)
        return cls(name, parse_names(declaration["levels"], "level", lambda text: report("levels", text)))

    @property
    def components(self) -> tuple[str, ...]:
        """``"name=level"`` for each level."""
        return tuple(f"{self.name}={level}" for level in self.levels)

    def to_dict(self) -> dict[str, Any]:
        """See :meth:`Variable.to_dict`."""
        return {"kind": self.kind, "levels": list(self.levels)}

    def _encode_known(self, value: object) -> tuple[float, ...]:
        whole = isinstance(value, float) and value.is_integer()  # 2.0 from a record means the level "2"
        level = str(int(value)) if whole else str(value).strip()  # type: ignore[call-overload]
        if level not in self.levels:
            raise CellError(f"one of {', '.join(self.levels)}.{did_you_mean(level, self.levels)}")
        return tuple(float(level == known) for known in self.levels)

    def _describe_known(self, numbers: np.ndarray) -> str:
        return self.levels[int(np.argmax(numbers))]


def _parse_range(value: object, report: Report) -> tuple[float, float] | None:
    """The two ends of a plausible range, or None after a report."""
    numbers = value if isinstance(value, list | tuple) else []
    if len(numbers) != 2 or any(isinstance(number, bool) or not isinstance(number, int | float) for number in numbers):
        report("range", f"found {shown(value)}; expected [lowest, highest], two plain numbers such as [0, 120].")
        return None
    low, high = float(numbers[0]), float(numbers[1])
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        report("range", f"found {shown(value)}; expected [lowest, highest] with lowest below highest, both finite.")
        return None
    return low, high


KINDS: dict[str, type[Variable]] = {
    variable.kind: variable for variable in (NumericVariable, BinaryVariable, CategoricalVariable)
}
