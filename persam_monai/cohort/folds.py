# SPDX-License-Identifier: Apache-2.0
"""Patient-grouped, stratified folds: no patient is on two sides of a split."""

from __future__ import annotations

import csv
import logging
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from sklearn.model_selection import StratifiedKFold

from persam_monai.cohort.cohort import Cohort
from persam_monai.cohort.problems import counted, rows_listed
from persam_monai.cohort.reading import parse_fold
from persam_monai.cohort.tables import read_table
from persam_monai.errors import UserError, did_you_mean, raise_together
from persam_monai.files import replacing

logger = logging.getLogger(__name__)

MINIMUM_FOLDS = 3
"""One to test on, one to validate on, one to train on."""

_COLUMNS = ("patient_id", "label", "fold")
_CURE = (
    "use the table as it was when the folds were drawn (who has come since can be predicted by inference), or leave "
    "the file out of a new training, which then draws its own."
)


class Split(NamedTuple):
    """Three cohorts without a common patient."""

    train: Cohort
    validation: Cohort
    test: Cohort


def assign_folds(cohort: Cohort, folds: int = 5, seed: int = 0, folds_file: str | Path | None = None) -> dict[str, int]:
    """Give each patient a fold.

    A ``fold`` column in the table, or a file with the folds of an earlier training, decides when there is one.
    Otherwise patients are drawn at random so that the number of a class's patients in a fold is within one of its ideal
    (:class:`sklearn.model_selection.StratifiedKFold`). The order of the table's rows does not matter.

    Args:
        cohort: every patient labelled, unless the folds are given.
        folds: how many, at least 3; given folds override it.
        seed: of the draw.
        folds_file: ``folds.csv`` as :func:`write_folds` writes it; ``None``: no file.

    Returns:
        Patient to fold, from 0, in the cohort's order of patients.

    Raises:
        UserError: if given folds are not 0, 1, … without a gap, or are not those of the cohort's patients; if there
            are fewer than three folds or patients than folds, a patient has no label, or no class has a patient for
            every fold.
    """
    given = {entry.patient_id: entry.fold for entry in cohort if entry.fold is not None}
    if folds_file is not None:
        saved = _match(cohort, read_folds(folds_file), str(folds_file))
        if given and given != saved:
            raise UserError(
                f'{cohort.source}, column "fold": differs from {folds_file}; expected the same in both. Remove the '
                "column, or do not give the file."
            )
        return saved
    if given:
        _check_numbering(given.values(), cohort.source)
        return given
    labels = _known_labels(cohort)
    _check_numbers(cohort, labels, folds)
    patients = sorted(labels)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    fold_of: dict[str, int] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about rare classes; _check_numbers has said it better
        for fold, (_, members) in enumerate(splitter.split(patients, [labels[patient] for patient in patients])):
            fold_of.update({patients[member]: fold for member in members})
    return {patient: fold_of[patient] for patient in cohort.patients}


def split_by(cohort: Cohort, fold: int | str, fold_of: Mapping[str, int]) -> Split:
    """Training, validation and test cohorts of one fold of the cross-validation; 3:1:1 for five folds.

    Args:
        cohort: every patient labelled.
        fold: the test fold, from 0; the next one (cyclically) is for validation, the rest for training. ``"all"``
            trains on everyone: validation figures are then of training patients, and no one is tested.
        fold_of: every patient's fold, as :func:`assign_folds` gives it.

    Raises:
        UserError: if there is no such fold, or the training part lacks a class.
    """
    labels = _known_labels(cohort)
    count = max(fold_of.values()) + 1
    if fold == "all":
        return Split(cohort, cohort, cohort.subset(()))
    if not isinstance(fold, int) or not 0 <= fold < count:
        raise UserError(f"{cohort.source}: found fold {fold}; expected 0 to {count - 1}: there are {count} folds.")
    validation = (fold + 1) % count

    def part(chosen: set[int]) -> Cohort:
        return cohort.subset(entry for entry in cohort if fold_of[entry.patient_id] in chosen)

    split = Split(part(set(range(count)) - {fold, validation}), part({validation}), part({fold}))
    learned = {labels[patient] for patient in split.train.patients}
    absent = [name for index, name in enumerate(cohort.classes) if index not in learned]
    if absent:
        raise UserError(
            f"{cohort.source}: no patient in the training part of fold {fold} has the class {', '.join(absent)}; "
            "expected at least one. Add patients of that class, choose another fold or seed, or remove the class from "
            "the schema."
        )
    return split


