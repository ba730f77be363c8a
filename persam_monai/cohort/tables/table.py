# SPDX-License-Identifier: Apache-2.0
"""A table in memory: columns, and rows that know where they stand in the file."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any

from persam_monai.clinical.cells import tidy
from persam_monai.errors import UserError

_EXACT_DIGITS = 15  # of a number in Excel; an identifier with more of them has been rounded

ERROR_CURE = "a value, and no error of Excel's; correct the formula, or empty the cell."
"""What is expected in place of an error value such as ``#REF!``."""

# 1.23457E+18, as spreadsheets and pandas write a long number into a text file; also with a decimal comma
_SHORTENED = re.compile(r"[0-9]+(?:[.,][0-9]+[eE][+-]|[eE]\+)[0-9]{2,3}")


@dataclass(frozen=True)
class CellFault:
    """Stands in place of a cell that holds no value, such as a formula that was never calculated.

    Args:
        found: what is there, for the screen.
        expected: what should be there and what to do, without the cell's content.
    """

    found: str
    expected: str


@dataclass(frozen=True)
class TableRow:
    """Cells of one row.

    Args:
        line: the row's number as a text editor or Excel shows it, the header being 1; in Parquet, where there is no
            header, the record's number from 1.
        cells: column name to cell: text without surrounding spaces, or as Excel and Parquet hold it, an int, float,
            bool, date or ``None``; a :class:`CellFault` where there is no value to be had.
    """

    line: int
    cells: dict[str, Any] = field(repr=False)

    def text(self, column: str) -> str:
        """A cell as text, see :func:`as_text`; empty when the table has no such column."""
        return as_text(self.cells.get(column))


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        path: the file.
        columns: names in the header, as they stand there (perhaps repeated), without surrounding spaces.
        rows: the rows that are not empty and as long as the header.
        point_only: whether commas stand between the cells, so that numbers can have none.
        uneven: of the rows that are not as long as the header, the number and what is wrong.
        faults: of columns that cannot be read at all, what was found and what to do.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    point_only: bool = False
    uneven: tuple[tuple[int, str], ...] = ()
    faults: dict[str, CellFault] = field(default_factory=dict)


def as_text(cell: object) -> str:
    """A cell as the text that a person sees there: whole numbers have no decimal point, an empty cell is ``""``.

    Args:
        cell: text, int, float, bool, date or None; what holds no value is empty too.
    """
    if cell is None or isinstance(cell, CellFault):
        return ""
    if isinstance(cell, float):
        if cell != cell:
            return ""
        return str(int(cell)) if cell.is_integer() else repr(cell)
    if isinstance(cell, bool):
        return str(cell).upper()  # as Excel shows it and writes it to text files
    return str(cell)


def identifier_fault(cell: object) -> CellFault | None:
    """Why a cell cannot name a patient, a slide or a label although something stands in it, or None."""
    if isinstance(cell, date | time | timedelta):
        cure = "text: the cell holds a date or time; format the column as text, then type the cell again."
        return CellFault(f"{cell}", cure)
    if isinstance(cell, str) and any(unicodedata.category(sign) == "Cc" for sign in cell):
        return CellFault(cell, "text in one line; take line breaks, tabs and other control characters out of the cell.")
    if isinstance(cell, str) and _SHORTENED.fullmatch(cell):
        cure = (
            "text: a spreadsheet has taken the identifier for a number here and rounded it, so that different ones may "
            "look the same; format the column as text, then bring the identifiers over again."
        )
        return CellFault(cell, cure)
    if isinstance(cell, float) and abs(cell) >= 10**_EXACT_DIGITS:
        cure = (
            f"text: numbers have been rounded to {_EXACT_DIGITS} digits here; format the column as text, then bring "
            "the identifiers over again."
        )
        return CellFault(as_text(cell), cure)
    return None


def assemble(path: Path, records: Iterable[tuple[int, Sequence[Any]]], **more: Any) -> Table:
    """A table from the records of a sheet, of which the first is the header.

    Records may be longer or shorter than the header: cells under no name are left out, cells that are lacking are
    empty.

    Args:
        path: the file.
        records: number and cells of every row, empty ones too.
        more: further arguments of :class:`Table`.

    Raises:
        UserError: if there is no header, or no row below it.
    """
    filled = ((line, cells) for line, cells in records if any(cell not in (None, "") for cell in cells))
    _, header = next(filled, (0, ()))
    names = tuple(tidy(cell.found if isinstance(cell, CellFault) else as_text(cell)) for cell in header)
    named = [(index, name) for index, name in enumerate(names) if name]
    rows = []
    for line, cells in filled:
        row = {name: cells[index] if index < len(cells) else None for index, name in named}
        if any(cell not in (None, "") for cell in row.values()):
            rows.append(TableRow(line, row))
    check_filled(path, names, rows)
    return Table(path, names, tuple(rows), **more)


def check_filled(path: Path, header: Sequence[str], rows: Sequence[object]) -> None:
    """Refuse a table in which nobody stands.

    Raises:
        UserError: if there is no header, or no row below it.
    """
    if not header:
        raise UserError(f"{path}: the table is empty; expected a header line and one row per slide.")
    if not rows:
        raise UserError(f"{path}: the table has a header and no rows; expected one row per slide.")
