# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort, SlideEntry, assign_folds, split, write_folds
from persam_monai.errors import UserError

SCHEMA = ClinicalSchema.from_dict({"classes": ["A", "B", "C"], "groups": {"g": {"age": {"kind": "numeric"}}}})


def make_cohort(
    labels: Sequence[int | None], slides: Sequence[int] | None = None, folds: Sequence[int] | None = None
) -> Cohort:
    """Patient p has ``labels[p]``, ``slides[p]`` slides and perhaps ``folds[p]``."""
    entries: list[SlideEntry] = []
    for patient, label in enumerate(labels):
        for _ in range(slides[patient] if slides else 1):
            slide = f"s{len(entries)}.tif"
            fold = folds[patient] if folds else None
            record = np.array([patient], np.float32)
            entries.append(
                SlideEntry(slide, Path("/") / slide, f"P{patient}", label, record, None, fold, len(entries) + 2)
            )
    return Cohort(tuple(entries), SCHEMA, "cohort.csv")


def random_cohort(seed: int) -> tuple[Cohort, int]:
    """Several slides per patient in mixed row order, odd sizes, a rare class, and a number of folds."""
    generator = np.random.default_rng(seed)
    folds = int(generator.integers(3, 7))
    counts = [int(generator.integers(folds, 40)), int(generator.integers(2, 20)), int(generator.integers(1, 4))]
    labels = generator.permutation(np.repeat(np.arange(3), counts)).tolist()
    cohort = make_cohort(labels, generator.integers(1, 5, len(labels)).tolist())
    return cohort.subset(cohort.entries[index] for index in generator.permutation(len(cohort))), folds


@pytest.mark.parametrize("seed", range(100))
def test_no_patient_stands_in_two_folds_and_classes_are_spread_evenly(seed: int) -> None:
    cohort, folds = random_cohort(seed)
    assignment = assign_folds(cohort, folds, seed)
    assert list(assignment) == list(cohort.patients)
    table = np.zeros((3, folds), int)
    for patient, label in cohort.patient_labels.items():
        assert label is not None
        table[label, assignment[patient]] += 1
    assert (table.sum(axis=0) > 0).all()
    ideal = table.sum(axis=1, keepdims=True) / folds
    assert (np.abs(table - ideal) < 1).all()
    for fold in range(folds):
        training = [other for other in range(folds) if other not in (fold, (fold + 1) % folds)]
        if (table[:, training].sum(axis=1) == 0).any():
            with pytest.raises(UserError, match="no patient in the training part"):
                split(cohort, fold, folds, seed)
            continue
        parts = split(cohort, fold, folds, seed)
        patients = [set(part.patients) for part in parts]
        assert sum(map(len, patients)) == len(set.union(*patients)) == len(cohort.patients)
        assert sorted(entry.row for part in parts for entry in part) == sorted(entry.row for entry in cohort)
        assert set(parts.test.patients) == {patient for patient in assignment if assignment[patient] == fold}
        assert {assignment[patient] for patient in parts.validation.patients} == {(fold + 1) % folds}


def test_a_thousand_cohorts_leak_no_patient() -> None:
    for seed in range(1000):
        cohort, folds = random_cohort(seed + 10_000)
        assignment = assign_folds(cohort, folds, seed)
        table = np.zeros((3, folds), int)
        for patient, label in cohort.patient_labels.items():
            assert label is not None
            table[label, assignment[patient]] += 1
        assert (np.abs(table - table.sum(axis=1, keepdims=True) / folds) < 1).all()
        fold = seed % folds
        training = [other for other in range(folds) if other not in (fold, (fold + 1) % folds)]
        if (table[:, training].sum(axis=1) == 0).any():  # a class is too rare for this fold: there is no split at all
            continue
        parts = split(cohort, fold, folds, seed)
        patients = [{entry.patient_id for entry in part} for part in parts]
        assert all(patients)
        assert sum(map(len, patients)) == len(set.union(*patients)) == len(assignment)
        rows = [entry.row for part in parts for entry in part]
        assert len(rows) == len(cohort)
        assert set(rows) == {entry.row for entry in cohort}


def test_what_is_known_of_validation_and_test_patients_does_not_reach_the_training_part() -> None:
    cohort = make_cohort([0, 1, 2] * 10, [2] * 30)
    parts = split(cohort, 1)
    training = set(parts.train.patients)
    changed = cohort.subset(
        entry if entry.patient_id in training else replace(entry, clinical=-1 - entry.clinical) for entry in cohort
    )
    again = split(changed, 1)
    np.testing.assert_array_equal(again.train.clinical_matrix(), parts.train.clinical_matrix())
    assert again.train.entries == parts.train.entries
    assert not np.isin(again.test.clinical_matrix(), parts.test.clinical_matrix()).any()


def test_five_folds_are_three_to_one_to_one() -> None:
    cohort = make_cohort([0, 1, 2] * 10)
    for fold in range(5):
        parts = split(cohort, fold)
        assert [len(part) for part in parts] == [18, 6, 6]
        assert [part.class_counts() for part in parts] == [[6, 6, 6], [2, 2, 2], [2, 2, 2]]


