#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Read schema and clinical table as a training would, and say what is in them or what is wrong."""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from persam_monai.clinical import LevelVariable, NumericVariable, Variable
from persam_monai.cohort import Cohort, assign_folds, counted
from persam_monai.cohort.drafting import unknown_among
from persam_monai.cohort.leaks import MINIMUM_OF_CLASS, MINIMUM_PATIENTS, enough_to_tell, find_leak
from persam_monai.cohort.problems import rows_listed
from persam_monai.errors import UserError, messages_of_a_script, raise_together
from persam_monai.screen import number, share, text_table

_MOSTLY = 0.5  # share of missing values from which the median stands for more patients than were measured
_NO_LABEL = "(no label)"


def describe_records(cohort: Cohort, inference: bool = False) -> list[str]:
    """Lines that say what a cohort holds: patients, classes, every variable, and remarks.

    Args:
        cohort: the patients.
        inference: whether a model is to be asked about them: then nothing is said of what only a training minds.
    """
    slides_of = Counter(entry.patient_id for entry in cohort)
    each = ", ".join(f"{slides} in {patients}" for slides, patients in sorted(Counter(slides_of.values()).items()))
    total = f"{counted(len(cohort), 'slide')} of {counted(len(slides_of), 'patient')}"
    patients, slides = Counter(cohort.patient_labels.values()), Counter(cohort.labels)
    named: list[tuple[int | None, str]] = [*enumerate(cohort.classes), *([(None, _NO_LABEL)] if patients[None] else [])]
    rows = [[name, str(patients[label]), str(slides[label])] for label, name in named]
    lines = [f"{cohort.source}: {total} (slides of a patient: {each}).", ""]
    lines += text_table(["class", "patients", "slides"], rows, right=[1, 2])
    records = cohort.clinical_matrix()
    for group, variables in cohort.schema.groups.items():
        rows = []
        for variable in variables.values():
            values = records[:, cohort.schema.slices[variable.name]]
            unit = (variable.unit or "") if isinstance(variable, NumericVariable) else ""
            missing = share(int(np.isnan(values).any(axis=1).sum()), len(values))
            rows.append([variable.name, variable.kind, unit, missing, _values(variable, values)])
        lines += ["", f"Group {group}:"]
        lines += text_table(["variable", "kind", "unit", "missing", "values"], rows, right=[3])
    remarks = [f"  - {remark}" for remark in _remarks(cohort, records, inference)]
    return [*lines, "", *(["Remarks:", *remarks] if remarks else ["No remarks."])]


def describe_folds(cohort: Cohort, folds: int = 5, seed: int = 0) -> list[str]:
    """Lines with the number of patients by class and fold."""
    fold_of = assign_folds(cohort, folds, seed)
    counts = Counter((cohort.patient_labels[patient], fold) for patient, fold in fold_of.items())
    present = range(max(fold_of.values()) + 1)
    rows = [[name, *(str(counts[label, fold]) for fold in present)] for label, name in enumerate(cohort.classes)]
    given = any(entry.fold is not None for entry in cohort)
    origin = "of the table" if given else f"as a training with --folds {folds} --seed {seed} draws them"
    heading = ["class", *(f"fold {fold}" for fold in present)]
    return [f"Patients by fold, {origin}:", *text_table(heading, rows, right=range(1, len(heading)))]


def _values(variable: Variable, values: np.ndarray) -> str:
    """Median and range, or how many patients have each level."""
    known = values[~np.isnan(values).any(axis=1)]
    if not len(known):
        return "nobody has one"
    if isinstance(variable, NumericVariable):
        own = np.array([variable.value(value) for value in known[:, 0]])
        text = f"median {number(float(np.median(own)))}, {number(own.min())} to {number(own.max())}"
        return text + (", log" if variable.transform == "log" else "")
    return ", ".join(f"{level}: {patients}" for level, patients in _levels(variable, known).items())


