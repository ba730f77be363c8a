# SPDX-License-Identifier: Apache-2.0
"""Tables in Excel workbooks, with the row numbers that Excel shows."""

from __future__ import annotations

import re
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import repeat
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import openpyxl

from persam_monai.cohort.tables.formats import format_fault, sections
from persam_monai.cohort.tables.table import ERROR_CURE, CellFault, Table, assemble
from persam_monai.errors import UserError

SHEET = "cohort"
_OLD_FORMAT = b"\xd0\xcf\x11\xe0"  # begins .xls files, and .xlsx files with a password
# What openpyxl raises when parts of a file are damaged or are not there; SyntaxError is XML that cannot be parsed.
_BROKEN = (
    *(BadZipFile, zlib.error, EOFError, RuntimeError),
    *(KeyError, IndexError, ValueError, TypeError, AttributeError, SyntaxError),
)
_STALE = re.compile(rb"""fullCalcOnLoad\s*=\s*["'](?:1|true)["']""")
_FORMULA = re.compile(rb"<(?:\w+:)?f[\s/>]")
_EXACT = 10**15  # Excel keeps 15 digits of a number
_NOT_CALCULATED = CellFault(
    "a formula that was never calculated",
    "a value: open the workbook in Excel and save it, which calculates it, or put the value in place of the formula.",
)


def read_excel(path: Path) -> Table:
    """Read the one sheet that is not empty, or the one called ``cohort``.

    Numbers, truth values and dates stay what they are; text loses the spaces around it. ``#N/A`` is an empty cell.

    Raises:
        UserError: if the file is no workbook, it is not clear which sheet is meant, or the sheet has no rows.
    """
    with path.open("rb") as file:
        if file.read(len(_OLD_FORMAT)) == _OLD_FORMAT:
            raise UserError(
                f"{path}: the workbook has a password or is in Excel's old format; open it in Excel and save it "
                'without a password as "Excel Workbook (.xlsx)".'
            )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of formats and rules that the table does not need; some quote a cell
        try:
            return _read(path)
        except _BROKEN as error:
            raise UserError(
                f"{path}: not a readable Excel workbook ({type(error).__name__}); open it in Excel and save it again, "
                "or give a text table the ending .csv."
            ) from error


def _read(path: Path) -> Table:
    stale, calculates = _calculation(path)
    with ExitStack() as opened:
        values = _open(path, opened, data_only=True)
        name = _choose(path, values)
        rows = _rows(values[name])
        formulas: Iterable[frozenset[int]] = repeat(frozenset())
        if calculates:  # openpyxl hands out either the values or the formulas, so that a second pass is needed
            cells = _rows(_open(path, opened, data_only=False)[name])
            formulas = (frozenset(i for i, cell in enumerate(row) if cell.data_type == "f") for row in cells)
        records = (
            (line, [_cell(cell, index in formula, stale) for index, cell in enumerate(row)])
            for line, (row, formula) in enumerate(zip(rows, formulas, strict=False), start=1)
        )
        return assemble(path, records)


def _open(path: Path, opened: ExitStack, data_only: bool) -> Any:
    """A workbook in read-only mode, which reads as it goes; closed with ``opened``."""
    book = openpyxl.load_workbook(path, read_only=True, data_only=data_only)
    opened.callback(book.close)
    return book


def _rows(sheet: Any, **how: Any) -> Iterator[Sequence[Any]]:
    """Rows of a sheet from the first one, each as long as it has cells."""
    sheet.reset_dimensions()  # what the file says of its size may be a million formatted rows, or wrong
    yield from sheet.iter_rows(**how)


def _calculation(path: Path) -> tuple[bool, bool]:
    """Whether a workbook waits for Excel to calculate it, as programs leave it, and whether it has formulas."""
    with ZipFile(path) as book:  # openpyxl says yes to the first one even where the workbook does not
        names = [name for name in book.namelist() if name.lower().endswith(".xml")]
        stale = any(_STALE.search(book.read(name)) for name in names if name.lower().endswith("workbook.xml"))
        return stale, any(_FORMULA.search(book.read(name)) for name in names if "sheet" in name.lower())


def _choose(path: Path, workbook: Any) -> str:
    """The name of the sheet with the cohort, which is one that a person sees."""
    sheets = [sheet for sheet in workbook.worksheets if sheet.sheet_state == "visible"]
    for sheet in sheets:
        if sheet.title.strip().casefold() == SHEET:
            return str(sheet.title)
    filled = [str(sheet.title) for sheet in sheets if _is_filled(sheet)]
    if len(filled) > 1:
        listed = ", ".join(f'"{title}"' for title in filled)
        raise UserError(
            f"{path}: {len(filled)} sheets are not empty ({listed}); expected one, or one that is called "
            f'"{SHEET}". Rename the sheet with one row per slide to "{SHEET}".'
        )
    if not filled:
        raise UserError(f"{path}: the table is empty; expected a header line and one row per slide.")
    return filled[0]


def _is_filled(sheet: Any) -> bool:
    """Whether a cell of a sheet has something in it."""
    rows = _rows(sheet, values_only=True)
    return any(value is not None and str(value).strip() for row in rows for value in row)


def _cell(cell: Any, formula: bool, stale: bool) -> object:
    """A cell's value, or why there is none.

    Args:
        cell: with the value that was stored.
        formula: whether it is calculated.
        stale: whether the workbook waits for that.
    """
    value, kind = cell.value, cell.data_type
    # Stored text that is empty is a result too, such as that of =IF(A2="","",A2). Workbooks that programs write hold
    # no value in the place of a result, or 0.
    if formula and ((value is None and kind != "str") or (stale and value == 0)):
        return _NOT_CALCULATED
    if kind == "e" and value is not None:
        if value == "#N/A":
            return None
        return CellFault(f"{value}", ERROR_CURE)
    if isinstance(value, str):
        return value.strip()
    if kind == "n" and value is not None:
        return _number(value, cell.number_format)
    return value


def _number(value: Any, form: str) -> object:
    """A number, unless its format shows a person something else."""
    faults = (format_fault(section, value) for section in sections(form, value))
    fault = next((fault for fault in faults if fault is not None), None)
    if fault is not None:
        return fault
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= _EXACT:
        return float(value)  # so that nobody takes it for exact
    return value
