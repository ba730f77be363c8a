# SPDX-License-Identifier: Apache-2.0
"""What rows of a cohort table must agree on."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from persam_monai.clinical import CategoricalVariable, ClinicalSchema, shown
from persam_monai.clinical.cells import folded
from persam_monai.cohort.entry import SlideEntry
from persam_monai.cohort.problems import Problems
from persam_monai.cohort.report import rows_listed
from persam_monai.cohort.tables import TableRow, as_text

_LEADING_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")
_POINT_ZERO = re.compile(r"(?<=[0-9])\.0$")
_UNSEEN = ("Cf", "Cc")  # Unicode's classes of signs without a form, such as a soft hyphen
_DASH, _MINUS = "-", "\u2212"


class _Row(NamedTuple):
    """A row as it was understood, and as it stands in the table."""

    entry: SlideEntry
    table: TableRow

    @property
    def number(self) -> int:
        return self.entry.row

    def shown(self, column: str) -> str:
        """A cell, for the screen."""
        text = as_text(self.table.cells.get(column))
        return shown(text)[1:-1] if text else "an empty cell"


def check_consistency(
    entries: Sequence[SlideEntry],
    rows: Sequence[TableRow],
    schema: ClinicalSchema,
    usable: frozenset[str],
    problems: Problems,
) -> None:
    """Note slides that stand twice, folds that are only partly given, and patients whose rows or names disagree.

    Args:
        entries: the rows as they were understood; cells with a problem hold placeholders.
        rows: the same as they stand in the table, for messages.
        schema: where each variable stands in an encoded record.
        usable: columns that could be read.
        problems: what was found so far; grows.
    """
    _check_slides(entries, problems)
    _check_spellings(entries, problems)
    if "fold" in usable:
        _check_folds(entries, problems)
    rows_of: dict[str, list[_Row]] = {}
    for entry, row in zip(entries, rows, strict=True):
        if entry.patient_id:
            rows_of.setdefault(entry.patient_id, []).append(_Row(entry, row))
    for group in rows_of.values():
        if len(group) > 1:
            _check_patient(group, schema, problems)


def canonical(patient_id: str) -> str:
    """What is left of an identifier without case, spaces, leading zeros of its numbers and forms of letters and dashes.

    Signs that nobody sees go too, and the ``.0`` that programs append to a number that they take for a measurement.

    Example:
        >>> canonical("P 007") == canonical("p7") and canonical("17.0") == canonical("17")
        True
    """
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", patient_id).casefold())
    seen = "".join(_DASH if _is_dash(sign) else sign for sign in plain if unicodedata.category(sign) not in _UNSEEN)
    return _LEADING_ZEROS.sub("", _POINT_ZERO.sub("", "".join(seen.split())))


def _is_dash(sign: str) -> bool:
    return sign == _MINUS or unicodedata.category(sign) == "Pd"


def _check_slides(entries: Sequence[SlideEntry], problems: Problems) -> None:
    """Each slide file stands in one row, under whatever name."""
    first_of: dict[str, SlideEntry] = {}
    for entry in entries:
        first = first_of.setdefault(os.path.realpath(entry.path), entry)  # two links to one file are one slide
        if entry.slide and first is not entry:
            where = f"is in row {first.row} already; remove one row."
            told = f'found "{entry.slide}", which {where}'
            if first.slide != entry.slide:
                where = f"is in row {first.row} already, under another name or by a link; remove one row."
                told = f'found "{entry.slide}", which is in row {first.row} already as "{first.slide}"; remove one row.'
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
                f"as in row {first.row}, from which it differs in case, spaces, leading zeros, a final .0, invisible "
                "signs or forms of letters and dashes alone; write it the same way if it is the same patient, else "
                "rename one."
            )
            told = f'found "{entry.patient_id}", expected "{first.patient_id}" {cure}'
            problems.add(entry.row, "patient_id", told, f"expected the identifier {cure}")


def _check_folds(entries: Sequence[SlideEntry], problems: Problems) -> None:
    """All rows have a fold, or none has."""
    empty = [entry.row for entry in entries if entry.fold is None and not problems.touch(entry.row, "fold")]
    if empty and any(entry.fold is not None or problems.touch(entry.row, "fold") for entry in entries):
        count = "1 cell is" if len(empty) == 1 else f"{len(empty)} cells are"
        summary = f"{count} empty ({rows_listed(empty)}); give every row a fold, or none."
        problems.add_rows(summary, "fold", empty, "expected a fold, because other rows have one; fill in the cell.")


def _check_patient(rows: Sequence[_Row], schema: ClinicalSchema, problems: Problems) -> None:
    """The rows of one patient say the same as the first of them that says something."""
    _compare(rows, "label", [row.entry.label for row in rows], problems)
    _compare(rows, "fold", [row.entry.fold for row in rows], problems)
    records = np.stack([row.entry.clinical for row in rows])
    same = (records == records[0]) | (np.isnan(records) & np.isnan(records[0]))
    for variable in schema.variables:
        place = schema.slices[variable.name]
        if not same[:, place].all():
            _compare(rows, variable.name, [_comparable(record[place]) for record in records], problems)
        elif isinstance(variable, CategoricalVariable) and variable.other and records[0, place.stop - 1] == 1:
            # Two levels that the schema does not know are one number, and yet not the same.
            texts = [folded(as_text(row.table.cells.get(variable.name))) for row in rows]
            _compare(rows, variable.name, texts, problems)


def _comparable(numbers: np.ndarray) -> tuple[float | None, ...]:
    """Encoded numbers such that missing ones equal each other."""
    return tuple(None if np.isnan(number) else float(number) for number in numbers)


def _compare(rows: Sequence[_Row], column: str, values: Sequence[object], problems: Problems) -> None:
    """Note each value that is not the first one; cells with a problem and values that are None say nothing.

    Args:
        rows: of one patient.
        column: where the values stand.
        values: of each row, what is compared.
        problems: what was found so far; grows.
    """
    said = [
        (row, value)
        for row, value in zip(rows, values, strict=True)
        if value is not None and not problems.touch(row.number, column)
    ]
    for row, value in said[1:]:
        first, other = said[0]
        if value != other:  # and nobody knows which of the two is right
            place = f"row {first.number}, which is the same patient; make them agree."
            told = f"found {row.shown(column)} here and {first.shown(column)} in {place}"
            problems.add(row.number, column, told, f"does not agree with {place}")
