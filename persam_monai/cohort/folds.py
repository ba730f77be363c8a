# SPDX-License-Identifier: Apache-2.0
"""Patient-grouped, stratified folds: no patient stands on two sides of a split."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from sklearn.model_selection import StratifiedKFold

from persam_monai.cohort.cohort import Cohort
from persam_monai.cohort.report import rows_listed
from persam_monai.cohort.saved_folds import MINIMUM_FOLDS, check_numbering, match_folds, read_folds
from persam_monai.cohort.words import counted
from persam_monai.errors import UserError, raise_together
from persam_monai.settings import is_null

logger = logging.getLogger(__name__)


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
        folds_file: ``folds.csv`` as :func:`~persam_monai.cohort.write_folds` writes it; ``None`` (or a text that means
            it): no file.

    Returns:
        Patient to fold, from 0, in the cohort's order of patients.

    Raises:
        UserError: if given folds are not 0, 1, … without a gap, are not those of the cohort's patients, or contradict
            each other; if there are fewer than three folds or patients than folds, a patient has no label, or no class
            has a patient for every fold.
    """
    given = _column_folds(cohort)
    if not is_null(folds_file):
        saved = match_folds(cohort, read_folds(str(folds_file)), str(folds_file))
        _check_agreement(cohort, given, saved, str(folds_file))
        return saved
    return given or _draw_folds(cohort, folds, seed)


def _draw_folds(cohort: Cohort, folds: int, seed: int) -> dict[str, int]:
    """Folds at random, each class spread evenly."""
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


def split(cohort: Cohort, fold: int, folds: int = 5, seed: int = 0, folds_file: str | Path | None = None) -> Split:
    """Training, validation and test cohorts of one fold of the cross-validation; 3:1:1 for five folds.

    Args:
        cohort: every patient labelled.
        fold: the test fold, from 0; the next one (cyclically) is for validation, the rest for training.
        folds: see :func:`assign_folds`.
        seed: see :func:`assign_folds`.
        folds_file: see :func:`assign_folds`.

    Raises:
        UserError: if there is no such fold, or the training part lacks a class, and as :func:`assign_folds`.
    """
    return split_by(cohort, fold, assign_folds(cohort, folds, seed, folds_file))


def split_by(cohort: Cohort, fold: int, fold_of: Mapping[str, int]) -> Split:
    """As :func:`split`, where the folds are known.

    Args:
        cohort: see :func:`split`.
        fold: see :func:`split`.
        fold_of: every patient's fold, as :func:`assign_folds` gives it.

    Raises:
        UserError: if there is no such fold, or the training part lacks a class.
    """
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
    check_parts(cohort, result)
    _check_training_classes(cohort, result.train, labels, fold)
    return result


def check_parts(cohort: Cohort, parts: Split) -> None:
    """Refuse parts that share a patient or a slide, or leave one out: results on them would mean nothing.

    Args:
        cohort: what was split.
        parts: what became of it.

    Raises:
        UserError: which parts share how many patients or slides, and how many rows are left out.
    """
    problems = []
    for (one, first), (other, second) in combinations(parts._asdict().items(), 2):
        patients = set(first.patients) & set(second.patients)
        slides = {entry.path for entry in first} & {entry.path for entry in second}
        if patients or slides:
            common = f"{counted(len(patients), 'patient')} and {counted(len(slides), 'slide')} in common"
            problems.append(
                f"{one} and {other} have {common}; expected none. "
                "Give each patient one fold, and each slide one patient."
            )
    left = {entry.row for entry in cohort} - {entry.row for part in parts for entry in part}
    if left:
        are = "is" if len(left) == 1 else "are"
        problems.append(f"{rows_listed(sorted(left))} of the cohort {are} in no part; give every patient a fold.")
    raise_together(f"{cohort.source}: the split is not sound", problems)


def _column_folds(cohort: Cohort) -> dict[str, int]:
    """The folds in the table's own column, if it has one, which can be rotated through test, validation and training.

    Reading a table has seen to all of this; entries may come from elsewhere.
    """
    given: dict[str, int] = {}
    problems = []
    empty = [entry.row for entry in cohort if entry.fold is None]
    for entry in cohort:
        if entry.fold is not None and given.setdefault(entry.patient_id, entry.fold) != entry.fold:
            problems.append(
                f'row {entry.row}, column "fold": found {entry.fold}, expected {given[entry.patient_id]} as in the '
                "patient's first row; give all rows of a patient the same fold."
            )
    if given and empty:
        problems.append(f'column "fold": {rows_listed(empty)} {_have(empty)} none; give every row a fold, or none.')
    raise_together(f"{cohort.source}: the folds need correcting", problems)
    if given:
        cure = "Renumber the column, or remove it to have the folds drawn."
        check_numbering(list(given.values()), cohort.source, cure)
    return given


def _check_agreement(cohort: Cohort, given: dict[str, int], saved: dict[str, int], source: str) -> None:
    """A fold column and a folds file say the same."""
    differing = [entry.row for entry in cohort if given and given[entry.patient_id] != saved[entry.patient_id]]
    if differing:
        raise UserError(
            f'{cohort.source}, column "fold": {rows_listed(differing)} {_have(differing)} another fold than in '
            f"{source}; expected the same in both. Remove the column, or do not give the file."
        )


def _have(things: Sequence[object]) -> str:
    return "has" if len(things) == 1 else "have"


def _known_labels(cohort: Cohort) -> dict[str, int]:
    """The label of each patient, all known."""
    unknown = [str(entry.row) for entry in cohort if cohort.patient_labels[entry.patient_id] is None]
    if unknown:
        raise UserError(
            f'{cohort.source}, column "label": {counted(len(unknown), "slide")} {_have(unknown)} no label (the first '
            f"in row {unknown[0]}); training and test folds need one for every patient."
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
            f"{cohort.source}: found {counted(len(labels), 'patient')} for {folds} folds; expected at least one "
            f"patient per fold. Please {fewer}add patients."
        )
    if most < folds:
        raise UserError(
            f"{cohort.source}: found {counted(most, 'patient')} in the commonest class for {folds} folds; expected at "
            f"least one class with a patient in every fold. Please {fewer}add patients."
        )
    for index in range(len(cohort.classes)):
        if counts[index] < folds:  # by number: the log goes where class names may not
            logger.warning(
                "Class %d of the schema: %s for %d folds; some folds have none.",
                index + 1,
                counted(counts[index], "patient"),
                folds,
            )


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
