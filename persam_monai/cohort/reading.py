# SPDX-License-Identifier: Apache-2.0
"""From the text of a cohort table to slide entries, with everything wrong in one report."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from pathlib import Path

from persam_monai.clinical import RESERVED_COLUMNS, ClinicalSchema, is_missing, parse_number, shown
from persam_monai.clinical.cells import CellError
from persam_monai.cohort.consistency import check_consistency
from persam_monai.cohort.entry import SlideEntry
from persam_monai.cohort.problems import Problems
from persam_monai.cohort.table import Table, TableRow
from persam_monai.errors import did_you_mean, raise_together

logger = logging.getLogger(__name__)

_FOLD = re.compile(r"[0-9]{1,6}")


def read_entries(table: Table, schema: ClinicalSchema, require_labels: bool) -> tuple[SlideEntry, ...]:
    """Validate a table.

    Args:
        table: cells as text.
        schema: the clinical variables, which are columns, and the classes.
        require_labels: whether each row must have a label; otherwise the column, or a cell, may be absent.

    Raises:
        UserError: with all problems of the table.
    """
    problems = Problems()
    usable = _check_columns(table, schema, require_labels, problems)
    reader = _RowReader(table.path.parent, schema, usable, require_labels, problems)
    entries = tuple(reader.read(row) for row in table.rows)
    check_consistency(entries, schema, usable, problems)
    # Missing slide files stand in one line, so that all of them are listed however many other problems there are.
    missing = _missing_slides(entries) if "slide" in usable else []
    raise_together(f"{table.path}: the cohort table needs correcting", [*missing, *problems.lines()])
    return entries


def _check_columns(table: Table, schema: ClinicalSchema, require_labels: bool, problems: Problems) -> frozenset[str]:
    """Report missing, repeated and doubtful columns; return those whose cells can be read."""
    counts = Counter(column for column in table.columns if column)
    needed = ["patient_id", "slide", *(["label"] if require_labels else []), *schema.variable_names]
    known = {*RESERVED_COLUMNS, *schema.variable_names}
    present = ", ".join(counts)
    for column in needed:
        if column not in counts:
            hint = did_you_mean(column, [name for name in counts if name not in known])
            gaps = ", and leave its cells empty where the value is not known" if column in schema.slices else ""
            cure = f"{hint} Rename that column." if hint else f" Add the column{gaps}."
            problems.add(None, column, f"is missing; the table has {present}.{cure}")
    for column, count in counts.items():
        if count > 1:
            problems.add(None, column, f"stands {count} times in the header; rename or remove the others.")
    ignored = []
    for column in counts:
        if column in known:
            continue
        # Without this, a column "Fold" would be passed over and the patients split at random.
        if column.lower() in RESERVED_COLUMNS and column.lower() not in counts:
            problems.add(None, column, f'did you mean "{column.lower()}"? Rename the column, or remove it.')
        else:
            ignored.append(column)
    if ignored:
        logger.info("%s: columns not in the clinical schema are ignored: %s", table.path, ", ".join(ignored))
    return frozenset(column for column, count in counts.items() if count == 1 and column in known)


class _RowReader:
    """Turns rows into entries; a cell with a problem is noted and read as unknown."""

    def __init__(
        self, folder: Path, schema: ClinicalSchema, usable: frozenset[str], require_labels: bool, problems: Problems
    ) -> None:
        self.folder = folder
        self.schema = schema
        self.usable = usable
        self.require_labels = require_labels
        self.problems = problems
        self.variables = [name for name in schema.variable_names if name in usable]

    def read(self, row: TableRow) -> SlideEntry:
        clinical, faults = self.schema.encode_cells({name: row.cells[name] for name in self.variables})
        for fault in faults:
            self.problems.add(row.line, fault.column, f"found {fault.found}, expected {fault.expected}")
        slide = self.text(row, "slide")
        return SlideEntry(
            slide=slide,
            path=Path(
                os.path.abspath(self.folder / slide)
            ),  # not resolve(): readers look at a link's name, not its target's
            patient_id=self.text(row, "patient_id"),
            label=self.label(row),
            clinical=clinical,
            mpp=self.mpp(row),
            fold=self.fold(row),
            row=row.line,
        )

    def text(self, row: TableRow, column: str) -> str:
        if column not in self.usable:
            return ""
        cell = row.cells[column]
        if is_missing(cell):
            self.problems.add(row.line, column, f"found {shown(cell)}, expected a value in every row.")
            return ""
        return cell

    def label(self, row: TableRow) -> int | None:
        if "label" not in self.usable:
            return None
        cell, classes = row.cells["label"], self.schema.classes
        if cell in classes:
            return classes.index(cell)
        if self.require_labels or not is_missing(cell):
            empty_allowed = "" if self.require_labels else ", or an empty cell"
            expected = f"one of {', '.join(classes)}{empty_allowed}.{did_you_mean(cell, classes)}"
            self.problems.add(row.line, "label", f"found {shown(cell)}, expected {expected}")
        return None

    def mpp(self, row: TableRow) -> float | None:
        if "mpp" not in self.usable or is_missing(row.cells["mpp"]):
            return None
        try:
            mpp = parse_number(row.cells["mpp"])
        except CellError:
            mpp = 0.0
        if mpp <= 0:
            self.problems.add(
                row.line,
                "mpp",
                f"found {shown(row.cells['mpp'])}, expected micrometres per pixel, such as 0.25, or an empty cell.",
            )
            return None
        return mpp

    def fold(self, row: TableRow) -> int | None:
        if "fold" not in self.usable or is_missing(row.cells["fold"]):
            return None
        if not _FOLD.fullmatch(row.cells["fold"]):
            self.problems.add(
                row.line, "fold", f"found {shown(row.cells['fold'])}, expected a whole number from 0, such as 0 or 4."
            )
            return None
        return int(row.cells["fold"])


def _missing_slides(entries: tuple[SlideEntry, ...]) -> list[str]:
    """One message that lists every slide file that is not there."""
    absent = [entry for entry in entries if entry.slide and not os.path.isfile(entry.path)]
    if not absent:
        return []
    listed = [
        f"\n      row {entry.row}: {entry.path}{' (a folder)' if os.path.isdir(entry.path) else ''}" for entry in absent
    ]
    cure = "copy the files there or correct the cells, which are paths relative to the table's folder"
    return [f'column "slide": {len(absent)} of {len(entries)} slide files not found; {cure}:{"".join(listed)}']
