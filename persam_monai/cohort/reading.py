# SPDX-License-Identifier: Apache-2.0
"""From the cells of a cohort table to slide entries, with everything wrong in one report."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from persam_monai.clinical import CategoricalVariable, ClinicalSchema, is_missing, parse_number, shown
from persam_monai.clinical.cells import CellError, is_doubtful, tidy
from persam_monai.cohort.codes import count_codes
from persam_monai.cohort.columns import check_columns
from persam_monai.cohort.consistency import check_consistency
from persam_monai.cohort.decimals import decide_decimal
from persam_monai.cohort.entry import SlideEntry, parse_fold
from persam_monai.cohort.problems import Problems
from persam_monai.cohort.report import raise_problems
from persam_monai.cohort.tables import CellFault, Table, TableRow
from persam_monai.cohort.tables.table import ERROR_CURE, as_text, identifier_fault
from persam_monai.errors import did_you_mean
from persam_monai.slide_files import slide_path

logger = logging.getLogger(__name__)

_COARSEST = 10  # µm per pixel: coarser than any scan, so that 20 and 40 can only be magnifications
# What spreadsheets in any language write into text files in place of a value: #REF!, #BEZUG!, #NAME?, #DIV/0!
_ERROR_VALUE = re.compile(r"#\w[\w/]*[!?]")


def read_entries(
    table: Table,
    schema: ClinicalSchema,
    require_labels: bool = True,
    require_slides: bool = True,
    problems_file: Path | None = None,
) -> tuple[tuple[SlideEntry, ...], dict[str, int]]:
    """Validate a table.

    Args:
        table: its cells.
        schema: the clinical variables, which are columns, and the classes.
        require_labels: whether each row must have a label; otherwise the column, or a cell, may be absent.
        require_slides: whether the slide files must be there.
        problems_file: gets the list of all problems, without the cells.

    Returns:
        The rows, and of each variable in how many cells a missing code stands, where there are any.

    Raises:
        UserError: with all problems of the table.
    """
    problems = Problems()
    for line, text in table.uneven:
        problems.add(line, None, text)
    columns = check_columns(table, schema, require_labels, problems)
    decimal = decide_decimal(table, schema, columns.usable, problems)
    reader = RowReader(table, schema, columns.usable, require_labels, decimal, problems)
    entries = tuple(reader.read(row) for row in table.rows)
    check_consistency(entries, table.rows, schema, columns.usable, problems)
    if require_slides:
        _check_slide_files(entries, problems)
    raise_problems(table.path, problems, table.columns, problems_file)
    # Only now: the header of a table that has none is the record of a patient.
    if columns.ignored:
        logger.info("%s: columns not in the clinical schema are ignored: %s", table.path, ", ".join(columns.ignored))
    _log_others(entries, schema)
    return entries, count_codes(table.rows, entries, schema, decimal)


class RowReader:
    """Turns rows into entries; a cell with a problem is noted and read as unknown."""

    def __init__(
        self,
        table: Table,
        schema: ClinicalSchema,
        usable: frozenset[str],
        require_labels: bool,
        decimal: Literal[".", ","],
        problems: Problems,
    ) -> None:
        self.folder = table.path.parent
        self.point_only = table.point_only and schema.decimal != ","
        self.schema = schema
        self.usable = usable
        self.require_labels = require_labels
        self.decimal = decimal
        self.problems = problems
        self.variables = [name for name in schema.variable_names if name in usable]

    def read(self, row: TableRow) -> SlideEntry:
        """One row as an entry, with placeholders where a cell has a problem."""
        record = {name: self.sound(row, name) for name in self.variables}
        clinical, faults = self.schema.encode_cells(record, self.decimal)
        for fault in faults:
            # The hint names what is like the cell, and would give it away in the file.
            told = f"found {fault.found}, expected {fault.expected}{fault.hint}"
            self.problems.add(row.line, fault.column, told, f"expected {fault.expected}")
        slide = self.identifier(row, "slide")
        return SlideEntry(
            slide=slide,
            path=slide_path(self.folder / slide) if slide else self.folder,
            patient_id=self.identifier(row, "patient_id"),
            label=self.label(row),
            clinical=clinical,
            mpp=self.mpp(row),
            fold=self.fold(row),
            row=row.line,
        )

    def sound(self, row: TableRow, column: str) -> Any:
        """A cell; None where there is none, or where it has a problem, which is noted."""
        cell = row.cells.get(column) if column in self.usable else None
        if isinstance(cell, str) and _ERROR_VALUE.fullmatch(cell):
            cell = CellFault(shown(cell), ERROR_CURE)
        if isinstance(cell, CellFault):
            told = f"found {cell.found}, expected {cell.expected}"
            self.problems.add(row.line, column, told, f"expected {cell.expected}")
        return None if self.problems.touch(row.line, column) else cell

    def name(self, row: TableRow, column: str) -> str:
        """A cell as text; empty where it is empty or has a problem, which is noted."""
        cell = self.sound(row, column)
        fault = identifier_fault(cell)
        if fault is not None:
            self.problems.add_cell(row.line, column, cell, fault.expected)
            return ""
        return as_text(cell)

    def identifier(self, row: TableRow, column: str) -> str:
        """As :meth:`name`, of a cell that must hold something."""
        text = self.name(row, column)
        if not is_missing(text) and not is_doubtful(text):  # all patients called "unknown" would be one
            return text
        if column in self.usable and not self.problems.touch(row.line, column):
            self.problems.add_cell(row.line, column, row.cells[column], "a value in every row; fill in the cell.")
        return ""

    def label(self, row: TableRow) -> int | None:
        """The label's index, or None."""
        text, classes = self.name(row, "label"), self.schema.classes
        place = _class_of(text, classes)
        if place is not None:
            return place
        if "label" not in self.usable or self.problems.touch(row.line, "label"):
            return None
        if self.require_labels or not is_missing(text):
            empty_allowed = "" if self.require_labels else ", or an empty cell"
            expected = f"one of {', '.join(classes)}{empty_allowed}; correct the cell, or the classes in the schema."
            hint = did_you_mean(text, classes)
            found = f"found {shown(text)}, expected {expected}{hint}"
            self.problems.add(row.line, "label", found, f"expected {expected}")
        return None

    def mpp(self, row: TableRow) -> float | None:
        """Micrometres per pixel, or None."""
        cell = self.sound(row, "mpp")
        if is_missing(cell):
            return None
        try:
            # Nothing separates thousands here, so that a comma can only be the decimal sign.
            written = cell if self.point_only or not isinstance(cell, str) else cell.replace(",", ".")
            mpp = parse_number(written)
        except CellError:
            mpp = 0.0
        if not 0 < mpp < _COARSEST:
            expected = (
                f"micrometres per pixel above 0 and below {_COARSEST}, such as 0.25 (which is not the magnification, "
                "such as 40), or an empty cell; correct the cell."
            )
            self.problems.add_cell(row.line, "mpp", cell, expected)
            return None
        return mpp

    def fold(self, row: TableRow) -> int | None:
        """The table's fold, or None."""
        cell = self.sound(row, "fold")
        if is_missing(cell):
            return None
        fold = parse_fold(as_text(cell))
        if fold is None:
            self.problems.add_cell(row.line, "fold", cell, "a whole number from 0, such as 0 or 4; correct the cell.")
        return fold


