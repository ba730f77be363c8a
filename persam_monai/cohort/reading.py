# SPDX-License-Identifier: Apache-2.0
"""From the cells of a cohort table to slide entries, with everything that is wrong in one report."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from pathlib import Path

import numpy as np

from persam_monai.clinical import RESERVED_COLUMNS, CategoricalVariable, ClinicalSchema, NumericVariable
from persam_monai.clinical.cells import (
    CellError,
    as_text,
    check_value,
    is_ambiguous,
    is_doubtful,
    is_missing,
    parse_number,
    shown,
    tidy,
)
from persam_monai.cohort.problems import Problems, counted, rows_listed
from persam_monai.cohort.tables import Row, Table
from persam_monai.errors import did_you_mean
from persam_monai.slide_files import slide_path

logger = logging.getLogger(__name__)

_COARSEST = 10  # µm per pixel: coarser than any scan, so that 20 and 40 can only be magnifications
_EXACT = 1e15  # Excel keeps 15 digits of a number; an identifier with more of them has been rounded
# 1.23457E+18, as spreadsheets and pandas write a long number into a text file; also with a decimal comma
_SHORTENED = re.compile(r"[0-9]+(?:[.,][0-9]+[eE][+-]|[eE]\+)[0-9]{2,3}")
_FOLD = re.compile(r"([0-9]{1,6})(?:[.,]0)?")  # pandas writes 1.0 when cells of the column are empty
_LEADING_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")
_POINT_ZERO = re.compile(r"(?<=[0-9])\.0$")
_DASHES = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"))


@dataclass(frozen=True)
class SlideEntry:
    """A slide and what is known of its patient.

    The printed form leaves out the patient and the slide's name: entries may end in logs.

    Args:
        slide: the cell's text; the slide's name in all outputs.
        path: the slide file, absolute; of a slide of several files, the one by which it is opened.
        patient_id: identifier of the patient, who may have several slides.
        label: index into the classes, or None when unknown.
        clinical: encoded record, float32 ``[schema.size]``, NaN for missing; the same for all slides of a patient.
        mpp: micrometres per pixel that override the slide's own, or None.
        fold: the table's fold, or None.
        row: the row's number in the table; the header is row 1 (a Parquet file has none, and counts records from 1).
    """

    slide: str = field(repr=False)
    path: Path = field(repr=False)
    patient_id: str = field(repr=False)
    label: int | None = field(repr=False)
    clinical: np.ndarray = field(repr=False, compare=False)
    mpp: float | None
    fold: int | None
    row: int


def parse_fold(text: str) -> int | None:
    """The fold that a text says, from 0; None if it is no whole number.

    Example:
        >>> [parse_fold(text) for text in ("2", "2.0", "2.5", "")]
        [2, 2, None, None]
    """
    match = _FOLD.fullmatch(text)
    return int(match[1]) if match else None


def read_entries(
    table: Table,
    schema: ClinicalSchema,
    require_labels: bool = True,
    require_slides: bool = True,
    decimal: str | None = None,
    problems_file: Path | None = None,
) -> tuple[SlideEntry, ...]:
    """Validate a table.

    Args:
        table: its cells.
        schema: the clinical variables, which are columns, and the classes.
        require_labels: whether each row must have a label; otherwise the column, or a cell, may be absent.
        require_slides: whether the slide files must be there.
        decimal: the table's decimal sign, if it is another one than the schema's.
        problems_file: gets the list of all problems, without the cells.
    """
    needed = ["patient_id", "slide", *(["label"] if require_labels else []), *schema.variable_names]
    reader = _Reader(table, schema, needed, {*RESERVED_COLUMNS, *needed}, decimal)
    entries = tuple(reader.read(row) for row in table.rows)
    problems = reader.problems
    if decimal is None and schema.decimal is None and schema.thousands is None:
        _check_signs(table, schema, problems)
    _check_slides(entries, require_slides, problems)
    _check_identifiers(entries, problems)
    if "fold" in reader.usable:
        _check_folds(entries, problems)
    _check_patients(entries, table.rows, schema, problems)
    problems.raise_together(table.path, problems_file)
    # Only now: the header of a table that has none is the record of a patient.
    if reader.ignored:
        logger.info("%s: columns not in the clinical schema are ignored: %s", table.path, ", ".join(reader.ignored))
    for variable in schema.variables:
        if isinstance(variable, CategoricalVariable) and variable.other:
            last = schema.slices[variable.name].stop - 1
            rows = sum(bool(entry.clinical[last] == 1) for entry in entries)
            if rows:  # a level that was forgotten shows here
                logger.info('Column "%s": %s counted as other.', variable.name, counted(rows, "cell"))
    return entries


def read_slides(table: Table, require_slides: bool = True, problems_file: Path | None = None) -> tuple[SlideEntry, ...]:
    """The slides of a table, each as a patient of its own, whatever the columns but ``slide`` and ``mpp`` hold."""
    reader = _Reader(table, ClinicalSchema.without_record(), ["slide"], {"slide", "mpp"}, None)
    once: dict[tuple[str, str], SlideEntry] = {}
    for row in table.rows:
        entry = reader.read(row)
        once.setdefault((entry.slide or f"row {row.line}", row.text("mpp")), entry)
    entries = tuple(once.values())
    _check_slides(entries, require_slides, reader.problems)
    reader.problems.raise_together(table.path, problems_file)
    return entries


class _Reader:
    """Turns rows into entries; a cell with a problem is noted and read as unknown."""

    def __init__(
        self, table: Table, schema: ClinicalSchema, needed: Sequence[str], known: set[str], decimal: str | None
    ) -> None:
        self.folder = table.path.parent
        self.schema = schema
        self.rules = schema.rules(decimal)
        self.needed = needed
        self.problems = Problems(table.columns)
        for line, cells in table.uneven:
            text = f"expected {len(table.columns)} cells as in the header; a cell that holds the separator needs quotes"
            self.problems.add(line, None, text, counted(cells, "cell"))
        counts = Counter(column for column in table.columns if column)
        self.usable = {column for column in known if counts[column] == 1}
        self.ignored = [column for column in counts if column not in known]
        self._check_columns(counts, known)

    def _check_columns(self, counts: Counter[str], known: set[str]) -> None:
        missing = [column for column in self.needed if column not in counts]
        for column in missing:
            hint = did_you_mean(column, self.ignored)
            present = f" The table has {', '.join(counts)}." if column == missing[0] else ""  # once is enough
            if len(missing) == len(self.needed) > 1:
                present += " Does the first row hold the names of the columns?"
            cure = "Rename that column" if hint else "Add the column"
            gaps = ", with empty cells where the value is not known" if column in self.schema.slices else ""
            self.problems.add(None, column, f"is missing in the header.{hint} {cure}{gaps}.{present}")
        for column, count in counts.items():
            lower = column.lower()
            if column in known and count > 1:
                self.problems.add(None, column, f"is in the header {count} times; rename or remove the others.")
            # Without this, a column "Fold" would be ignored and the patients split at random.
            elif column not in known and lower in known and lower in RESERVED_COLUMNS and lower not in counts:
                self.problems.add(None, column, f'did you mean "{lower}"? Rename the column, or remove it.')

    def read(self, row: Row) -> SlideEntry:
        """One row as an entry, with placeholders where a cell has a problem."""
        record = {name: row.cells.get(name) for name in self.schema.slices if name in self.usable}
        clinical, faults = self.schema.encode_cells(record, self.rules)
        for name, fault in faults.items():
            self.problems.add(row.line, name, f"expected {fault.expected}.", shown(record[name]) + fault.hint)
        slide = self.identifier(row, "slide")
        return SlideEntry(
            slide=slide,
            path=slide_path(self.folder / slide) if slide else self.folder,
            patient_id=self.identifier(row, "patient_id") if "patient_id" in self.needed else f"row {row.line}",
            label=self.label(row),
            clinical=clinical,
            mpp=self.mpp(row),
            fold=self.fold(row),
            row=row.line,
        )

    def cell(self, row: Row, column: str) -> object:
        """A cell; None where there is no such column."""
        return row.cells.get(column) if column in self.usable else None

    def name(self, row: Row, column: str) -> str:
        """A cell as text; empty where it is empty or has a problem, which is noted."""
        cell = self.cell(row, column)
        rounded = (isinstance(cell, str) and _SHORTENED.fullmatch(cell)) or (
            isinstance(cell, int | float) and abs(cell) >= _EXACT
        )
        if rounded:
            expected = "text: a spreadsheet has rounded the identifier, so that different ones may look the same"
        elif isinstance(cell, date | time | timedelta):
            expected = "text, no date or time"
        elif isinstance(cell, str) and any(unicodedata.category(sign) == "Cc" for sign in cell):
            expected = "text in one line, without line breaks, tabs and other control characters"
        else:
            try:
                check_value(cell)
                return as_text(cell)
            except CellError as error:
                expected = error.expected
        self.problems.add(row.line, column, f"expected {expected}; format the column as text.", shown(as_text(cell)))
        return ""

    def identifier(self, row: Row, column: str) -> str:
        """As :meth:`name`, of a cell that must hold something."""
        text = self.name(row, column)
        if not is_missing(text) and not is_doubtful(text):  # all patients called "unknown" would be one
            return text
        if column in self.usable and not self.problems.has(row.line, column):
            self.problems.add(row.line, column, "expected a value in every row; fill in the cell.", _cell(row, column))
        return ""

    def label(self, row: Row) -> int | None:
        """The label's index, or None."""
        text, classes = self.name(row, "label"), self.schema.classes
        for spelling in (text, tidy(text), text.removesuffix(".0")):  # pandas writes 1.0 for the class 1
            for index, name in enumerate(classes):
                if spelling == name or spelling == tidy(name):
                    return index
        if "label" not in self.usable or self.problems.has(row.line, "label"):
            return None
        required = "label" in self.needed
        if required or not is_missing(text):
            expected = f"expected one of {', '.join(classes)}{'' if required else ', or an empty cell'}"
            found = _cell(row, "label") + did_you_mean(text, classes)
            self.problems.add(row.line, "label", f"{expected}; correct the cell, or the classes in the schema.", found)
        return None

    def mpp(self, row: Row) -> float | None:
        """Micrometres per pixel, or None."""
        cell = self.cell(row, "mpp")
        if is_missing(cell):
            return None
        try:
            # Nothing separates thousands here, so that a comma can only be the decimal sign.
            mpp = parse_number(cell.replace(",", ".") if isinstance(cell, str) else cell)
        except CellError:
            mpp = 0.0
        if 0 < mpp < _COARSEST:
            return mpp
        expected = f"expected micrometres per pixel above 0 and below {_COARSEST}, such as 0.25, or an empty cell"
        self.problems.add(row.line, "mpp", f"{expected} (40 is a magnification).", _cell(row, "mpp"))
        return None

    def fold(self, row: Row) -> int | None:
        """The table's fold, or None."""
        cell = self.cell(row, "fold")
        fold = parse_fold(as_text(cell))
        if fold is None and not is_missing(cell):
            self.problems.add(row.line, "fold", "expected a whole number from 0, such as 0 or 4.", _cell(row, "fold"))
        return fold


