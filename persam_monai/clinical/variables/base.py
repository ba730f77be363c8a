# SPDX-License-Identifier: Apache-2.0
"""What every kind of clinical variable has: how the schema declares it and how a cell becomes numbers, and back."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from persam_monai.clinical.cells import CellError, is_date, is_doubtful, is_missing, plain_minus
from persam_monai.clinical.numbers import PLAIN_NUMBERS, NumberFormat
from persam_monai.clinical.rules import PLAIN_RULES, CellRules, is_code

Report = Callable[[str, str], None]
"""Takes a key of the variable's declaration and what is wrong with it."""


@dataclass(frozen=True)
class Variable(ABC):
    """One variable of the clinical record.

    Args:
        name: the column of the cohort table.
        missing_codes: numbers and texts that mean "not known" for this variable.
    """

    kind: ClassVar[str]
    keys: ClassVar[tuple[str, ...]]

    name: str
    missing_codes: tuple[str | float, ...] = field(default=(), kw_only=True)

    @classmethod
    @abstractmethod
    def parse(cls, name: str, declaration: Mapping[str, Any], report: Report) -> Variable:
        """Build the variable from its mapping in the schema; faults go to ``report`` and get a harmless default."""

    @abstractmethod
    def _options(self) -> dict[str, Any]:
        """What the declaration holds besides ``kind`` and ``missing_codes``; JSON-able."""

    @abstractmethod
    def _encode_known(self, value: object, rules: CellRules) -> tuple[float, ...]:
        """Numbers of a cell that is neither missing nor a date."""

    @abstractmethod
    def _cell_known(self, numbers: np.ndarray, rules: CellRules) -> str:
        """The cell that becomes these numbers, none of them NaN."""

    @property
    @abstractmethod
    def date_cure(self) -> str:
        """What is expected of a cell that arrived as a date."""

    def to_dict(self) -> dict[str, Any]:
        """The declaration that :meth:`parse` reads back to an equal variable; JSON-able."""
        codes = {"missing_codes": list(self.missing_codes)} if self.missing_codes else {}
        return {"kind": self.kind, **self._options(), **codes}

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

    def number_format(self, rules: CellRules = PLAIN_RULES) -> NumberFormat:
        """How numbers are written in this variable's text cells."""
        return PLAIN_NUMBERS

    def is_missing(self, value: object, rules: CellRules = PLAIN_RULES) -> bool:
        """Whether a cell says that the value is not known: a common spelling or a code, and no declared level."""
        if is_missing(value) or is_code(value, (*self.missing_codes, *rules.missing_codes), self.number_format(rules)):
            return True
        if not is_doubtful(value):
            return False
        text = plain_minus(str(value).strip().lower())
        return not any(plain_minus(answer.lower()) == text for answer in self.answers)

    def encode(self, value: object, rules: CellRules = PLAIN_RULES) -> tuple[float, ...]:
        """The ``width`` numbers of one cell; all NaN when it is missing.

        Args:
            value: text as in the table, a number or a truth value.
            rules: what holds where the variable itself declares nothing.

        Raises:
            CellError: if the variable does not admit the cell.
        """
        if self.is_missing(value, rules):
            return (math.nan,) * self.width
        if is_date(value):
            raise CellError(self.date_cure)
        return self._encode_known(value, rules)

    def cell(self, numbers: np.ndarray, rules: CellRules = PLAIN_RULES) -> str:
        """The way back from :meth:`encode`: a cell that becomes the same numbers, empty when they are NaN.

        Args:
            numbers: float32 ``[width]``.
            rules: as they were in :meth:`encode`.
        """
        return "" if np.isnan(numbers).any() else self._cell_known(numbers, rules)

    def describe(self, numbers: np.ndarray) -> str:
        """As :meth:`cell`, for sentences: ``"250"``, ``"yes"``, ``"female"``, ``"an empty cell"``."""
        return self.cell(numbers) or "an empty cell"
