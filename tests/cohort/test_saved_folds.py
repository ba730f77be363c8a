# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort, SlideEntry, Split, assign_folds, read_folds, split, write_folds
from persam_monai.cohort.folds import check_parts
from persam_monai.errors import UserError

SCHEMA = ClinicalSchema.from_dict({"classes": ["A", "B"], "groups": {"g": {"age": {"kind": "numeric"}}}})


def make_cohort(patients: int = 12, slides: int = 2, folds: int | None = None) -> Cohort:
    """Patients of alternating classes; with ``folds``, patient p has fold p modulo that."""
    entries = []
    for row in range(patients * slides):
        patient = row // slides
        fold = None if folds is None else patient % folds
        record = np.array([patient], np.float32)
        name = f"s{row}.svs"
        entries.append(SlideEntry(name, Path("/") / name, f"P{patient}", patient % 2, record, None, fold, row + 2))
    return Cohort(tuple(entries), SCHEMA, "cohort.csv")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The folds of :func:`make_cohort`, drawn with another seed than the default, in a file."""
    path = tmp_path / "folds.csv"
    write_folds(make_cohort(), assign_folds(make_cohort(), 4, seed=9), path)
    return path


def refused(path: Path, cohort: Cohort | None = None) -> str:
    with pytest.raises(UserError) as caught:
        assign_folds(cohort or make_cohort(), folds_file=path)
    message = str(caught.value)
    assert path.name in message
    return message


def test_saved_folds_give_the_identical_split(saved: Path) -> None:
    cohort = make_cohort()
    assert assign_folds(cohort, folds_file=saved) == assign_folds(cohort, 4, seed=9) != assign_folds(cohort, 4)
    assert {patient: each.fold for patient, each in read_folds(saved).items()} == assign_folds(cohort, 4, seed=9)
    for fold in range(4):
        again, first = split(cohort, fold, folds_file=saved), split(cohort, fold, 4, seed=9)
        for one, other in zip(again, first, strict=True):
            assert one.entries == other.entries


@pytest.mark.parametrize("nothing", [None, "null", "none", ""])
def test_no_file_is_no_file(nothing: str | None) -> None:
    assert assign_folds(make_cohort(), folds_file=nothing) == assign_folds(make_cohort())


def test_the_order_of_rows_and_further_columns_mean_nothing(saved: Path) -> None:
    header, *rows = saved.read_text().splitlines()
    saved.write_text("\n".join([f"{header},note", *(f"{row},x" for row in reversed(rows))]))
    assert assign_folds(make_cohort(), folds_file=saved) == assign_folds(make_cohort(), 4, seed=9)


Edit = Callable[[list[str]], list[str]]


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda rows: ["patient_id,label,Fold", *rows[1:]], ['column "fold": is missing', 'Did you mean "Fold"?']),
        (lambda rows: [row.rsplit(",", 1)[0] for row in rows], ['column "fold": is missing', "name a folds.csv"]),
        (lambda rows: [*rows, rows[1]], ['row 14, column "patient_id": found "P0"', "row 2 already; remove one row"]),
        (lambda rows: [*rows[:-1], ",B,1"], ['row 13, column "patient_id": found an empty cell, expected a patient']),
        (lambda rows: [*rows[:-1], "P11,B,1.5"], ['row 13, column "fold": found "1.5", expected a whole number']),
        (lambda rows: [*rows[:-1], "P11,B,"], ['row 13, column "fold": found "", expected a whole number']),
        (lambda rows: [*rows[:-1], "P11,B,-1"], ['row 13, column "fold": found "-1", expected a whole number']),
        (lambda rows: [*rows[:-1], "P11,B"], ["row 13: found 2 cells, expected 3"]),
        (lambda rows: [*rows[:-1], "P11,B,9"], ["expected at least 3, counted from 0 without a gap", "has fold 4"]),
        (lambda rows: [rows[0], *(f"{row[:-1]}0" for row in rows[1:])], ["found the folds 0; expected at least 3"]),
        (
            lambda rows: rows[:-2],
            ["2 patients of cohort.csv (rows 22, 23, 24, 25 there) have no fold", "leave the file out"],
        ),
        (
            lambda rows: [*rows, "P70,A,0", "P71,A,0"],
            ["2 patients (rows 14, 15) are not in cohort.csv", "use the table as it was"],
        ),
        (
            lambda rows: [*rows[:-1], rows[-1].replace("B", "A")],
            ['row 13, column "label": found "A", expected "B" as in cohort.csv', "correct the one that is wrong"],
        ),
    ],
)
def test_a_file_that_is_not_about_this_cohort_is_refused(saved: Path, edit: Edit, told: list[str]) -> None:
    saved.write_text("\n".join(edit(saved.read_text().splitlines())) + "\n")
    message = refused(saved)
    for part in told:
        assert part in message


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    assert "no such file; expected the folds.csv that a training wrote" in refused(tmp_path / "folds.csv")


def test_column_and_file_must_agree(saved: Path) -> None:
    assignment = assign_folds(make_cohort(), folds_file=saved)
    same = make_cohort()
    same = same.subset(replace(entry, fold=assignment[entry.patient_id]) for entry in same)
    assert assign_folds(same, folds_file=saved) == assignment
    message = refused(saved, make_cohort(folds=3))
    assert 'cohort.csv, column "fold": rows ' in message
    assert "Remove the column, or do not give the file" in message


def test_rows_of_one_patient_with_different_folds_are_refused() -> None:
    cohort = make_cohort(folds=3)
    torn = cohort.subset(replace(entry, fold=2) if entry.row == 3 else entry for entry in cohort)
    for call in (lambda: assign_folds(torn), lambda: split(torn, 0)):
        with pytest.raises(UserError, match=r'row 3, column "fold": found 2, expected 0 as in the patient.s first row'):
            call()
    partly = cohort.subset(replace(entry, fold=None) if entry.row > 5 else entry for entry in cohort)
    with pytest.raises(UserError, match=r'column "fold": rows 6, 7, .* have none; give every row a fold, or none'):
        assign_folds(partly)


def test_parts_that_share_or_leave_out_are_refused() -> None:
    cohort = make_cohort()
    sound = split(cohort, 0, 3)
    check_parts(cohort, sound)
    mixed = Split(sound.train, sound.validation, cohort.subset([*sound.test, sound.train.entries[0]]))
    with pytest.raises(UserError, match="train and test have 1 patient and 1 slide in common; expected none"):
        check_parts(cohort, mixed)
    short = Split(sound.train, sound.validation, cohort.subset(sound.test.entries[1:]))
    with pytest.raises(UserError, match=f"row {sound.test.entries[0].row} of the cohort is in no part"):
        check_parts(cohort, short)


def test_a_slide_of_two_patients_cannot_stand_on_two_sides() -> None:
    cohort = make_cohort(folds=3, slides=1)
    same = cohort.subset(replace(entry, path=Path("/same.svs")) if entry.row < 4 else entry for entry in cohort)
    with pytest.raises(UserError, match="have 0 patients and 1 slide in common"):
        split(same, 0)


def test_folds_that_pandas_wrote_again_are_the_same(saved: Path) -> None:
    header, *rows = saved.read_text().splitlines()
    saved.write_text("\n".join([header, *(f"{row}.0" for row in rows)]))
    assert assign_folds(make_cohort(), folds_file=saved) == assign_folds(make_cohort(), 4, seed=9)


def test_one_patient_is_spoken_of_as_one(saved: Path) -> None:
    rows = saved.read_text().splitlines()
    saved.write_text("\n".join(rows[:-1]))
    assert "1 patient of cohort.csv (rows 24, 25 there) has no fold" in refused(saved)
    saved.write_text("\n".join([*rows, "P70,A,0"]))
    assert "1 patient (row 14) is not in cohort.csv" in refused(saved)
