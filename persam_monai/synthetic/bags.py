# SPDX-License-Identifier: Apache-2.0
"""Cohorts without slides: records of the synthetic cohort beside bags of simulated patch features.

Who is ill with what, and what the records say, comes from :mod:`persam_monai.synthetic`, seeded as there. What a slide
would show is simulated: each kind of tissue has a direction in the space of features, and a patch is its kind's
direction plus noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import yaml

from persam_monai.clinical import ClinicalSchema
from persam_monai.synthetic.cohort import PLAN, RECORD, random_stream
from persam_monai.synthetic.record import DISEASES, Patient, Source, draw_patients, draw_record, schema_text
from persam_monai.synthetic.tissue import Kind

DIRECTIONS, BAG = 100, 101  # random streams, far from those of the cohort with slides
STROMA = (0.1, 0.25)  # its share of the patches beside diseased regions: septa and capsule of a painted slide
EVENNESS = (0.85, 1.15)  # each kind's area as a factor of the mean, as painted slides have it


@dataclass(frozen=True)
class Part:
    """Some patients of a cohort.

    Attributes:
        patients: P of them, as planned.
        kinds: :class:`Kind` of each patch, int64 ``[P, K, N]``.
        features: float32 ``[P, K, D, N]``, K bags of N patches of each patient.
        records: float32 ``[P, F]``, NaN where missing.
        labels: int64 ``[P]``.
    """

    patients: list[Patient]
    kinds: np.ndarray
    features: np.ndarray
    records: np.ndarray
    labels: np.ndarray


def record_schema() -> ClinicalSchema:
    """The schema of the synthetic cohort's records."""
    return ClinicalSchema.from_dict(yaml.safe_load(schema_text()))


def draw_parts(
    seed: int, sizes: Sequence[int], bags: int = 4, patches: int = 32, features: int = 32, contrast: float = 4.0
) -> list[Part]:
    """Draw one cohort and divide it.

    Args:
        seed: 0 or more; with the sum of ``sizes`` it decides plan and records, as in a cohort with slides.
        sizes: number of patients of each part.
        bags: K, of each patient; training takes another one in every epoch, as it draws other patches of a slide.
        patches: N, of each bag.
        features: D.
        contrast: length of a kind's direction, in standard deviations of the noise that every feature has.
    """
    schema = record_schema()
    directions = random_stream(seed, DIRECTIONS).standard_normal((len(Kind), features))
    directions *= contrast / np.linalg.norm(directions, axis=1, keepdims=True)
    plan = draw_patients(random_stream(seed, PLAN), sum(sizes))
    parts, start = [], 0
    for size in sizes:
        numbers = range(start, start + size)
        kinds, values, records = [], [], []
        for number in numbers:
            patient = plan[number]
            rng = random_stream(seed, BAG, number)
            shown = np.stack([_draw_kinds(rng, patient.kinds, patches) for _ in range(bags)])  # [K, N]
            noise = rng.standard_normal((bags, patches, features))
            kinds.append(shown)
            values.append((directions[shown] + noise).transpose(0, 2, 1))  # [K, D, N]
            mark = patient.label if patient.source is Source.RECORD else None
            cells = draw_record(random_stream(seed, RECORD, number), patient.sign, mark)
            records.append(schema.encode(cells, f"synthetic patient {number}"))
        parts.append(
            Part(
                [plan[number] for number in numbers],
                np.stack(kinds),
                np.stack(values).astype(np.float32),
                np.stack(records),
                np.array([DISEASES.index(plan[number].label) for number in numbers]),
            )
        )
        start += size
    return parts


def _draw_kinds(rng: np.random.Generator, kinds: Sequence[Kind], patches: int) -> np.ndarray:
    """What each patch of a bag is, int64 ``[N]``: similar shares of ``kinds``, the rest stroma."""
    shares = np.zeros(len(Kind))
    shares[Kind.STROMA] = rng.uniform(*STROMA) if kinds else 1.0
    areas = rng.uniform(*EVENNESS, len(kinds))
    for kind, area in zip(kinds, areas, strict=True):
        shares[kind] = (1 - shares[Kind.STROMA]) * area / areas.sum()
    return rng.choice(len(Kind), size=patches, p=shares)