def test_each_patient_is_tested_once_over_all_folds() -> None:
    cohort = make_cohort([0, 1, 2, 0] * 6)
    tested = [patient for fold in range(5) for patient in split(cohort, fold).test.patients]
    assert sorted(tested) == sorted(cohort.patients)


def test_the_seed_decides_and_row_order_does_not() -> None:
    cohort = make_cohort([0, 1, 2] * 10, [2] * 30)
    shuffled = cohort.subset(reversed(cohort.entries))
    assert assign_folds(cohort, 5, 3) == assign_folds(cohort, 5, 3) == assign_folds(shuffled, 5, 3)
    assert assign_folds(cohort, 5, 3) != assign_folds(cohort, 5, 4)


def test_a_fold_column_decides() -> None:
    given = [0, 1, 2, 3, 0, 1, 2, 3]
    cohort = make_cohort([0, 0, 1, 1, 2, 2, 2, 2], [1, 3, 1, 1, 2, 1, 1, 1], given)
    assert assign_folds(cohort, folds=5, seed=1) == {f"P{patient}": fold for patient, fold in enumerate(given)}
    cohort = make_cohort([0, 1, 2] * 4, folds=[fold for fold in range(4) for _ in range(3)])
    parts = split(cohort, 3)
    assert parts.test.patients == ("P9", "P10", "P11")
    assert parts.validation.patients == ("P0", "P1", "P2")


@pytest.mark.parametrize(("given", "absent"), [([0, 1, 3], 2), ([1, 2, 3], 0), ([0, 1, 1], 2), ([0, 0, 0], 1)])
def test_a_fold_column_with_a_gap_is_refused(given: list[int], absent: int) -> None:
    with pytest.raises(UserError, match=f'column "fold": found the folds .*no row has fold {absent}\\. Renumber'):
        assign_folds(make_cohort([0, 1, 2], folds=given))


def test_too_few_patients_or_folds_are_refused_with_a_cure() -> None:
    with pytest.raises(UserError, match=r"cohort\.csv: found 4 patients for 5 folds.*Please add patients"):
        assign_folds(make_cohort([0, 0, 1, 2]))
    with pytest.raises(
        UserError, match=r"found 4 patients in the commonest class for 5 folds.*3 at least and 4 at most"
    ):
        assign_folds(make_cohort([0, 0, 0, 0, 1, 1, 2, 2]))
    with pytest.raises(UserError, match="found folds 2; expected at least 3"):
        assign_folds(make_cohort([0, 1, 2] * 5), folds=2)


@pytest.mark.parametrize("fold", [-1, 5])
def test_a_fold_outside_is_refused(fold: int) -> None:
    with pytest.raises(UserError, match=f"found fold {fold}; expected 0 to 4, because there are 5 folds"):
        split(make_cohort([0, 1, 2] * 5), fold)


def test_a_class_absent_from_training_is_named_with_its_patients(caplog: pytest.LogCaptureFixture) -> None:
    cohort = make_cohort([0] * 10 + [1] * 10 + [2])
    (rare,) = (fold for patient, fold in assign_folds(cohort).items() if patient == "P20")
    assert "Class 3 of the schema: 1 patient for 5 folds" in caplog.text
    with pytest.raises(UserError, match=r"cohort\.csv: .*class C \(patients in all: 1\).*Add patients of that class"):
        split(cohort, rare)
    assert "P20" in split(cohort, (rare + 2) % 5).train.patients


def test_patients_without_label_cannot_be_split() -> None:
    cohort = make_cohort([0, 1, 2, None] * 5, folds=[0, 1, 2, 3] * 5)
    with pytest.raises(UserError, match=r'column "label": 5 slides have no label \(the first in row 5\)'):
        split(cohort, 0)


def test_folds_are_written_whole_and_read_back_equal(tmp_path: Path) -> None:
    cohort = make_cohort([0, 1, 2] * 5, [2] * 15)
    renamed = cohort.subset(replace(entry, patient_id=f'{entry.patient_id}, "é"') for entry in cohort)
    assignment = assign_folds(renamed)
    path = tmp_path / "new" / "folds.csv"
    write_folds(renamed, assignment, path)
    write_folds(renamed, assignment, path)  # over an old one
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["patient_id"]: int(row["fold"]) for row in rows} == assignment
    assert [SCHEMA.classes.index(row["label"]) for row in rows] == list(renamed.patient_labels.values())
    assert [each.name for each in path.parent.iterdir()] == ["folds.csv"]


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    cohort = make_cohort([0, 1, 2] * 5)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"folds\.csv cannot be written: .*Choose a place"):
        write_folds(cohort, assign_folds(cohort), tmp_path / "file" / "folds.csv")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    cohort = make_cohort([0, 1, 2] * 5)
    assignment = assign_folds(cohort)
    path = tmp_path / "folds.csv"
    path.write_text("old")
    with pytest.raises(KeyError):
        write_folds(cohort, {patient: fold for patient, fold in assignment.items() if patient != "P14"}, path)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["folds.csv"]