def _class_of(text: str, classes: Sequence[str]) -> int | None:
    """Which class a label is, however its accents and spaces are put together; pandas writes 1.0 for the class 1."""
    for spelling in (text, tidy(text), text.removesuffix(".0")):
        for place, name in enumerate(classes):
            if spelling == name or spelling == tidy(name):
                return place
    return None


def _check_slide_files(entries: Sequence[SlideEntry], problems: Problems) -> None:
    """All slide files are there. One message lists those that are not, however many other problems there are."""
    absent = [entry for entry in entries if entry.slide and not os.path.isfile(entry.path)]
    if not absent:
        return
    folder = " (a folder) that is not one DICOM slide"
    listed = [f"\n      row {entry.row}: {entry.path}{folder if os.path.isdir(entry.path) else ''}" for entry in absent]
    cure = "copy the files there or correct the cells, which are paths relative to the table's folder"
    if any("\\" in entry.slide for entry in absent):
        cure += ", with / between folders"
    summary = f"{len(absent)} of {len(entries)} slide files not found; {cure}:{''.join(listed)}"
    kept = f"expected the path of a slide file, relative to the table's folder; it was not found: {cure}."
    problems.add_rows(summary, "slide", [entry.row for entry in absent], kept)


def _log_others(entries: Sequence[SlideEntry], schema: ClinicalSchema) -> None:
    """Say how often ``other: true`` was made use of: a level that was forgotten shows there."""
    for variable in schema.variables:
        if isinstance(variable, CategoricalVariable) and variable.other:
            place = schema.slices[variable.name].stop - 1  # "other" comes last
            rows = sum(bool(entry.clinical[place] == 1) for entry in entries)
            if rows:
                count = "1 row counts" if rows == 1 else f"{rows} rows count"
                logger.info('Column "%s": %s as other, being none of the levels.', variable.name, count)
