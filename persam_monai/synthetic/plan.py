# SPDX-License-Identifier: Apache-2.0
"""Who is in the cohort: for each patient what the slide shows, what the record says, and which class follows."""

from __future__ import annotations

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
