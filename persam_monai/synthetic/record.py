# SPDX-License-Identifier: Apache-2.0
"""The synthetic clinical record: its variables, and how they depend on what is hidden in a patient.

Two things are hidden: a sign, which every patient has, and a mark, a class that the record names; only patients whose
class the record decides have one. Given both, variables are independent of one another. The names are those of a real
record, so that the table looks like one; the associations are invented.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from persam_monai.synthetic.plan import CLASS_NAMES, DISEASES
from persam_monai.synthetic.tissue import Kind

MISSING = 0.05  # share of empty cells: a well-kept registry's
SIGN_SHIFT = 1.0  # standard deviations up or down: one such variable tells the sign in 84 % of patients
SIGN_ODDS = 0.85  # probability that a yes/no variable agrees with the sign
MARK_SHIFT = 2.5  # standard deviations up: one such variable tells its class from the others in 89 % of patients
MARK_YES, MARK_NO = 0.85, 0.08  # probability of yes with and without the marked class
MARK_LEVEL = 0.75  # probability of the level that belongs to the marked class (or to none)


@dataclass(frozen=True)
class Numeric:
    """A number, normal or log-normal.

    Attributes:
        unit: as the schema names it.
        middle: median.
        spread: standard deviation, of the logarithm if ``log``.
        bounds: plausible range; values beyond are set to it.
        decimals: digits after the point in the table.
        log: whether the logarithm is normal.
        by_sign: +1 rises with the sign, −1 falls, 0 does neither.
        marks: the class whose mark raises it.
    """

    unit: str
    middle: float
    spread: float
    bounds: tuple[float, float]
    decimals: int = 0
    log: bool = False
    by_sign: int = 0
    marks: Kind | None = None

    def draw(self, rng: np.random.Generator, sign: int, mark: Kind | None) -> str:
        """A cell of the table."""
        deviation = rng.standard_normal() + SIGN_SHIFT * self.by_sign * sign
        deviation += MARK_SHIFT * (mark is not None and mark == self.marks)
        step = self.spread * deviation
        value = self.middle * math.exp(step) if self.log else self.middle + step
        return f"{min(max(value, self.bounds[0]), self.bounds[1]):.{self.decimals}f}"

    def schema(self) -> str:
        """The variable's entry in the schema."""
        transform = ", transform: log" if self.log else ""
        return f"{{kind: numeric, unit: {self.unit}, range: [{self.bounds[0]:g}, {self.bounds[1]:g}]{transform}}}"


@dataclass(frozen=True)
class Binary:
    """Yes or no; ``by_sign``: yes at sign +1; ``marks``: yes with that mark; otherwise yes in half the patients."""

    by_sign: bool = False
    marks: Kind | None = None

    def draw(self, rng: np.random.Generator, sign: int, mark: Kind | None) -> str:
        """A cell of the table."""
        chance = 0.5
        if self.by_sign:
            chance = SIGN_ODDS if sign > 0 else 1 - SIGN_ODDS
        elif self.marks is not None:
            chance = MARK_YES if mark == self.marks else MARK_NO
        return "yes" if rng.uniform() < chance else "no"

    def schema(self) -> str:
        """The variable's entry in the schema."""
        return "{kind: binary}"


@dataclass(frozen=True)
class Categorical:
    """One of several levels; ``marks``: the levels belong, in order, to the three classes and to no mark."""

    levels: tuple[str, ...]
    marks: bool = False

    def draw(self, rng: np.random.Generator, sign: int, mark: Kind | None) -> str:
        """A cell of the table."""
        chances = np.full(len(self.levels), 1 / len(self.levels))
        if self.marks:
            chances[:] = (1 - MARK_LEVEL) / (len(self.levels) - 1)
            chances[len(DISEASES) if mark is None else DISEASES.index(mark)] = MARK_LEVEL
        return self.levels[int(np.searchsorted(np.cumsum(chances)[:-1], rng.uniform(), side="right"))]

    def schema(self) -> str:
        """The variable's entry in the schema."""
        return f"{{kind: categorical, levels: [{', '.join(self.levels)}]}}"


Variable = Numeric | Binary | Categorical

GROUPS: dict[str, dict[str, Variable]] = {
    "interview": {
        "age": Numeric("years", 62, 12, (18, 95)),
        "sex": Categorical(("female", "male")),
        "site": Categorical(("neck", "axilla", "groin", "abdomen")),
        "symptom_weeks": Numeric("weeks", 12, 0.6, (1, 200), log=True, by_sign=-1),
        "b_symptoms": Binary(by_sign=True),
        "fatigue": Binary(by_sign=True),
        "growth": Categorical(("rapid", "slow", "fluctuating", "not_noticed"), marks=True),
        "bulky_mass": Binary(marks=Kind.DLBCL),
        "earlier_swelling": Binary(marks=Kind.FL),
        "recent_infection": Binary(marks=Kind.REACTIVE),
    },
    "blood": {
        "haemoglobin": Numeric("g/dL", 12.8, 1.3, (4, 20), 1, by_sign=-1),
        "platelets": Numeric("10^9/L", 260, 60, (10, 900), by_sign=1),
        "albumin": Numeric("g/L", 39, 3.5, (15, 60), 1, by_sign=-1),
        "crp": Numeric("mg/L", 12, 0.7, (0.1, 500), 1, log=True, by_sign=1),
        "creatinine": Numeric("umol/L", 78, 15, (20, 400)),
        "ldh": Numeric("U/L", 210, 0.25, (50, 5000), log=True, marks=Kind.DLBCL),
        "sil2r": Numeric("U/mL", 600, 0.45, (50, 50000), log=True, marks=Kind.FL),
        "lymphocytes": Numeric("10^9/L", 1.6, 0.3, (0.1, 50), 2, log=True, marks=Kind.REACTIVE),
    },
}


def draw_record(rng: np.random.Generator, sign: int, mark: Kind | None) -> dict[str, str]:
    """Draw one record.

    Args:
        rng: where chance comes from.
        sign: the patient's sign, +1 or −1.
        mark: the class that the record names, or ``None``.

    Returns:
        Cell by variable, as written in the table; empty where missing.
    """
    cells = {}
    for variables in GROUPS.values():
        for name, variable in variables.items():
            cell = variable.draw(rng, sign, mark)
            cells[name] = "" if rng.uniform() < MISSING else cell
    return cells


def schema_text() -> str:
    """The text of ``clinical.yaml``: classes in order, and the groups of typed variables."""
    classes = f"classes: [{', '.join(CLASS_NAMES.values())}]"
    lines = ["# Synthetic: names as in a real record, values and associations invented.", classes, "groups:"]
    for group, variables in GROUPS.items():
        width = max(map(len, variables)) + 1
        lines.append(f"  {group}:")
        lines += [f"    {name + ':':{width}} {variable.schema()}" for name, variable in variables.items()]
    return "\n".join(lines) + "\n"