def write_folds(cohort: Cohort, assignment: Mapping[str, int], path: str | Path) -> None:
    """Write ``folds.csv``: columns ``patient_id``, ``label`` (class name, empty when unknown) and ``fold``.

    Args:
        cohort: gives the order and the labels.
        assignment: patient to fold, as :func:`assign_folds` returns it.
        path: the file; its folder is made, and the file appears whole or not at all.

    Raises:
        UserError: if the file cannot be written.
    """
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for patient, label in cohort.patient_labels.items():
            writer.writerow([patient, "" if label is None else cohort.classes[label], assignment[patient]])


def read_folds(path: str | Path) -> dict[str, tuple[str, int]]:
    """Read what :func:`write_folds` wrote.

    Args:
        path: the file; further columns are ignored.

    Returns:
        Patient to label (a class name, empty when unknown) and fold, in the order of the file.

    Raises:
        UserError: if the file is missing or unreadable, lacks a column, a patient is in it twice or has no fold, or the
            folds are not 0, 1, … without a gap, three at least; with all rows that are wrong.
    """
    table = read_table(path)
    problems = [
        f'column "{column}": is missing; name a folds.csv as a training writes it.{did_you_mean(column, table.columns)}'
        for column in _COLUMNS
        if column not in table.columns
    ]
    raise_together(f"{path}: not a file of folds", problems)
    saved: dict[str, tuple[str, int]] = {}
    for row in table.rows:
        patient, fold = row.text("patient_id"), parse_fold(row.text("fold"))
        if not patient or patient in saved:
            problems.append(f'row {row.line}, column "patient_id": found "{patient}", expected each patient once.')
        elif fold is None:
            found = row.text("fold")
            problems.append(f'row {row.line}, column "fold": found "{found}", expected a whole number from 0.')
        else:
            saved[patient] = row.text("label"), fold
    raise_together(f"{path}: the folds need correcting", problems)
    _check_numbering([fold for _, fold in saved.values()], str(path))
    return saved


def _match(cohort: Cohort, saved: Mapping[str, tuple[str, int]], source: str) -> dict[str, int]:
    """The folds of a cohort's patients, if the file is about the same patients, with the same labels."""
    problems = []
    lacking = [entry.row for entry in cohort if entry.patient_id not in saved]
    if lacking:
        problems.append(f"no fold for the patients in {rows_listed(lacking)} of {cohort.source}; {_CURE}")
    surplus = len(saved.keys() - cohort.patient_labels.keys())
    if surplus:
        problems.append(f"{counted(surplus, 'patient')} not in {cohort.source}; {_CURE}")
    for patient, label in cohort.patient_labels.items():
        name = "" if label is None else cohort.classes[label]
        if patient in saved and saved[patient][0] != name:
            problems.append(f'patient "{patient}": found the label "{saved[patient][0]}", expected "{name}".')
    raise_together(f"{source}: the folds are not those of {cohort.source}", problems)
    return {patient: saved[patient][1] for patient in cohort.patients}


def _check_numbering(folds: Iterable[int], source: str) -> None:
    """Given folds can be rotated through test, validation and training."""
    present = sorted(set(folds))
    if present != list(range(max([MINIMUM_FOLDS, *(fold + 1 for fold in present)]))):
        raise UserError(
            f'{source}, column "fold": found the folds {", ".join(map(str, present))}; expected at least '
            f"{MINIMUM_FOLDS}, counted from 0 without a gap. Renumber the column, or remove it to have the folds drawn."
        )


def _known_labels(cohort: Cohort) -> dict[str, int]:
    """The label of each patient, all known."""
    unknown = [entry.row for entry in cohort if cohort.patient_labels[entry.patient_id] is None]
    if unknown:
        raise UserError(
            f'{cohort.source}, column "label": no label in {rows_listed(unknown)}; training and test folds need one '
            "for every patient."
        )
    return {patient: label for patient, label in cohort.patient_labels.items() if label is not None}


def _check_numbers(cohort: Cohort, labels: Mapping[str, int], folds: int) -> None:
    """Enough folds, and enough patients for them."""
    if folds < MINIMUM_FOLDS:
        raise UserError(f"found folds {folds}; expected at least {MINIMUM_FOLDS}: training, validation and test.")
    counts = Counter(labels.values())
    most = max(counts.values(), default=0)
    if most < folds:
        fewer = f"set folds to {MINIMUM_FOLDS} at least and {most} at most, or " if most >= MINIMUM_FOLDS else ""
        raise UserError(
            f"{cohort.source}: found {counted(len(labels), 'patient')}, {most} in the commonest class, for {folds} "
            f"folds; expected at least one class with a patient in every fold. Please {fewer}add patients."
        )
    for index, name in enumerate(cohort.classes):
        if counts[index] < folds:
            text = "Class %s: %s for %d folds; some folds have none."
            logger.warning(text, name, counted(counts[index], "patient"), folds)
