# SPDX-License-Identifier: Apache-2.0
"""A look at the clinical table before a training: who is in it, what is known of them, what is odd about it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from persam_monai.clinical import ClinicalSchema, Variable
from persam_monai.clinical.cells import unknown_among
from persam_monai.clinical.variables.levels import LevelVariable
from persam_monai.clinical.variables.numeric import NumericVariable
from persam_monai.cohort import Cohort, assign_folds
from persam_monai.cohort.report import rows_listed
from persam_monai.cohort.tables import TABLE_NAMES, find_table
from persam_monai.cohort.words import counted
from persam_monai.drafting.leaks import MINIMUM_OF_CLASS, MINIMUM_PATIENTS, enough_to_tell, find_leak
from persam_monai.drafting.unknown import quoted
from persam_monai.errors import UserError
from persam_monai.text_table import number, share, text_table

_MOSTLY = 0.5  # share of missing values from which the median stands for more patients than were measured
_NO_LABEL = "(no label)"


def load_cohort(
    dataset_dir: str | os.PathLike[str],
    table: str | None = None,
    schema: str | os.PathLike[str] | None = None,
    problems: str | os.PathLike[str] | None = None,
    inference: bool = False,
    without_slides: bool = False,
) -> Cohort:
    """Read schema and table as a training, or an inference, does.

    Args:
        dataset_dir: the dataset folder.
        table: name of the table in the folder; ``None``: the one that there is.
        schema: the schema, or a model's ``model.json``, which has one; ``None``: ``clinical.yaml`` of the folder.
        problems: file for all problems; ``None``: none.
        inference: whether labels may be absent.
        without_slides: whether slide files may be absent.

    Raises:
        UserError: with everything that is wrong.
    """
    folder = Path(dataset_dir)
    file = None if problems is None else Path(problems)
    if schema is None:
        return Cohort.load_dir(folder, not inference, table, file, not without_slides)
    path = find_table(folder, table) if os.path.isdir(folder) else None
    if path is None:
        raise UserError(f"{folder}: found no cohort table; expected a folder with {', '.join(TABLE_NAMES)}.")
    return Cohort.load(path, _load_schema(Path(schema)), not inference, file, not without_slides)


def _load_schema(path: Path) -> ClinicalSchema:
    """A schema, or that of a model."""
    if path.suffix.lower() != ".json" or not os.path.isfile(path):
        return ClinicalSchema.load(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); copy it anew from where it was written.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from error
    schema = content.get("schema", content) if isinstance(content, dict) else None
    if not isinstance(schema, dict) or "groups" not in schema:
        raise UserError(f"{path}: found no schema in it; expected the model.json of a training, or a clinical.yaml.")
    return ClinicalSchema.from_dict(schema, str(path))


def describe_records(cohort: Cohort, inference: bool = False) -> list[str]:
    """Lines that say what a cohort holds: patients, classes, every variable, and remarks.

    Args:
        cohort: the patients.
        inference: whether a model is to be asked about them: then nothing is said of what only a training minds.
    """
    lines = [*_of_patients(cohort), "", *_of_classes(cohort)]
    records, start = cohort.clinical_matrix(), 0
    for group, variables in cohort.schema.groups.items():
        rows = []
        for variable in variables:
            values = records[:, start : start + variable.width]
            start += variable.width
            unit = getattr(variable, "unit", None) or ""
            missing = int(np.isnan(values).any(axis=1).sum())
            rows.append([variable.name, variable.kind, unit, share(missing, len(values)), _values(variable, values)])
        lines += [
            "",
            f"Group {group}:",
            *text_table(["variable", "kind", "unit", "missing", "values"], rows, right=[3]),
        ]
    remarks = list(_remarks(cohort, records, inference))
    return [*lines, "", *(["Remarks:", *(f"  - {remark}" for remark in remarks)] if remarks else ["No remarks."])]


def describe_folds(cohort: Cohort, folds: int = 5, seed: int = 0) -> list[str]:
    """Lines with the number of patients by class and fold.

    Args:
        cohort: every patient labelled.
        folds: of the draw, if the table has none.
        seed: of the draw.

    Raises:
        UserError: as :func:`persam_monai.cohort.assign_folds` does.
    """
    given = any(entry.fold is not None for entry in cohort)
    fold_of = assign_folds(cohort, folds, seed)
    counts = Counter((cohort.patient_labels[patient], fold) for patient, fold in fold_of.items())
    present = range(max(fold_of.values()) + 1)
    rows = [
        [name, *(str(counts[label, fold]) for fold in present)]
        for label, name in [*enumerate(cohort.classes), (None, _NO_LABEL)]
        if label is not None or any(counts[None, fold] for fold in present)
    ]
    origin = "of the table" if given else f"as a training with --folds {folds} --seed {seed} draws them"
    heading = ["class", *(f"fold {fold}" for fold in present)]
    return [f"Patients by fold, {origin}:", *text_table(heading, rows, right=range(1, len(heading)))]


def _of_patients(cohort: Cohort) -> list[str]:
    """How many there are, and how many slides each has."""
    slides_of = Counter(entry.patient_id for entry in cohort)
    by_number = sorted(Counter(slides_of.values()).items())
    each = ", ".join(f"{slides} in {patients}" for slides, patients in by_number)
    total = f"{counted(len(cohort), 'slide')} of {counted(len(slides_of), 'patient')}"
    return [f"{cohort.source}: {total} (slides of a patient: {each})."]


def _of_classes(cohort: Cohort) -> list[str]:
    patients, slides = Counter(cohort.patient_labels.values()), Counter(cohort.labels)
    named: list[tuple[int | None, str]] = [*enumerate(cohort.classes)]
    if patients[None]:
        named.append((None, _NO_LABEL))
    rows = [[name, str(patients[label]), str(slides[label])] for label, name in named]
    return text_table(["class", "patients", "slides"], rows, right=[1, 2])


def _values(variable: Variable, values: np.ndarray) -> str:
    """Median and range, or how many patients have each level."""
    known = values[~np.isnan(values).any(axis=1)]
    if not len(known):
        return "nobody has one"
    if isinstance(variable, NumericVariable):
        own = np.array([variable.value(value) for value in known[:, 0]])
        text = f"median {number(float(np.median(own)))}, {number(own.min())} to {number(own.max())}"
        return text + (", log" if variable.transform == "log" else "")
    counts = _levels(variable, known)
    return ", ".join(f"{level}: {counts[level]}" for level in counts)


def _levels(variable: Variable, known: np.ndarray) -> dict[str, int]:
    """Each level with its number of patients, those that nobody has too."""
    counts = Counter(variable.cell(row) for row in known)
    names = variable.spellings if isinstance(variable, LevelVariable) else tuple(counts)
    return {name: counts[name] for name in names}


def _remarks(cohort: Cohort, records: np.ndarray, inference: bool) -> Iterator[str]:
    """What a person should look at, a sentence each."""
    nothing = np.flatnonzero(np.isnan(records).all(axis=1))
    if len(nothing):
        first = {entry.patient_id: entry.row for entry in reversed(cohort.entries)}
        rows = [first[cohort.patients[patient]] for patient in nothing]
        yield f"No clinical value is known of {counted(len(nothing), 'patient')} ({rows_listed(rows)})."
    labels = [None if label is None else cohort.classes[label] for label in cohort.patient_labels.values()]
    if not inference and not enough_to_tell(labels):
        yield (
            f"Too few labelled patients to tell leaks: at least {MINIMUM_PATIENTS} are needed, of two classes with at "
            f"least {MINIMUM_OF_CLASS} each."
        )
    if not inference and (unknown := unknown_among(cohort.classes)):
        yield f'classes: {quoted(sorted(unknown))} looks like "not known". If so, leave the rows out of the table.'
    for variable in cohort.schema.variables:
        values = records[:, cohort.schema.slices[variable.name]]
        if variable.name in cohort.coded:
            yield f"{variable.name}: {_coded(cohort.coded[variable.name], variable, cohort.schema)}"
        yield from (f"{variable.name}: {remark}" for remark in _about(variable, values, inference))
        leak = None if inference else find_leak(values, labels)
        if leak is not None:
            yield (
                f"{variable.name}: SUSPECTED LEAK: {leak}. Unless it is known before the diagnosis is, and without it, "
                "take it out of the schema."
            )


def _coded(cells: int, variable: Variable, schema: ClinicalSchema) -> str:
    """That cells with a missing code count as missing: one of them may have been a value."""
    codes = dict.fromkeys((*variable.missing_codes, *schema.missing_codes))
    listed = ", ".join(f"{code:.15g}" if isinstance(code, float) else str(code) for code in codes)
    count = "1 cell holds a missing code and counts" if cells == 1 else f"{cells} cells hold a missing code and count"
    return f"{count} as missing (missing_codes: {listed})."


def _about(variable: Variable, values: np.ndarray, inference: bool) -> Iterator[str]:
    """What is odd about one variable by itself."""
    known = values[~np.isnan(values).any(axis=1)]
    if not len(known):
        cure = "." if inference else "; a model cannot learn it. Take it out of the schema."
        yield f"missing in every patient{cure}"
        return
    if len(known) < (1 - _MOSTLY) * len(values):
        yield f"missing in {share(len(values) - len(known), len(values))} of the patients."
    if inference:
        return
    if len(np.unique(known, axis=0)) == 1:
        yield "constant: the same value wherever it is known; it tells nothing. Take it out of the schema."
        return
    if isinstance(variable, LevelVariable):
        if unknown := unknown_among(variable.levels):
            listed = quoted(sorted(unknown))
            yield f'the levels {listed} look like "not known". If so, declare missing_codes: {listed} instead.'
        absent = [level for level, patients in _levels(variable, known).items() if not patients]
        if absent:
            yield f"nobody has {', '.join(absent)}."
