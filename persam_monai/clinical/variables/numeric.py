# SPDX-License-Identifier: Apache-2.0
"""Measured quantities: how their cells are written, and which numbers the network sees."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np

from persam_monai.clinical.cells import CODE_CURE, CellError, plain_minus
from persam_monai.clinical.numbers import NumberFormat, parse_number, read_text
from persam_monai.clinical.rules import PLAIN_RULES, CellRules
from persam_monai.clinical.variables.base import Report, Variable
from persam_monai.clinical.variables.cell_units import admitted, one_micro, split, unit_error, without
from persam_monai.clinical.variables.numeric_keys import parse_numeric

_COMPARED = re.compile(r"(<=|>=|[<>≤≥])\s*(.*)", re.DOTALL)
_LARGEST = float(np.finfo(np.float32).max)
_DOUBLE_DIGITS = 17  # enough to tell any two 64-bit numbers apart
_PLAIN = (1e-6, 1e16)  # between these a number is written without an exponent


@dataclass(frozen=True)
class NumericVariable(Variable):
    """A measured quantity.

    Args:
        name: the column of the cohort table.
        unit: of bare numbers and of ``range``; shown in messages and reports.
        range: lowest and highest plausible value in ``unit``, both included, before ``transform``; None for no limits.
        transform: ``"log"`` for the natural logarithm, ``"none"`` for the value as it is.
        units: each unit that may stand in a cell, and the number that its values are multiplied by to be in ``unit``.
        comparisons: what ``<5`` means: ``"limit"`` for 5, ``"half"`` for 2.5 (and ``>5`` for 5); None for an error.
        decimal: decimal sign of text cells; None for what holds for the schema or the table.
        thousands: sign between thousands in text cells; None for what holds for the schema.
    """

    kind = "numeric"
    keys = ("unit", "range", "transform", "units", "comparisons", "decimal", "thousands", "missing_codes")

    unit: str | None = None
    range: tuple[float, float] | None = None
    transform: str = "none"
    units: dict[str, float] = field(default_factory=dict)
    comparisons: str | None = None
    decimal: str | None = None
    thousands: str | None = None

    @classmethod
    def parse(cls, name: str, declaration: Mapping[str, Any], report: Report) -> NumericVariable:
        """See :meth:`Variable.parse`."""
        return cls(name, **parse_numeric(declaration, report))

    def _options(self) -> dict[str, Any]:
        options = {
            "unit": self.unit,
            "range": list(self.range) if self.range else None,
            "transform": self.transform if self.transform != "none" else None,
            "units": dict(self.units) or None,
            "comparisons": self.comparisons,
            "decimal": self.decimal,
            "thousands": self.thousands,
        }
        return {key: value for key, value in options.items() if value is not None}

    @property
    def date_cure(self) -> str:
        """See :attr:`Variable.date_cure`."""
        return "a number, not a date; format the column as numbers, then type the cells again"

    def number_format(self, rules: CellRules = PLAIN_RULES) -> NumberFormat:
        """See :meth:`Variable.number_format`."""
        thousands = self.thousands or rules.thousands
        decimal = self.declared_decimal(rules) or rules.table_decimal or "."
        return NumberFormat(decimal, thousands)

    def declared_decimal(self, rules: CellRules) -> str | None:
        """The decimal sign that the schema settles, or None: a comma between thousands leaves only the point."""
        point = "." if (self.thousands or rules.thousands) == "," else None
        return self.decimal or rules.decimal or point

    @cached_property
    def admitted_units(self) -> dict[str, float]:
        """The units that may stand in a cell, with their factors."""
        return admitted(self.unit, self.units)

    def encoded(self, value: float, plain: bool = True) -> float:
        """What the network sees of a value in ``unit``.

        Args:
            value: the number.
            plain: whether it stands alone in its cell, without a unit and a comparison sign; for the error.

        Raises:
            CellError: if the value is infinite, outside ``range``, has no logarithm, or is too large for 32 bits.
        """
        if not math.isfinite(value):
            raise CellError("a finite number")
        if self.range is not None and not self.range[0] <= value <= self.range[1]:
            unit = f" {self.unit}" if self.unit else ""
            limits = f"{self.range[0]:.10g} to {self.range[1]:.10g}{unit}"
            cure = f"a number from {limits} (is the unit right? else widen the range in the schema)"
            # A number with a unit or a comparison sign is no missing code, but it is another one than stands there.
            raise CellError(
                cure + (CODE_CURE if plain else ", after its unit and comparison sign were taken into account")
            )
        if self.transform == "log" and value <= 0:
            cure = "correct the cell, or use transform: none"
            raise CellError(f"a number above 0, because the schema says transform: log; {cure}")
        encoded = self.transformed(value)
        if abs(encoded) > _LARGEST:
            raise CellError("a number that fits in 32-bit floating point")
        return encoded

    def transformed(self, value: float) -> float:
        """A value in ``unit``, or its logarithm; nothing is checked."""
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

    def _encode_known(self, value: object, rules: CellRules) -> tuple[float, ...]:
        numbers = self.number_format(rules)
        if not isinstance(value, str):
            return (self.encoded(parse_number(value)),)
        text = value.strip()
        number = read_text(text, numbers)
        if number is not None:
            return (self.encoded(number),)
        return (self.encoded(self._measured(text, numbers), plain=False),)

    def _measured(self, text: str, numbers: NumberFormat) -> float:
        """The value in ``unit`` of a text with, perhaps, a comparison sign and a unit."""
        compared = _COMPARED.fullmatch(text)
        if compared is None:
            return self._in_unit(text, numbers)
        if self.comparisons is None:
            raise CellError(
                "a number without a comparison sign; if the column has limits of detection, declare comparisons: limit "
                "or comparisons: half in the schema"
            )
        value = self._in_unit(compared[2], numbers)
        if self.comparisons == "limit" or compared[1] in (">", ">=", "≥"):
            return value
        if value < 0:
            raise CellError("a limit from 0 up, because comparisons: half of a negative one would lie above it")
        return value / 2

    def _in_unit(self, text: str, numbers: NumberFormat) -> float:
        """The value in ``unit`` of a text with, perhaps, a unit."""
        number = read_text(text, numbers)
        if number is not None:
            return number
        for unit in sorted(self.admitted_units, key=len, reverse=True):
            amount = without(text, unit)
            number = None if amount is None else read_text(amount, numbers)
            if number is not None:
                return number * self.admitted_units[unit]
        followed = split(plain_minus(text))
        if followed is not None:
            parse_number(followed[0], numbers)  # with a wrong decimal sign, that is what there is to say
            raise unit_error(followed[1], self.unit, self.admitted_units)
        return parse_number(text, numbers)  # which raises

    def _cell_known(self, numbers: np.ndarray, rules: CellRules) -> str:
        write, text = self.number_format(rules).write, self.text(numbers[0])
        if not self.is_missing(float(text), rules):
            return write(text)
        # A unit or a comparison sign made this value; on its own it would be a missing code.
        own = (self.unit or "").strip()
        if one_micro(own) in map(one_micro, self.admitted_units):
            cell = f"{write(text)} {own}"
            if not self.is_missing(cell, rules):
                return cell
        return write(self.text(numbers[0], rules))

    def text(self, encoded: float, rules: CellRules | None = None) -> str:
        """The shortest text, with a decimal point, of a value that is encoded as this number.

        Args:
            encoded: a number that :meth:`encode` returned.
            rules: leave out texts that are a missing code under them; None for no such care.
        """
        value = self.value(float(encoded)) + 0.0  # no sign before 0
        for text in _texts(value):
            code = rules is not None and self.is_missing(float(text), rules)
            if not code and self._becomes(float(text), np.float32(encoded)):
                return _plain(text)
        return _plain(f"{value!r}")

    def _becomes(self, value: float, encoded: np.float32) -> bool:
        try:
            return bool(np.float32(self.encoded(value)) == encoded)
        except CellError:
            return False


def _texts(value: float) -> Iterator[str]:
    """Texts of a value, short ones first; the last ones are its neighbours, for when the value itself is a code."""
    for digits in range(1, _DOUBLE_DIGITS + 1):
        yield f"{value:.{digits}g}"
    for neighbour in (math.nextafter(value, math.inf), math.nextafter(value, -math.inf)):
        yield f"{neighbour!r}"


def _plain(text: str) -> str:
    """A number's text without an exponent, unless it is very large or small."""
    size = abs(float(text))
    if "e" not in text or (size and not _PLAIN[0] <= size < _PLAIN[1]):
        return text
    return format(Decimal(text), "f")