def _cell(row: Row, column: str) -> str:
    """A cell as the screen shows it."""
    text = row.text(column)
    return shown(text) if text else "an empty cell"


def _check_signs(table: Table, schema: ClinicalSchema, problems: Problems) -> None:
    """Columns of text whose every sign may be a decimal one or separate thousands, as of ``1.234`` and ``1,234``."""
    for variable in schema.variables:
        if not isinstance(variable, NumericVariable):
            continue
        cells = [(row.line, row.cells.get(variable.name)) for row in table.rows]
        signed = [
            (line, cell)
            for line, cell in cells
            if isinstance(cell, str) and not variable.is_missing(cell) and ("." in cell or "," in cell)
        ]
        if signed and all(is_ambiguous(cell) for _, cell in signed):
            line, cell = signed[0]
            expected = (
                f"expected a sign that can be understood: no cell of the column tells a decimal sign from one between "
                f'thousands (such cells: {len(signed)}). Declare decimal: "." or decimal: ",", and thousands if it is '
                "that, in the schema."
            )
            problems.add(line, variable.name, expected, shown(cell))


def _check_slides(entries: Sequence[SlideEntry], require_slides: bool, problems: Problems) -> None:
    """All slide files are there, and each is in one row, under whatever name."""
    first_of: dict[str, SlideEntry] = {}
    for entry in entries:
        if not entry.slide:
            continue
        if require_slides and not os.path.isfile(entry.path):
            folder = " (a folder, and not one DICOM slide)" if os.path.isdir(entry.path) else ""
            cure = "copy the file there or correct the cell, which is a path relative to the table's folder"
            cure += ", with / between folders" if "\\" in entry.slide else ""
            expected = f"expected the path of a slide file, which was not found; {cure}."
            problems.add(entry.row, "slide", expected, f"{entry.path}{folder}")
        first = first_of.setdefault(os.path.realpath(entry.path), entry)  # two links to one file are one slide
        if first is not entry:
            expected = (
                f"expected each slide in one row; this one is in row {first.row} already, remove one of the rows."
            )
            problems.add(entry.row, "slide", expected, shown(entry.slide))


