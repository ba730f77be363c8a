# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort, SlideEntry, assign_folds, read_folds, split_by, write_folds
from persam_monai.errors import UserError

SCHEMA = ClinicalSchema.from_dict({"classes": ["A", "B", "C"], "groups": {"g": {"age": {"kind": "numeric"}}}})


def make_cohort(
    labels: Sequence[int | None], slides: Sequence[int] | None = None, folds: Sequence[int] | None = None
) -> Cohort:
    """Patient p has ``labels[p]``, ``slides[p]`` slides and perhaps ``folds[p]``."""
    entries: list[SlideEntry] = []
    for patient, label in enumerate(labels):
        for _ in range(slides[patient] if slides else 1):
            slide, fold = f"s{len(entries)}.tif", folds[patient] if folds else None
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


def test_no_patient_is_in_two_folds_and_classes_are_spread_evenly() -> None:
    for seed in range(200):
        cohort, folds = random_cohort(seed)
        assignment = assign_folds(cohort, folds, seed)
        assert list(assignment) == list(cohort.patients)
        table = np.zeros((3, folds), int)
        for patient, label in cohort.patient_labels.items():
            assert label is not None
            table[label, assignment[patient]] += 1
        assert (table.sum(axis=0) > 0).all()
        assert (np.abs(table - table.sum(axis=1, keepdims=True) / folds) < 1).all()
        for fold in range(folds):
            training = [other for other in range(folds) if other not in (fold, (fold + 1) % folds)]
            if (table[:, training].sum(axis=1) == 0).any():
                with pytest.raises(UserError, match="no patient in the training part"):
                    split_by(cohort, fold, assignment)
                continue
            parts = split_by(cohort, fold, assignment)
            patients = [set(part.patients) for part in parts]
            assert sum(map(len, patients)) == len(set.union(*patients)) == len(cohort.patients)
            assert sorted(entry.row for part in parts for entry in part) == sorted(entry.row for entry in cohort)
            assert patients[2] == {patient for patient in assignment if assignment[patient] == fold}
            assert {assignment[patient] for patient in patients[1]} == {(fold + 1) % folds}


def test_five_folds_are_three_to_one_to_one() -> None:
    cohort = make_cohort([0, 1, 2] * 10)
    for fold in range(5):
        parts = split_by(cohort, fold, assign_folds(cohort))
        assert [part.class_counts() for part in parts] == [[6, 6, 6], [2, 2, 2], [2, 2, 2]]


def test_the_seed_decides_and_row_order_does_not() -> None:
    cohort = make_cohort([0, 1, 2] * 10, [2] * 30)
    shuffled = cohort.subset(reversed(cohort.entries))
    assert assign_folds(cohort, 5, 3) == assign_folds(shuffled, 5, 3) != assign_folds(cohort, 5, 4)


def test_a_fold_column_decides() -> None:
    given = [0, 1, 2, 3, 0, 1, 2, 3]
    cohort = make_cohort([0, 0, 1, 1, 2, 2, 2, 2], [1, 3, 1, 1, 2, 1, 1, 1], given)
    assert assign_folds(cohort, folds=5, seed=1) == {f"P{patient}": fold for patient, fold in enumerate(given)}


@pytest.mark.parametrize("given", [[0, 1, 3], [1, 2, 3], [0, 1, 1], [0, 0, 0]])
def test_a_fold_column_with_a_gap_is_refused(given: list[int]) -> None:
    with pytest.raises(UserError, match=r'column "fold": found the folds .*Renumber'):
        assign_folds(make_cohort([0, 1, 2], folds=given))


