# SPDX-License-Identifier: Apache-2.0
"""Tables as people keep them: CSV text, Excel workbooks, Parquet files, read into rows that know their number."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq

from persam_monai.clinical.cells import as_text, tidy
from persam_monai.errors import UserError, did_you_mean

SHEET = "cohort"
"""The sheet that is read of a workbook with several."""

_STEM = "cohort"
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
# Excel's own note to itself in the first line of a file, which says what separates the cells.
_NOTE = re.compile(r'"?sep=(.)"?[ \t]*', re.IGNORECASE)
_PERCENT = re.compile(r"^[^\"]*%")  # a number format that shows 100 times what is stored


@dataclass(frozen=True)
class Row:
    """Cells of one row.

    Args:
        line: the row's number as a text editor or Excel shows it, the header being 1; in Parquet, where there is no
            header, the record's number from 1.
        cells: column name to cell: text without surrounding spaces, or as Excel and Parquet hold it, an int, float,
            bool, date or ``None``.
    """

    line: int
    cells: dict[str, Any] = field(repr=False)

    def text(self, column: str) -> str:
        """A cell as text; empty when the table has no such column."""
        return as_text(self.cells.get(column))


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        path: the file.
        columns: names in the header, as they are there (perhaps repeated), without surrounding spaces.
        rows: those that are not empty and as long as the header.
        uneven: of the rows that are not as long as the header, the number and how many cells they have.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    uneven: tuple[tuple[int, int], ...] = ()


def find_table(folder: Path, table: str | Path | None = None) -> Path:
    """The cohort table of a folder.

    Args:
        folder: the dataset folder.
        table: name of the table in the folder, or its path; ``None``: the one ``cohort.*`` that there is.

    Raises:
        UserError: if the folder or the table is missing, or there are several tables.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected the dataset folder (--dataset_dir names it).")
    if table is not None:
        return folder / table
    found = sorted(file for file in folder.iterdir() if file.name in TABLE_NAMES)
    if not found:
        raise UserError(
            f"{folder}: found no cohort table, expected one of {', '.join(TABLE_NAMES)}. Put it there, or name it with "
            "--table."
        )
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise UserError(
            f"{folder}: found {len(found)} cohort tables ({names}); say which with --table {found[0].name}."
        )
    return found[0]


def read_table(path: str | Path) -> Table:
    """Read a table; the file's ending says how.

    Raises:
        UserError: if the file is missing, unreadable, of an unknown kind, not what its ending says, or without rows.
    """
    path = Path(path)
    if not path.is_file():
        names = [file.name for file in path.parent.glob("*") if file.suffix.lower() in _READERS]
        raise UserError(f"{path}: no such file; expected the cohort table.{did_you_mean(path.name, names)}")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(
            f'{path}: found the ending "{path.suffix}", expected {", ".join(_READERS)}; save the table as one of them '
            '(in Excel "CSV UTF-8" or "Excel Workbook").'
        )
    try:
        table = reader(path)
    except OSError as error:
        raise UserError(f"{path}: the table cannot be read: {error.strerror or error}.") from error
    if not table.rows and not table.uneven:
        raise UserError(f"{path}: the table is empty; expected a header line and one row per slide.")
    return table


def _read_text(path: Path) -> Table:
    """A table in UTF-8 text, with or without a byte order mark."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # UTF-16 without a mark is valid UTF-8, full of zeros
        raise UserError(
            f'{path}: the table is not UTF-8 text; save it again as "CSV UTF-8" (an Excel workbook is called .xlsx, a '
            "Parquet file .parquet)."
        )
    first = text.split("\n", 1)[0].rstrip("\r")
    note = _NOTE.fullmatch(first)
    if note and note[1] not in _SEPARATORS:
        expected = ", ".join(_SEPARATORS.values())
        raise UserError(f'{path}, row 1: found "{first}", expected one of {expected} between the cells.')
    separator = note[1] if note else max(_SEPARATORS, key=lambda sign: _header_fits(first, sign))  # of equals the first
    records = (record for record in _records(path, text, separator) if not (note and record[0] == 1))
    return _assemble(path, records)


def _header_fits(header: str, separator: str) -> tuple[bool, int]:
    """Whether a header names slides or patients, and how many columns it has, if this separates its cells."""
    names = {name.strip() for name in next(csv.reader([header], delimiter=separator), [])}
    return bool({"patient_id", "slide"} & names), len(names)


def _records(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Each record with the line where it begins."""
    # The csv module and not pandas: messages need true line numbers (blank lines and quoted line breaks shift pandas'
    # own) and rows that are too short must not be filled up silently.
    reader, line = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator), 1
    try:
        for record in reader:
            yield line, [cell.strip() for cell in record]
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, row {line}: not valid CSV ({error}); check the quotes in this row.") from error


