# SPDX-License-Identifier: Apache-2.0
"""Patient-grouped, stratified folds: no patient stands on two sides of a split."""

from __future__ import annotations

import csv
import logging
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from sklearn.model_selection import StratifiedKFold

from persam_monai.cohort.cohort import Cohort
from persam_monai.errors import UserError
from persam_monai.files import replacing

logger = logging.getLogger(__name__)

MINIMUM_FOLDS = 3  # one to test on, one to validate on, one to train on


class Split(NamedTuple):
    """Three cohorts without a common patient."""

    train: Cohort
    validation: Cohort
    test: Cohort


def assign_folds(cohort: Cohort, folds: int = 5, seed: int = 0) -> dict[str, int]:
    """Give each patient a fold.

    A ``fold`` column in the table decides, when there is one. Otherwise patients are drawn at random so that the number
    of a class's patients in a fold is within one of its ideal (:class:`sklearn.model_selection.StratifiedKFold`). The
    order of the table's rows does not matter.

    Args:
        cohort: every patient labelled, unless the table has folds.
        folds: how many, at least 3; the ``fold`` column overrides it.
        seed: of the draw.

    Returns:
        Patient to fold, from 0, in the cohort's order of patients.

    Raises:
        UserError: if the table's folds are not 0, 1, … without a gap, fewer than three folds or patients than folds, a
            patient has no label, or no class has a patient for every fold.
    """
    given = {entry.patient_id: entry.fold for entry in cohort if entry.fold is not None}
    if given:
        return _check_given(cohort, given)
    labels = _known_labels(cohort)
    _check_numbers(cohort, labels, folds)
    patients = sorted(labels)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    fold_of: dict[str, int] = {}
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # about rare classes; _check_numbers has said it with the class's name
        for fold, (_, members) in enumerate(splitter.split(patients, [labels[patient] for patient in patients])):
            fold_of.update({patients[member]: fold for member in members})
    return {patient: fold_of[patient] for patient in cohort.patients}


def split(cohort: Cohort, fold: int, folds: int = 5, seed: int = 0) -> Split:
    """Training, validation and test cohorts of one fold of the cross-validation; 3:1:1 for five folds.

    Args:
        cohort: every patient labelled.
        fold: the test fold, from 0; the next one (cyclically) is for validation, the rest for training.
        folds: see :func:`assign_folds`.
        seed: see :func:`assign_folds`.

    Raises:
        UserError: if there is no such fold, or the training part lacks a class, and as :func:`assign_folds`.
    """
    fold_of = assign_folds(cohort, folds, seed)
    labels = _known_labels(cohort)
    count = max(fold_of.values()) + 1
    if not 0 <= fold < count:
        raise UserError(
            f"{cohort.source}: found fold {fold}; expected 0 to {count - 1}, because there are {count} folds."
        )
    validation = (fold + 1) % count

    def part(chosen: set[int]) -> Cohort:
        return cohort.subset(entry for entry in cohort if fold_of[entry.patient_id] in chosen)

    result = Split(part(set(range(count)) - {fold, validation}), part({validation}), part({fold}))
    _check_training_classes(cohort, result.train, labels, fold)
    return result


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
        writer.writerow(["patient_id", "label", "fold"])
        for patient, label in cohort.patient_labels.items():
            writer.writerow([patient, "" if label is None else cohort.classes[label], assignment[patient]])


def _check_given(cohort: Cohort, given: dict[str, int]) -> dict[str, int]:
    """The table's own folds, if they can be rotated through test, validation and training."""
    present = sorted(set(given.values()))
    expected = list(range(max(present[-1] + 1, MINIMUM_FOLDS)))
    if present != expected:
        absent = next(fold for fold in expected if fold not in present)
        raise UserError(
            f'{cohort.source}, column "fold": found the folds {", ".join(map(str, present))}; expected at least '
            f"{MINIMUM_FOLDS}, counted from 0 without a gap, but no row has fold {absent}. Renumber the column, or "
            "remove it to have the folds drawn."
        )
    return given


def _known_labels(cohort: Cohort) -> dict[str, int]:
    """The label of each patient, all known."""
    unknown = [str(entry.row) for entry in cohort if cohort.patient_labels[entry.patient_id] is None]
    if unknown:
        raise UserError(
            f'{cohort.source}, column "label": {len(unknown)} slides have no label (the first in row {unknown[0]}); '
            "training and test folds need one for every patient."
        )
    return {patient: label for patient, label in cohort.patient_labels.items() if label is not None}


def _check_numbers(cohort: Cohort, labels: dict[str, int], folds: int) -> None:
    """Enough folds, and enough patients for them."""
    if folds < MINIMUM_FOLDS:
        raise UserError(f"found folds {folds}; expected at least {MINIMUM_FOLDS}: training, validation and test.")
    counts = Counter(labels.values())
    most = max(counts.values(), default=0)
    fewer = f"set folds to {MINIMUM_FOLDS} at least and {most} at most, or " if most >= MINIMUM_FOLDS else ""
    if len(labels) < folds:
        raise UserError(
            f"{cohort.source}: found {len(labels)} patients for {folds} folds; expected at least one patient per fold. "
            f"Please {fewer}add patients."
        )
    if most < folds:
        raise UserError(
            f"{cohort.source}: found {most} patients in the commonest class for {folds} folds; expected at least one "
            f"class with a patient in every fold. Please {fewer}add patients."
        )
    for index, name in enumerate(cohort.classes):
        if counts[index] < folds:
            logger.warning("patients of class %s: %d, for %d folds; some folds have none", name, counts[index], folds)


def _check_training_classes(cohort: Cohort, train: Cohort, labels: dict[str, int], fold: int) -> None:
    """Each class has a patient to learn from."""
    everywhere = Counter(labels.values())
    learned = {labels[patient] for patient in train.patients}
    absent = [index for index in range(len(cohort.classes)) if index not in learned]
    if absent:
        listed = ", ".join(f"{cohort.classes[index]} (patients in all: {everywhere[index]})" for index in absent)
        raise UserError(
            f"{cohort.source}: no patient in the training part of fold {fold} has the class {listed}; expected at "
            "least one. Add patients of that class, choose another fold or seed, or remove the class from the schema."
        )