def canonical(patient_id: str) -> str:
    """What is left of an identifier without case, spaces, leading zeros of its numbers and forms of letters and dashes.

    Signs that nobody sees go too, and the ``.0`` that programs append to a number that they take for a measurement.

    Example:
        >>> canonical("P 007") == canonical("p7") and canonical("17.0") == canonical("17")
        True
    """
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", patient_id).casefold()).translate(_DASHES)
    seen = "".join(sign for sign in plain if unicodedata.category(sign) not in ("Cf", "Cc"))
    return _LEADING_ZEROS.sub("", _POINT_ZERO.sub("", "".join(seen.split())))


def _check_identifiers(entries: Iterable[SlideEntry], problems: Problems) -> None:
    """A patient has one identifier: written in two ways, he or she would be on two sides of a split."""
    first_of: dict[str, SlideEntry] = {}
    for entry in entries:
        first = first_of.setdefault(canonical(entry.patient_id), entry)
        if entry.patient_id and first.patient_id != entry.patient_id:
            expected = (
                f"expected the identifier of row {first.row}, from which it differs in case, spaces, leading zeros or "
                "forms of letters alone; write it the same way if it is the same patient, else rename one."
            )
            problems.add(entry.row, "patient_id", expected, f"{shown(entry.patient_id)}, {shown(first.patient_id)}")


