# SPDX-License-Identifier: Apache-2.0
"""Who is in the synthetic cohort, and what the clinical records say.

Two things are hidden: a sign, which every patient has, and a mark, a class that the record names; only patients whose
class the record decides have one. Given both, variables are independent of one another. The names are those of a real
record, so that the table looks like one; the associations are invented.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from persam_monai.synthetic.tissue import Kind

DISEASES = (Kind.DLBCL, Kind.FL, Kind.REACTIVE)
PAIRS = ((Kind.DLBCL, Kind.FL), (Kind.FL, Kind.REACTIVE), (Kind.DLBCL, Kind.REACTIVE))
CLASS_NAMES = {Kind.DLBCL: "DLBCL", Kind.FL: "FL", Kind.REACTIVE: "Reactive"}
LOSES_TO = {Kind.FL: Kind.DLBCL, Kind.REACTIVE: Kind.FL, Kind.DLBCL: Kind.REACTIVE}  # when the sign is +1


class Source(StrEnum):
    """What decides a patient's class."""

    AMBIGUOUS = "ambiguous"  # image and record together
    IMAGE = "image"
    RECORD = "record"


@dataclass(frozen=True)
class Patient:
    """One synthetic patient.

    Attributes:
        source: what decides the class.
        kinds: kinds of diseased region on every slide of the patient.
        sign: +1 or −1, shown noisily by the record; it decides when two kinds are present, and means nothing otherwise.
        label: the class.
    """

    source: Source
    kinds: tuple[Kind, ...]
    sign: int
    label: Kind


def winner(first: Kind, second: Kind, sign: int) -> Kind:
    """Which of two kinds of region counts.

    At +1 DLBCL beats FL, FL beats reactive, reactive beats DLBCL; at −1 the other of the two wins. A score that adds a
    term of the image to a term of the record would have to order the three classes at each sign, and a circle has no
    order.
    """
    upper, lower = (first, second) if LOSES_TO[second] == first else (second, first)
    return upper if sign > 0 else lower


def draw_patients(rng: np.random.Generator, patients: int) -> list[Patient]:
    """Draw a balanced cohort in random order.

    Half the patients are ambiguous, the rest half and half clear from the image or from the record. Among the ambiguous
    all pairs occur alike, and each pair alike with both signs, so that neither the kinds present nor the sign says
    more about the class than that it is one of the two. Classes are balanced as far as the number of patients allows.
    """
    ambiguous = patients // 2
    from_image = (patients - ambiguous) // 2
    cohort = _ambiguous(rng, ambiguous)
    cohort += _decided(rng, Source.IMAGE, from_image, Counter(patient.label for patient in cohort))
    from_record = patients - len(cohort)
    cohort += _decided(rng, Source.RECORD, from_record, Counter(patient.label for patient in cohort))
    return [cohort[place] for place in rng.permutation(patients)]


def _ambiguous(rng: np.random.Generator, count: int) -> list[Patient]:
    """Rounds of the three pairs at one sign (one patient of each class), the sign alternating between rounds."""
    sign = 1 if rng.integers(2) else -1
    result: list[Patient] = []
    while len(result) < count:
        sign = -sign
        for number in rng.permutation(len(PAIRS))[: count - len(result)]:
            result.append(Patient(Source.AMBIGUOUS, PAIRS[number], sign, winner(*PAIRS[number], sign)))
    return result


def _decided(rng: np.random.Generator, source: Source, count: int, before: Counter[Kind]) -> list[Patient]:
    """Patients whose class image or record alone decides; ``before`` counts the classes that the cohort has so far."""
    offset = int(rng.integers(2))
    signs = rng.permutation((np.arange(count) + offset) % 2) * 2 - 1
    labels: list[Kind] = []
    for _ in range(count):
        order = [DISEASES[place] for place in rng.permutation(len(DISEASES))]
        rarest = min((labels.count(kind), before[kind] + labels.count(kind), place) for place, kind in enumerate(order))
        labels.append(order[rarest[2]])
    result = []
    for number, (label, sign) in enumerate(zip(labels, signs.tolist(), strict=True)):
        undecided = DISEASES if (number + offset) % 2 else ()  # all three kinds, or none: neither points to a class
        result.append(Patient(source, (label,) if source is Source.IMAGE else undecided, sign, label))
    return result


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
    """Draw one record."""
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