def _read_excel(path: Path) -> Table:
    """The sheet of a workbook that is called ``cohort``, or the one that is not empty."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of formats and rules that the table does not need; some quote a cell
        try:
            book = openpyxl.load_workbook(path, data_only=True)
        except Exception as error:  # openpyxl lets through whatever a damaged part of the file raises
            raise UserError(
                f"{path}: not a readable Excel workbook ({type(error).__name__}); open it in Excel and save it without "
                'a password as "Excel Workbook (.xlsx)".'
            ) from error
    sheets = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"]
    named = [sheet for sheet in sheets if sheet.title.strip().casefold() == SHEET]
    filled = named or [sheet for sheet in sheets if any(cell is not None for row in sheet.values for cell in row)]
    if len(filled) > 1:
        titles = ", ".join(f'"{sheet.title}"' for sheet in filled)
        raise UserError(
            f"{path}: {len(filled)} sheets are not empty ({titles}); expected one, or one that is called "
            f'"{SHEET}". Rename the sheet with one row per slide to "{SHEET}".'
        )
    rows = ([_excel_cell(cell) for cell in row] for row in filled[0].iter_rows()) if filled else ()
    return _assemble(path, enumerate(rows, start=1), pad=True)


def _excel_cell(cell: Any) -> object:
    """A cell's value; as text where Excel shows a percentage, which is no number here."""
    if isinstance(cell.value, str):
        return cell.value.strip()
    if isinstance(cell.value, int | float) and not isinstance(cell.value, bool) and _PERCENT.match(cell.number_format):
        return f"{cell.value * 100:.10g}%"
    return cell.value


def _read_parquet(path: Path) -> Table:
    """The records of a Parquet file, counted from 1; they have no header line."""
    try:
        content = pq.read_table(path)
    except (pa.ArrowException, ValueError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({type(error).__name__}); write it again.") from error
    names = tuple(map(tidy, content.column_names))
    narrow = [pa.types.is_float32(column.type) for column in content.columns]
    columns = [
        [_parquet_cell(value, is_narrow) for value in column.to_pylist()]
        for column, is_narrow in zip(content.columns, narrow, strict=True)
    ]
    rows = (
        Row(line, dict(zip(names, cells, strict=True)))
        for line, cells in enumerate(zip(*columns, strict=True), start=1)
    )
    return Table(path, names, tuple(row for row in rows if any(cell not in (None, "") for cell in row.cells.values())))


def _parquet_cell(value: object, narrow: bool) -> object:
    if isinstance(value, str):
        return value.strip()
    # 0.1 as it was meant, not 0.10000000149: limits of ranges are exact
    return float(str(np.float32(value))) if narrow and isinstance(value, float) else value


def _assemble(path: Path, records: Iterable[tuple[int, Sequence[Any]]], pad: bool = False) -> Table:
    """A table from records, of which the first that is not empty is the header."""
    filled = ((line, cells) for line, cells in records if any(cell not in (None, "") for cell in cells))
    names = tuple(tidy(as_text(cell)) for cell in next(filled, (0, ()))[1])
    rows, uneven = [], []
    for line, cells in filled:
        if len(cells) != len(names) and not pad:
            uneven.append((line, len(cells)))
            continue
        row = {name: cells[index] if index < len(cells) else None for index, name in enumerate(names) if name}
        if any(cell not in (None, "") for cell in row.values()):
            rows.append(Row(line, row))
    return Table(path, names, tuple(rows), tuple(uneven))


_READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": _read_text,
    ".tsv": _read_text,
    ".xlsx": _read_excel,
    ".parquet": _read_parquet,
}
TABLE_NAMES = tuple(f"{_STEM}{ending}" for ending in _READERS)
"""What a cohort table is called, unless a setting names it."""