def _check_folds(entries: Sequence[SlideEntry], problems: Problems) -> None:
    """All rows have a fold, or none has."""
    empty = [entry.row for entry in entries if entry.fold is None and not problems.has(entry.row, "fold")]
    if empty and len(empty) < len(entries):
        expected = (
            f"expected a fold in every row, or in none; {counted(len(empty), 'cell')} empty ({rows_listed(empty)})."
        )
        problems.add(None, "fold", expected)


def _check_patients(
    entries: Sequence[SlideEntry], rows: Sequence[Row], schema: ClinicalSchema, problems: Problems
) -> None:
    """The rows of one patient say the same: label, fold and record belong to the patient."""
    rows_of: dict[str, list[tuple[SlideEntry, Row]]] = {}
    for entry, row in zip(entries, rows, strict=True):
        if entry.patient_id:
            rows_of.setdefault(entry.patient_id, []).append((entry, row))
    for group in rows_of.values():
        if len(group) == 1:
            continue
        _compare([(row, entry.label) for entry, row in group], "label", problems)
        _compare([(row, entry.fold) for entry, row in group], "fold", problems)
        for variable in schema.variables:
            here = schema.slices[variable.name]
            _compare([(row, repr(entry.clinical[here].tolist())) for entry, row in group], variable.name, problems)


def _compare(values: Sequence[tuple[Row, object]], column: str, problems: Problems) -> None:
    """Note each value that is not the first one; cells with a problem and values that are None say nothing."""
    known = [(row, value) for row, value in values if value is not None and not problems.has(row.line, column)]
    for row, value in known[1:]:
        first, expected = known[0]
        if value != expected:  # and nobody knows which of the two is right
            text = f"expected the same as in row {first.line}, which is the same patient; make them agree."
            problems.add(row.line, column, text, f"{_cell(row, column)} here and {_cell(first, column)} there")