def _levels(variable: Variable, known: np.ndarray) -> dict[str, int]:
    """Each level with its number of patients, those that nobody has too."""
    counts = Counter(variable.cell(row) for row in known)
    names = variable.spellings if isinstance(variable, LevelVariable) else ()
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
        yield f'classes: {", ".join(sorted(unknown))} looks like "not known". If so, leave the rows out of the table.'
    for variable in cohort.schema.variables:
        values = records[:, cohort.schema.slices[variable.name]]
        yield from (f"{variable.name}: {remark}" for remark in _about(variable, values, inference))
        leak = None if inference else find_leak(values, labels)
        if leak is not None:
            yield (
                f"{variable.name}: SUSPECTED LEAK: {leak}. Unless it is known before the diagnosis is, and without it, "
                "take it out of the schema."
            )


def _about(variable: Variable, values: np.ndarray, inference: bool) -> Iterator[str]:
    """What is odd about one variable by itself."""
    known = values[~np.isnan(values).any(axis=1)]
    if not len(known):
        yield "missing in every patient" + ("." if inference else "; a model cannot learn it.")
        return
    if len(known) < (1 - _MOSTLY) * len(values):
        yield f"missing in {share(len(values) - len(known), len(values))} of the patients."
    if inference:
        return
    if len(np.unique(known, axis=0)) == 1:
        yield "constant: the same value wherever it is known; it tells nothing. Take it out of the schema."
    elif isinstance(variable, LevelVariable):
        if unknown := unknown_among(variable.levels):
            yield f'the levels {", ".join(sorted(unknown))} look like "not known": declare missing_codes instead?'
        absent = [level for level, patients in _levels(variable, known).items() if not patients]
        if absent:
            yield f"nobody has {', '.join(absent)}."


def _check_features(cohort: Cohort, folder: Path) -> None:
    """Look into all feature files as a training does, with the patches that the first one says."""
    from persam_monai.data import FeatureFiles  # here, because who only checks a table should not wait for torch

    made = FeatureFiles(folder).made_of(cohort.entries)
    source = FeatureFiles(folder, made["patch_size"] or 224, made["mpp"] or 0.25)
    problems = [str(found) for found in source.look(cohort.entries) if isinstance(found, UserError)]
    raise_together(f"{folder}: the features need correcting", problems, shown=10)
    print(f"Features of {len(cohort)} slides are in {folder}.")


def main() -> None:
    """Parse the command line, read and print."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Exit status: 0 if a training can read them, 1 if not.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("dataset_dir", type=Path, help="folder with clinical.yaml and the cohort table")
    parser.add_argument("--table", help="name of the table in the folder; None: the one cohort.* that there is")
    parser.add_argument("--schema", type=Path, help="the schema, or a model.json; None: clinical.yaml of the folder")
    parser.add_argument("--decimal", choices=(".", ","), help="the table's decimal sign, if the schema has another one")
    parser.add_argument("--features_dir", type=Path, help="folder of features; the slides need not be there then")
    parser.add_argument("--without_slides", action="store_true", help="the slides need not be there yet")
    parser.add_argument(
        "--problems", type=Path, default="problems.csv", help="file for all problems, without the cells"
    )
    parser.add_argument(
        "--inference", action="store_true", help="the table is for a model to predict: no labels needed"
    )
    parser.add_argument("--folds", type=int, default=5, help="to draw, if the table has no column fold")
    parser.add_argument("--seed", type=int, default=0, help="of that draw")
    asked = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)  # columns that are ignored, and the like
    with messages_of_a_script():
        pixels = asked.features_dir is None and not asked.without_slides
        cohort = Cohort.load_dir(
            asked.dataset_dir, not asked.inference, asked.table, asked.problems, pixels, asked.decimal, asked.schema
        )
        if asked.features_dir is not None:
            _check_features(cohort, asked.features_dir)
        print(*describe_records(cohort, asked.inference), sep="\n", flush=True)
        if not asked.inference:
            print("", *describe_folds(cohort, asked.folds, asked.seed), sep="\n")


if __name__ == "__main__":
    main()