def test_what_cannot_be_split_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match=r"cohort\.csv: found 4 patients, 2 in the commonest class, for 5 folds"):
        assign_folds(make_cohort([0, 0, 1, 2]))
    with pytest.raises(UserError, match="3 at least and 4 at most"):
        assign_folds(make_cohort([0, 0, 0, 0, 1, 1, 2, 2]))
    with pytest.raises(UserError, match="found folds 2; expected at least 3"):
        assign_folds(make_cohort([0, 1, 2] * 5), folds=2)
    cohort = make_cohort([0, 1, 2] * 5)
    for fold in (-1, 5):
        with pytest.raises(UserError, match=f"found fold {fold}; expected 0 to 4"):
            split_by(cohort, fold, assign_folds(cohort))
    with pytest.raises(UserError, match=r'column "label": no label in rows 5, 9'):
        assign_folds(make_cohort([0, 1, 2, None] * 5))
    rare = make_cohort([0] * 10 + [1] * 10 + [2])
    folds = assign_folds(rare)
    assert "Class C: 1 patient for 5 folds" in caplog.text
    with pytest.raises(UserError, match=r"class C; expected at least one"):
        split_by(rare, folds["P20"], folds)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The folds of twelve patients, drawn with another seed than the default, in a file."""
    path = tmp_path / "folds.csv"
    cohort = make_cohort([0, 1] * 6)
    write_folds(cohort, assign_folds(cohort, 4, seed=9), path)
    return path


def test_folds_are_written_whole_and_read_back_equal(tmp_path: Path) -> None:
    cohort = make_cohort([0, 1, 2] * 5, [2] * 15)
    renamed = cohort.subset(replace(entry, patient_id=f'{entry.patient_id}, "é"') for entry in cohort)
    assignment = assign_folds(renamed)
    path = tmp_path / "new" / "folds.csv"
    write_folds(renamed, assignment, path)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["patient_id"]: int(row["fold"]) for row in rows} == assignment
    assert {patient: fold for patient, (_, fold) in read_folds(path).items()} == assignment
    assert [SCHEMA.classes.index(row["label"]) for row in rows] == list(renamed.patient_labels.values())
    with pytest.raises(KeyError):
        write_folds(renamed, {}, path)  # the old file stays
    assert {patient: fold for patient, (_, fold) in read_folds(path).items()} == assignment
    assert [each.name for each in path.parent.iterdir()] == ["folds.csv"]


def test_saved_folds_hold_whatever_order_rows_have(saved: Path) -> None:
    cohort = make_cohort([0, 1] * 6)
    drawn = assign_folds(cohort, 4, seed=9)
    assert assign_folds(cohort, folds_file=saved) == drawn != assign_folds(cohort, 4)
    header, *rows = saved.read_text().splitlines()
    saved.write_text("\n".join([f"{header},note", *(f"{row}.0,x" for row in reversed(rows))]))  # as pandas writes
    assert assign_folds(cohort, folds_file=saved) == drawn
    same = cohort.subset(replace(entry, fold=drawn[entry.patient_id]) for entry in cohort)
    assert assign_folds(same, folds_file=saved) == drawn
    with pytest.raises(UserError, match=r'cohort\.csv, column "fold": differs from .*folds\.csv'):
        assign_folds(make_cohort([0, 1] * 6, folds=[0, 1, 2] * 4), folds_file=saved)


Edit = Callable[[list[str]], list[str]]
EDITS: list[tuple[Edit, tuple[str, ...]]] = [
    (lambda rows: ["patient_id,label,Fold", *rows[1:]], ('column "fold": is missing', 'mean "Fold"')),
    (lambda rows: [*rows, rows[1]], ('row 14, column "patient_id": found "P0"',)),
    (lambda rows: [*rows[:-1], ",B,1"], ('row 13, column "patient_id": found ""',)),
    (lambda rows: [*rows[:-1], "P11,B,1.5"], ('row 13, column "fold": found "1.5"',)),
    (lambda rows: [*rows[:-1], "P11,B,9"], ("counted from 0 without a gap",)),
    (lambda rows: rows[:-1], ("no fold for the patients in row 13 of cohort.csv",)),
    (lambda rows: [*rows, "P70,A,0"], ("1 patient not in cohort.csv",)),
    (lambda rows: [*rows[:-1], rows[-1].replace("B", "A")], ('patient "P11": found the label "A", expected "B"',)),
]


@pytest.mark.parametrize(("edit", "parts"), EDITS)
def test_a_file_that_is_not_about_this_cohort_is_refused(saved: Path, edit: Edit, parts: tuple[str, ...]) -> None:
    saved.write_text("\n".join(edit(saved.read_text().splitlines())) + "\n")
    with pytest.raises(UserError) as caught:
        assign_folds(make_cohort([0, 1] * 6), folds_file=saved)
    for part in (str(saved), *parts):
        assert part in str(caught.value)


def test_all_folds_together_leave_no_one_to_test() -> None:
    cohort, folds = random_cohort(0)
    split = split_by(cohort, "all", assign_folds(cohort, folds))
    assert split.train.patients == split.validation.patients == cohort.patients
    assert len(split.test) == 0
