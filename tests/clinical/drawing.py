# SPDX-License-Identifier: Apache-2.0
"""Random variables of all kinds and options, with cells that they admit and cells that they do not.

What a cell means is known here because it is drawn first and spelled afterwards; nothing of the package is used.
"""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

LEVELS = ["a", "A", "neck", "Groin", "I", "II", "Grade 3b", "Unknown", "-", "+", "3", "a, b", "größer", "no", "µ"]
SCHEMA_CODES: list[list[Any]] = [[], [-9], [-99.5, "K.A."], ["nd"]]
OWN_CODES: list[list[Any]] = [[], [777], ["not done", -1.25], ["1e5"]]
HARD = ["", " ", "NA", "n/a", "#n/a", "NaN", "<na>", "NULL"]
DOUBTFUL = [".", "-", "–", "—", "?", "Unknown", "not known", "NOT AVAILABLE", "missing"]
DATES = [datetime.date(2024, 3, 1), datetime.datetime(2024, 3, 1, 12), datetime.time(12)]
NONSENSE = ["qzx", "qzx1", "1qzx1", "perhaps qzx"]
UNITS: list[dict[str, float]] = [{}, {"g/L": 1, "10^3 g/L": 1000}, {"mg/L": 0.001, "kg/L": 1000}]
LARGEST = 1_000_000_000


@dataclass(frozen=True)
class Meaning:
    """A cell, the cell that describes the same value, and its numbers."""

    cell: Any
    canonical: str
    numbers: list[float]


@dataclass(frozen=True)
class Options:
    """What a schema declares for all variables, and what the table shows."""

    codes: list[Any]
    decimal: str | None
    thousands: str | None
    table: str | None

    def declared(self) -> dict[str, Any]:
        found = {"missing_codes": self.codes, "decimal": self.decimal, "thousands": self.thousands}
        return {key: value for key, value in found.items() if value}


@st.composite
def options(draw: st.DrawFn) -> Options:
    decimal, thousands = draw(signs())
    return Options(draw(st.sampled_from(SCHEMA_CODES)), decimal, thousands, draw(st.sampled_from([None, ".", ","])))


def signs() -> st.SearchStrategy[tuple[str | None, str | None]]:
    """Decimal and thousands sign that do not clash."""
    decimals, thousands = st.sampled_from([None, ".", ","]), st.sampled_from([None, ",", ".", " ", "'"])
    return st.tuples(decimals, thousands).filter(lambda pair: pair[1] is None or pair[1] != (pair[0] or "."))


class Kind:
    """One variable; ``declaration`` goes into the schema."""

    declaration: dict[str, Any]
    width = 1
    levels: list[str]

    def __init__(self, common: Options, own: list[Any]) -> None:
        self.common, self.codes, self.levels = common, [*own, *common.codes], []
        self.own = {"missing_codes": own} if own else {}

    def known(self) -> st.SearchStrategy[Meaning]:
        raise NotImplementedError

    def damaged(self) -> list[Any]:
        """Cells that the variable does not admit."""
        raise NotImplementedError

    def good(self) -> st.SearchStrategy[Meaning]:
        return st.one_of(self.known(), self.missing())

    def missing(self) -> st.SearchStrategy[Meaning]:
        names = {level.lower() for level in self.levels}
        doubtful = [text for text in DOUBTFUL if text.lower() not in names]
        spelled = [text for code in self.codes for text in self.code_texts(code)]
        cells: list[Any] = [None, math.nan, *HARD, *doubtful, *spelled]
        return st.sampled_from(cells).map(lambda cell: Meaning(cell, "", [math.nan] * self.width))

    def code_texts(self, code: Any) -> list[Any]:
        """Spellings of a missing code."""
        if isinstance(code, str):
            return [code, f" {code.upper()} ", code.lower()]
        return [code, float(code), self.written(str(code)), self.written(f"{code:.2f}")]

    def written(self, text: str) -> str:
        return text


