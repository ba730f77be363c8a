# SPDX-License-Identifier: Apache-2.0
"""Folds kept in a file, so that a split can be made again."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from persam_monai.cohort.cohort import Cohort
from persam_monai.cohort.entry import parse_fold
from persam_monai.cohort.report import rows_listed
from persam_monai.cohort.tables import Table, read_table
from persam_monai.cohort.words import counted
from persam_monai.errors import UserError, did_you_mean, raise_together
from persam_monai.files import replacing

MINIMUM_FOLDS = 3  # one to test on, one to validate on, one to train on

_CURE = (
    "use the table as it was when the folds were drawn (who has come since can be predicted by inference), or leave "
    "the file out of a new training, which then draws its own."
)
_COLUMNS = ("patient_id", "label", "fold")


@dataclass(frozen=True)
class SavedFold:
    """One row of a folds file.

    Args:
        row: its line in the file.
        label: name of the patient's class, empty when unknown.
        fold: from 0.
    """

    row: int
    label: str = field(repr=False)
    fold: int


def write_folds(cohort: Cohort, assignment: Mapping[str, int], path: str | Path) -> None:
    """Write ``folds.csv``: columns ``patient_id``, ``label`` (class name, empty when unknown) and ``fold``.

    Args:
        cohort: gives the order and the labels.
        assignment: patient to fold, as :func:`~persam_monai.cohort.assign_folds` returns it.
        path: the file; its folder is made, and the file appears whole or not at all.

    Raises:
        UserError: if the file cannot be written.
    """
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for patient, label in cohort.patient_labels.items():
            writer.writerow([patient, "" if label is None else cohort.classes[label], assignment[patient]])


def read_folds(path: str | Path) -> dict[str, SavedFold]:
    """Read what :func:`write_folds` wrote.

    Args:
        path: the file; further columns are ignored.

    Returns:
        Patient to row, in the order of the file.

    Raises:
        UserError: if the file is missing or unreadable, lacks a column, a patient stands twice or has no fold, or the
            folds are not 0, 1, … without a gap, three at least; with all rows that are wrong.
    """
    file = Path(path)
    if not os.path.exists(file):
        raise UserError(f"{file}: no such file; expected the folds.csv that a training wrote into its output_dir.")
    table = read_table(file)
    _check_columns(table)
    saved: dict[str, SavedFold] = {}
    problems: list[str] = []
    for row in table.rows:
        patient, fold = row.text("patient_id"), parse_fold(row.text("fold"))
        if not patient:
            problems.append(f'row {row.line}, column "patient_id": found an empty cell, expected a patient.')
        elif patient in saved:
            where = f"which stands in row {saved[patient].row} already; remove one row"
            problems.append(f'row {row.line}, column "patient_id": found "{patient}", {where}.')
        elif fold is None:
            found = row.text("fold")
            problems.append(f'row {row.line}, column "fold": found "{found}", expected a whole number from 0.')
        else:
            saved[patient] = SavedFold(row.line, row.text("label"), fold)
    raise_together(f"{file}: the folds need correcting", problems)
    check_numbering(
        [each.fold for each in saved.values()], str(file), "Renumber the column, or take the file as it was written."
    )
    return saved


def _check_columns(table: Table) -> None:
    """The three columns are there, once each."""
    problems = []
    for column in _COLUMNS:
        count = table.columns.count(column)
        if count != 1:
            found = f"stands {count} times" if count else "is missing"
            hint = "" if count else did_you_mean(column, table.columns)
            problems.append(
                f'column "{column}": {found}; expected once: name a folds.csv as a training writes it.{hint}'
            )
    raise_together(f"{table.path}: not a file of folds", problems)


def check_numbering(folds: Sequence[int], source: str, cure: str) -> None:
    """Refuse folds that cannot be rotated through test, validation and training.

    Args:
        folds: at least one, perhaps repeated.
        source: the file, for the message.
        cure: what to do, a sentence.

    Raises:
        UserError: if they are not 0, 1, … without a gap, or fewer than three.
    """
    present = sorted(set(folds))
    expected = list(range(max(present[-1] + 1, MINIMUM_FOLDS)))
    if present != expected:
        absent = next(fold for fold in expected if fold not in present)
        raise UserError(
            f'{source}, column "fold": found the folds {", ".join(map(str, present))}; expected at least '
            f"{MINIMUM_FOLDS}, counted from 0 without a gap, but no row has fold {absent}. {cure}"
        )


def match_folds(cohort: Cohort, saved: Mapping[str, SavedFold], source: str) -> dict[str, int]:
    """The folds of a cohort's patients, if the file is about the same patients.

    Args:
        cohort: the patients.
        saved: see :func:`read_folds`.
        source: the file, for messages.

    Returns:
        Patient to fold, in the cohort's order of patients.

    Raises:
        UserError: if a patient of either is not in the other, or has another label.
    """
    problems = []
    lacking = [entry.row for entry in cohort if entry.patient_id not in saved]
    if lacking:
        number = len(set(cohort.patients) - saved.keys())
        problems.append(
            f"{counted(number, 'patient')} of {cohort.source} ({rows_listed(lacking)} there) "
            f"{'has' if number == 1 else 'have'} no fold; {_CURE}"
        )
    surplus = [each.row for patient, each in saved.items() if patient not in cohort.patient_labels]
    if surplus:
        are = "is" if len(surplus) == 1 else "are"
        problems.append(
            f"{counted(len(surplus), 'patient')} ({rows_listed(surplus)}) {are} not in {cohort.source}; {_CURE}"
        )
    for patient, label in cohort.patient_labels.items():
        name = "" if label is None else cohort.classes[label]
        if patient in saved and saved[patient].label != name:
            problems.append(
                f'row {saved[patient].row}, column "label": found "{saved[patient].label}", expected "{name}" as in '
                f"{cohort.source}; correct the one that is wrong."
            )
    raise_together(f"{source}: the folds are not those of {cohort.source}", problems)
    return {patient: saved[patient].fold for patient in cohort.patients}
