# SPDX-License-Identifier: Apache-2.0
"""What rows of a cohort table must agree on."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort.entry import SlideEntry
from persam_monai.cohort.problems import Problems
from persam_monai.cohort.report import rows_listed

_LEADING_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")


def check_consistency(
    entries: Sequence[SlideEntry], schema: ClinicalSchema, usable: frozenset[str], problems: Problems
) -> None:
    """Note slides that stand twice, folds that are only partly given, and patients whose rows or names disagree.

    Args:
        entries: the rows; cells with a problem hold placeholders.
        schema: where each variable stands in an encoded record.
        usable: columns that could be read.
        problems: what was found so far; grows.
    """
    _check_slides(entries, problems)
    _check_spellings(entries, problems)
    if "fold" in usable:
        _check_folds(entries, problems)
    rows_of: dict[str, list[SlideEntry]] = {}
    for entry in entries:
        if entry.patient_id:
            rows_of.setdefault(entry.patient_id, []).append(entry)
    for rows in rows_of.values():
        if len(rows) > 1:
            _check_patient(rows, schema, problems)


def canonical(patient_id: str) -> str:
    """What is left of an identifier without case, spaces, leading zeros of its numbers and forms of letters.

    Example:
        >>> canonical("P 007") == canonical("p7")
        True
    """
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", patient_id).casefold())
    return _LEADING_ZEROS.sub("", "".join(plain.split()))


def _check_slides(entries: Sequence[SlideEntry], problems: Problems) -> None:
    """Each slide file stands in one row."""
    row_of: dict[str, int] = {}
    for entry in entries:
        if entry.slide and row_of.setdefault(str(entry.path), entry.row) != entry.row:
            where = f"is in row {row_of[str(entry.path)]} already; remove one row."
            told = f'found "{entry.slide}", which {where}'
            problems.add(entry.row, "slide", told, f"expected a slide that stands in no other row; this one {where}")


def _check_spellings(entries: Sequence[SlideEntry], problems: Problems) -> None:
    """A patient has one identifier: written in two ways, he or she would stand on two sides of a split."""
    first_of: dict[str, SlideEntry] = {}
    for entry in entries:
        if not entry.patient_id:
            continue
        first = first_of.setdefault(canonical(entry.patient_id), entry)
        if first.patient_id != entry.patient_id:
            cure = (
                f"as in row {first.row}, from which it differs in case, spaces or leading zeros alone; write it the "
                "same way if it is the same patient, else rename one."
            )
            told = f'found "{entry.patient_id}", expected "{first.patient_id}" {cure}'
            problems.add(entry.row, "patient_id", told, f"expected the identifier {cure}")


def _check_folds(entries: Sequence[SlideEntry], problems: Problems) -> None:
    """All rows have a fold, or none has."""
    empty = [entry.row for entry in entries if entry.fold is None and not problems.touch(entry.row, "fold")]
    if empty and any(entry.fold is not None or problems.touch(entry.row, "fold") for entry in entries):
        summary = f"{len(empty)} cells are empty ({rows_listed(empty)}); give every row a fold, or none."
        problems.add_rows(summary, "fold", empty, "expected a fold, because other rows have one; fill in the cell.")


def _check_patient(rows: Sequence[SlideEntry], schema: ClinicalSchema, problems: Problems) -> None:
    """The rows of one patient say the same as the first of them that says something."""
    labels = [None if row.label is None else (row.label, schema.classes[row.label]) for row in rows]
    _compare(rows, "label", labels, problems)
    _compare(rows, "fold", [None if row.fold is None else (row.fold, str(row.fold)) for row in rows], problems)
    records = np.stack([row.clinical for row in rows])
    same = (records == records[0]) | (np.isnan(records) & np.isnan(records[0]))
    for variable in schema.variables:
        place = schema.slices[variable.name]
        if not same[:, place].all():
            values = [(_comparable(record[place]), variable.describe(record[place])) for record in records]
            _compare(rows, variable.name, values, problems)


def _comparable(numbers: np.ndarray) -> tuple[float | None, ...]:
    """Encoded numbers such that missing ones equal each other."""
    return tuple(None if np.isnan(number) else float(number) for number in numbers)


def _compare(
    rows: Sequence[SlideEntry], column: str, values: Sequence[tuple[object, str] | None], problems: Problems
) -> None:
    """Note each value that is not the first one; cells with a problem and values that are None say nothing.

    Args:
        rows: of one patient.
        column: where the values stand.
        values: of each row, what is compared and how it is shown.
        problems: what was found so far; grows.
    """
    said = [
        (row.row, value)
        for row, value in zip(rows, values, strict=True)
        if value is not None and not problems.touch(row.row, column)
    ]
    for row, (value, found) in said[1:]:
        first, (right, expected) = said[0]
        if value != right:
            end = f"as in row {first}, which is the same patient; make them agree."
            problems.add(row, column, f"found {found}, expected {expected} {end}", f"expected the same value {end}")