class Leveled(Kind):
    """Binary with levels, categorical, ordinal."""

    def __init__(self, common: Options, own: list[Any], kind: str, levels: list[str], other: bool) -> None:
        super().__init__(common, own)
        self.kind, self.levels, self.other = kind, levels, other
        self.declaration = {"kind": kind, "levels": levels, **({"other": True} if other else {}), **self.own}
        self.width = len(levels) + other if kind == "categorical" else 1

    def known(self) -> st.SearchStrategy[Meaning]:
        cells = [
            Meaning(cell, level, self.numbers(i)) for i, level in enumerate(self.levels) for cell in self.of(level)
        ]
        if self.other:
            texts = ["other", "OTHER", "elsewhere", "5.5", 17, 2.5, "yes"]
            cells += [Meaning(cell, "other", self.numbers(len(self.levels))) for cell in texts]
        return st.sampled_from(cells)

    def of(self, level: str) -> list[Any]:
        """Spellings of a level."""
        typed: list[Any] = [3, 3.0] if level == "3" else []
        alone = sum(level.casefold() == each.casefold() for each in self.levels) == 1
        return [level, f"  {level} ", *([level.upper(), level.lower()] if alone else []), *typed]

    def numbers(self, place: int) -> list[float]:
        return [float(i == place) for i in range(self.width)] if self.kind == "categorical" else [float(place)]

    def damaged(self) -> list[Any]:
        return [*DATES, [1], *([] if self.other else [*NONSENSE, "2.0001", 17, True])]


class Answer(Kind):
    """Binary without levels."""

    def __init__(self, common: Options, own: list[Any]) -> None:
        super().__init__(common, own)
        self.declaration = {"kind": "binary", **self.own}

    def known(self) -> st.SearchStrategy[Meaning]:
        yes, no = ["yes", "Y", "True", "1", " 1.0 ", 1, True], ["NO", "n", "false", "0", 0.0, False]
        cells = [Meaning(cell, "yes", [1.0]) for cell in yes] + [Meaning(cell, "no", [0.0]) for cell in no]
        return st.sampled_from(cells)

    def damaged(self) -> list[Any]:
        return [*NONSENSE, *DATES, "2", 2, "0.5", "maybe", "yes/no", "<1", "-1"]


