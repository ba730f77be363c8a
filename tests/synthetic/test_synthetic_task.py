# SPDX-License-Identifier: Apache-2.0
"""What can be learnt from a synthetic cohort, measured on many patients whose slides' kinds are known perfectly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import yaml
from sklearn.linear_model import LogisticRegression

from persam_monai.synthetic.record import Source, draw_patients, draw_record, schema_text
from persam_monai.synthetic.tissue import Kind

GROUPS = yaml.safe_load(schema_text())["groups"]
PATIENTS = 6000  # a standard error of 0.9 % on the 3000 that are tested


def encoded(cells: dict[str, str]) -> list[float]:
    """A record as numbers, read through the schema alone: not the generator's own variables."""
    numbers: list[float] = []
    for variables in GROUPS.values():
        for name, entry in variables.items():
            cell = cells[name]
            if entry["kind"] == "numeric":
                value = float(cell) if cell else math.nan
                numbers.append(math.log(value) if entry.get("transform") == "log" else value)
            else:
                levels = entry.get("levels", ["no", "yes"])
                numbers += [float(cell == level) for level in levels]
    return numbers


@pytest.fixture(scope="module")
def accuracies() -> dict[str, float]:
    """Accuracy on unseen patients of multinomial logistic regression from what each model may see."""
    rng = np.random.default_rng(7)
    cohort = draw_patients(rng, PATIENTS)
    marks = [patient.label if patient.source is Source.RECORD else None for patient in cohort]
    record = np.array(
        [encoded(draw_record(rng, patient.sign, mark)) for patient, mark in zip(cohort, marks, strict=True)]
    )
    record = (record - np.nanmean(record, axis=0)) / np.nanstd(record, axis=0)
    record = np.nan_to_num(record)  # a missing value is the mean
    patterns = sorted({patient.kinds for patient in cohort})
    image = np.array([[float(patient.kinds == pattern) for pattern in patterns] for patient in cohort])
    label = np.array([int(patient.label) for patient in cohort])
    each_pattern = (image[:, :, None] * np.c_[np.ones(PATIENTS), record][:, None, :]).reshape(PATIENTS, -1)
    seen = {"image": image, "record": record, "sum": np.c_[image, record], "joint": each_pattern}
    half = PATIENTS // 2
    result = {}
    for name, features in seen.items():
        model = LogisticRegression(C=0.3, max_iter=300).fit(features[:half], label[:half])
        result[name] = float(np.mean(model.predict(features[half:]) == label[half:]))
    return result


def test_image_alone_cannot_decide(accuracies: dict[str, float]) -> None:
    expected = 1 / 4 * 1 + 1 / 2 * 1 / 2 + 1 / 4 * 1 / 3  # clear, one of two, one of three
    assert accuracies["image"] == pytest.approx(expected, abs=0.03)


def test_record_alone_cannot_decide(accuracies: dict[str, float]) -> None:
    expected = 1 / 4 * 1 + 3 / 4 * 1 / 3  # named (if without noise), one of three
    assert accuracies["record"] <= expected + 0.03


def test_image_and_record_together_decide_nearly_all(accuracies: dict[str, float]) -> None:
    assert accuracies["joint"] > 0.94
    assert accuracies["joint"] > max(accuracies["image"], accuracies["record"]) + 0.3


def test_a_sum_of_image_and_record_decides_only_what_is_clear_from_one_of_them(accuracies: dict[str, float]) -> None:
    expected = 1 / 4 + 1 / 4 + 1 / 2 * 1 / 2  # the ambiguous half is a coin flip
    assert accuracies["sum"] == pytest.approx(expected, abs=0.03)
    assert accuracies["sum"] < accuracies["joint"] - 0.08


def test_two_kinds_are_decided_by_the_circle() -> None:
    wins = {  # written out, independently of the generator's rule
        (Kind.DLBCL, Kind.FL): {1: Kind.DLBCL, -1: Kind.FL},
        (Kind.FL, Kind.REACTIVE): {1: Kind.FL, -1: Kind.REACTIVE},
        (Kind.DLBCL, Kind.REACTIVE): {1: Kind.REACTIVE, -1: Kind.DLBCL},
    }
    ambiguous = [p for p in draw_patients(np.random.default_rng(1), 96) if p.source is Source.AMBIGUOUS]
    assert len(ambiguous) == 48
    for patient in ambiguous:
        first, second = sorted(patient.kinds)
        assert patient.label == wins[first, second][patient.sign]


@pytest.mark.parametrize("patients", [6, 11, 24, 36, 100])
def test_classes_are_balanced(patients: int) -> None:
    for seed in range(5):
        cohort = draw_patients(np.random.default_rng(seed), patients)
        assert len(cohort) == patients
        counts = [sum(patient.label == kind for patient in cohort) for kind in (Kind.DLBCL, Kind.FL, Kind.REACTIVE)]
        assert max(counts) - min(counts) <= 1


def test_among_the_ambiguous_neither_pair_nor_sign_says_more() -> None:
    ambiguous = [p for p in draw_patients(np.random.default_rng(3), 144) if p.source is Source.AMBIGUOUS]
    cells = [(patient.kinds, patient.sign) for patient in ambiguous]
    assert {cells.count(cell) for cell in cells} == {12}  # 72 patients in 3 pairs x 2 signs
    for kind in (Kind.DLBCL, Kind.FL, Kind.REACTIVE):
        assert sum(patient.sign for patient in ambiguous if patient.label == kind) == 0


def test_slides_of_record_patients_point_to_no_class() -> None:
    shown = {p.kinds for p in draw_patients(np.random.default_rng(4), 40) if p.source is Source.RECORD}
    assert shown == {(), (Kind.DLBCL, Kind.FL, Kind.REACTIVE)}


def test_about_one_cell_in_twenty_is_missing() -> None:
    rng = np.random.default_rng(5)
    cells = [cell for _ in range(400) for cell in draw_record(rng, 1, None).values()]
    assert np.mean([cell == "" for cell in cells]) == pytest.approx(0.05, abs=0.01)


def test_schema_describes_every_cell() -> None:
    schema = yaml.safe_load(schema_text())
    variables = {name: entry for group in schema["groups"].values() for name, entry in group.items()}
    kinds = {entry["kind"] for entry in variables.values()}
    assert (list(schema["groups"]), kinds) == (["interview", "blood"], {"numeric", "binary", "categorical"})
    rng = np.random.default_rng(6)
    for number in range(300):
        cells = draw_record(rng, 1 - 2 * (number // 4 % 2), (None, Kind.DLBCL, Kind.FL, Kind.REACTIVE)[number % 4])
        assert cells.keys() == variables.keys()
        for name, cell in cells.items():
            entry = variables[name]
            if cell and entry["kind"] == "numeric":
                assert entry["range"][0] <= float(cell) <= entry["range"][1]
            elif cell:
                assert cell in entry.get("levels", ["yes", "no"])
