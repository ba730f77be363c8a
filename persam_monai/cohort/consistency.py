# SPDX-License-Identifier: Apache-2.0
"""What rows of a cohort table must agree on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort.entry import SlideEntry
from persam_monai.cohort.problems import Problems

_ROWS_SHOWN = 10  # of rows with an empty fold: enough to find the pattern


def check_consistency(
    entries: Sequence[SlideEntry], schema: ClinicalSchema, usable: frozenset[str], problems: Problems
) -> None:
    """Note slides that stand twice, folds that are only partly given, and patients whose rows disagree.

    Args:
        entries: the rows; cells with a problem hold placeholders.
        schema: where each variable stands in an encoded record.
        usable: columns that could be read.
        problems: what was found so far; grows.
    """
    _check_slides(entries, problems)
    if "fold" in usable:
        _check_folds(entries, problems)
    first_of: dict[str, SlideEntry] = {}
    for entry in entries:
        if not entry.patient_id:
            continue
        first = first_of.setdefault(entry.patient_id, entry)
        if first is not entry:
            _check_patient(first, entry, schema, problems)


def _check_slides(entries: Sequence[SlideEntry], problems: Problems) -> None:
    """Each slide file stands in one row."""
    row_of: dict[str, int] = {}
    for entry in entries:
        if entry.slide and row_of.setdefault(str(entry.path), entry.row) != entry.row:
            other = row_of[str(entry.path)]
            problems.add(entry.row, "slide", f'found "{entry.slide}", which is in row {other} already; remove one row.')


def _check_folds(entries: Sequence[SlideEntry], problems: Problems) -> None:
    """All rows have a fold, or none has."""
    empty = [entry.row for entry in entries if entry.fold is None and not problems.touch(entry.row, "fold")]
    if empty and any(entry.fold is not None or problems.touch(entry.row, "fold") for entry in entries):
        rows = ", ".join(str(row) for row in empty[:_ROWS_SHOWN]) + (", …" if len(empty) > _ROWS_SHOWN else "")
        problems.add(None, "fold", f"{len(empty)} cells are empty (rows {rows}); give every row a fold, or none.")


def _check_patient(first: SlideEntry, entry: SlideEntry, schema: ClinicalSchema, problems: Problems) -> None:
    """Two rows of one patient say the same."""
    for column, found, expected in _disagreements(first, entry, schema):
        if not (problems.touch(first.row, column) or problems.touch(entry.row, column)):
            text = (
                f"found {found}, expected {expected} as in row {first.row}, which is the same patient; make them agree."
            )
            problems.add(entry.row, column, text)


def _disagreements(first: SlideEntry, entry: SlideEntry, schema: ClinicalSchema) -> Iterator[tuple[str, str, str]]:
    """Column, found and expected wherever two entries differ in what belongs to the patient."""
    if first.label is not None and entry.label is not None and first.label != entry.label:
        yield "label", schema.classes[entry.label], schema.classes[first.label]
    if None not in (first.fold, entry.fold) and first.fold != entry.fold:
        yield "fold", str(entry.fold), str(first.fold)
    for variable in schema.variables:
        here, there = (each.clinical[schema.slices[variable.name]] for each in (entry, first))
        if not np.array_equal(here, there, equal_nan=True):
            yield variable.name, variable.describe(here), variable.describe(there)