class Number(Kind):
    """Numeric; values have at most five digits, so that 32 bits keep them and they can be told exactly."""

    def __init__(self, common: Options, own: list[Any], keys: dict[str, Any]) -> None:
        super().__init__(common, own)
        self.declaration = {"kind": "numeric", **keys, **self.own}
        self.units: dict[str, float] = {keys["unit"]: 1, **keys["units"]} if "units" in keys else {}
        self.log, self.comparisons = keys.get("transform") == "log", keys.get("comparisons")
        self.limits = keys.get("range", [-math.inf, math.inf])
        self.thousands = keys.get("thousands") or common.thousands
        declared = keys.get("decimal") or common.decimal
        self.canonical_decimal = declared or "."
        self.decimal = declared or ("." if self.thousands == "," else common.table) or "."

    def written(self, text: str) -> str:
        return text.replace(".", self.decimal)

    @st.composite
    @staticmethod
    def _known(draw: st.DrawFn, self: Number) -> Meaning:
        lowest = 1 if self.log else (-9999 if self.limits[0] < 0 else 0)
        amount = Decimal(draw(st.integers(lowest, 9999))).scaleb(draw(st.integers(-2, 1)))
        value, cell = amount, self.spelled(draw, amount)
        unit = draw(st.sampled_from([None, *self.units]))
        if unit is not None:
            value *= Decimal(str(self.units[unit]))
            cell += draw(st.sampled_from([" ", ""] if unit[0].isalpha() else [" ", "  "])) + unit
        sign = draw(st.sampled_from([None, "<", "≤ ", "<=", ">", "≥", ">= "])) if self.comparisons else None
        if sign is not None and (amount >= 0 or self.comparisons == "limit"):
            value, cell = value / 2 if self.comparisons == "half" and sign[0] in "<≤" else value, sign + cell
        elif unit is None and draw(st.booleans()):
            return self.meaning(draw(st.sampled_from([float(amount), amount])), value)
        minus = cell.replace("-", draw(st.sampled_from("-\u2212\ufe63\uff0d")))
        return self.meaning(draw(st.sampled_from([cell, f" {cell} ", minus])), value)

    def known(self) -> st.SearchStrategy[Meaning]:
        numbers = [Decimal(str(code)) for code in (*self.codes, 1e5) if not isinstance(code, str)]
        return Number._known(self).filter(lambda drawn: Decimal(self.read(drawn.canonical)) not in numbers)

    def read(self, canonical: str) -> str:
        return canonical.replace(self.canonical_decimal, ".")

    def meaning(self, cell: Any, value: Decimal) -> Meaning:
        canonical = f"{value.normalize():f}" if value else "0"
        number = math.log(value) if self.log else float(value)
        return Meaning(cell, canonical.replace(".", self.canonical_decimal), [number])

    def spelled(self, draw: st.DrawFn, amount: Decimal) -> str:
        """An accepted spelling of an amount."""
        how = draw(st.sampled_from(["plain", "zeros", "exponent", "grouped", "sign", "short"]))
        text = f"{amount:f}"
        if how == "zeros":
            text = f"00{amount:.4f}" if amount > 0 else f"{amount:.4f}"
        elif how == "exponent":
            text = f"{amount:.6e}"
        elif how == "sign" and amount >= 0:
            text = f"+{text}"
        elif how == "short":
            text = text.replace("0.", ".") if text.startswith("0.") else text
        elif how == "grouped" and self.thousands:
            return f"{amount:,f}".replace(",", "T").replace(".", self.decimal).replace("T", self.thousands)
        return self.written(text)

    def damaged(self) -> list[Any]:
        wrong = "," if self.decimal == "." else "."
        cells: list[Any] = [*NONSENSE, *DATES, "17 qzx", "17qzx", "--5", "1e999", math.inf, True, f"1{wrong}5", "5 %"]
        cells += [f"1{sign}234{sign}567" for sign in ",.' " if sign != self.thousands]
        cells += [f"12{sign}34" for sign in (self.thousands,) if sign]
        cells += [] if self.comparisons else ["<5", "≥ 5"]
        cells += [] if math.isinf(self.limits[1]) else [f"{LARGEST + 1}", 2.0 * LARGEST, "-2e9"]
        cells += ["0", 0, "-3"] if self.log else []
        return cells


@st.composite
def kinds(draw: st.DrawFn, common: Options) -> Kind:
    """A variable of any kind, with any options."""
    kind, own = draw(st.sampled_from(["numeric", "binary", "levels", "categorical", "ordinal"])), draw(own_codes())
    if kind == "binary":
        return Answer(common, own)
    if kind != "numeric":
        most = 2 if kind == "levels" else 5
        levels = draw(st.lists(st.sampled_from(LEVELS), min_size=2, max_size=most, unique=True))
        other = kind == "categorical" and draw(st.booleans())
        return Leveled(common, own, "binary" if kind == "levels" else kind, levels, other)
    units, range_ = draw(st.sampled_from(UNITS)), draw(st.sampled_from([None, [0, LARGEST], [-LARGEST, LARGEST]]))
    decimal, thousands = draw(signs())
    keys = {
        "unit": "g/L" if units else draw(st.sampled_from([None, "years"])),
        "units": units,
        "range": range_ if not (range_ and any(code in common.codes for code in (-9, -99.5))) else [0, LARGEST],
        "transform": draw(st.sampled_from([None, "log"])),
        "comparisons": draw(st.sampled_from([None, "limit", "half"])),
        "decimal": decimal,
        "thousands": thousands,
    }
    clash = (thousands or common.thousands) == (decimal or common.decimal or ".")
    return Number(common, own, {k: v for k, v in keys.items() if v and not (clash and k in ("decimal", "thousands"))})


def own_codes() -> st.SearchStrategy[list[Any]]:
    return st.sampled_from(OWN_CODES)
