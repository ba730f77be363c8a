# SPDX-License-Identifier: Apache-2.0
"""Simulated bags agree with the plan and the records of the synthetic cohort."""

from __future__ import annotations

import numpy as np
import pytest

from persam_monai.synthetic.bags import Part, draw_parts, record_schema
from persam_monai.synthetic.record import CLASS_NAMES, DISEASES, Source, winner
from persam_monai.synthetic.tissue import Kind

SIZES = [variable.width for variable in record_schema().variables]


@pytest.fixture(scope="module")
def parts() -> list[Part]:
    return draw_parts(7, [60, 30], bags=3, patches=200, features=16, contrast=6.0)


def test_bags_show_the_kinds_that_the_plan_says(parts: list[Part]) -> None:
    for part in parts:
        for patient, kinds in zip(part.patients, part.kinds, strict=True):
            assert set(np.unique(kinds)) == {Kind.STROMA, *patient.kinds}
            for bag in kinds if patient.kinds else ():
                shares = np.bincount(bag, minlength=len(Kind)) / len(bag)
                assert 0.02 < shares[Kind.STROMA] < 0.4  # 10 to 25 %, by 200 draws
                diseased = shares[list(patient.kinds)]
                assert diseased.min() > 0.4 * diseased.max()


def test_a_patch_looks_like_its_kind(parts: list[Part]) -> None:
    training, testing = parts
    assert training.features.shape == (60, 3, 16, 200)
    means: dict[tuple[int, str], np.ndarray] = {}
    for kind in Kind:
        for name, part in (("training", training), ("testing", testing)):
            patches = part.features.transpose(0, 1, 3, 2)[part.kinds == kind]  # [patches, D]
            if kind is Kind.GLASS:
                assert len(patches) == 0
                continue
            means[kind, name] = patches.mean(axis=0)
            assert patches.std(axis=0) == pytest.approx(np.ones(16), abs=0.06)
            assert np.linalg.norm(means[kind, name]) == pytest.approx(6, abs=0.3)
    for kind in (Kind.STROMA, *DISEASES):  # the same direction for all patients, another for each kind
        assert np.linalg.norm(means[kind, "training"] - means[kind, "testing"]) < 0.4
    assert np.linalg.norm(means[Kind.FL, "training"] - means[Kind.DLBCL, "training"]) > 2


def test_classes_follow_from_kinds_and_record_as_in_the_cohort(parts: list[Part]) -> None:
    names = record_schema().classes
    for part in parts:
        for patient, label in zip(part.patients, part.labels, strict=True):
            assert names[label] == CLASS_NAMES[patient.label]
            if patient.source is Source.AMBIGUOUS:
                first, second = patient.kinds
                assert patient.label == winner(first, second, patient.sign)


def test_the_seed_decides(parts: list[Part]) -> None:
    again = draw_parts(7, [60, 30], bags=3, patches=200, features=16, contrast=6.0)
    other = draw_parts(8, [60, 30], bags=3, patches=200, features=16, contrast=6.0)
    for name in ("features", "records", "labels"):
        np.testing.assert_array_equal(getattr(again[1], name), getattr(parts[1], name))
        assert not np.array_equal(getattr(other[1], name), getattr(parts[1], name), equal_nan=True)
