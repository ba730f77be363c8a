# SPDX-License-Identifier: Apache-2.0
"""Tables in text files: comma, semicolon or tab between the cells."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from persam_monai.clinical.cells import tidy
from persam_monai.cohort.tables.table import Table, TableRow, check_filled
from persam_monai.cohort.words import counted
from persam_monai.errors import UserError

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}

_UTF16 = 'UTF-16 text, not UTF-8 text; save it again as "CSV UTF-8" (Excel\'s "Unicode Text" is UTF-16)'
_NO_TEXT = {
    b"PK\x03\x04": "no text but an Excel workbook, or another zip file; give a workbook the ending .xlsx",
    b"\xd0\xcf\x11\xe0": 'no text but an old Excel workbook; open it in Excel and save it as "CSV UTF-8"',
    b"PAR1": "no text but a Parquet file; give it the ending .parquet",
    b"\xff\xfe": _UTF16,
    b"\xfe\xff": _UTF16,
}
"""How files begin that people give the ending of a text file."""

# Excel's own note to itself in the first line of a file, which says what stands between the cells.
_NOTE = re.compile(r'"?sep=(.)"?[ \t]*', re.IGNORECASE)


def read_text(path: Path) -> Table:
    """Read a table in UTF-8 text, with or without a byte order mark.

    Raises:
        UserError: if the file is not UTF-8, badly quoted or without rows, or it is not clear what separates the cells.
    """
    text = _decoded(path)
    first = text.split("\n", 1)[0].rstrip("\r")
    note = _NOTE.fullmatch(first)
    separator = _noted(path, note) if note else _separator(path, text)
    records = [(line, cells) for line, cells in _records(path, text, separator) if not (note and line == 1)]
    header = [tidy(name) for name in records[0][1]] if records else []
    width = len(header)
    check_filled(path, header, records[1:])
    rows = tuple(
        TableRow(line, {name: cell for name, cell in zip(header, cells, strict=True) if name})
        for line, cells in records[1:]
        if len(cells) == width
    )
    hint = f"a {SEPARATORS[separator]} inside a cell needs quotes around the cell"
    uneven = tuple(
        (line, f"found {counted(len(cells), 'cell')}, expected {width} as in the header ({hint}).")
        for line, cells in records[1:]
        if len(cells) != width
    )
    return Table(path, tuple(header), rows, point_only=separator == ",", uneven=uneven)


def _decoded(path: Path) -> str:
    """The file's text."""
    content = path.read_bytes()
    for begin, told in _NO_TEXT.items():
        if content.startswith(begin):
            raise UserError(f"{path}: the table is {told}.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # UTF-16 without a mark is valid UTF-8, full of zeros
        raise UserError(
            f'{path}: the table is not UTF-8 text; save it again as "CSV UTF-8" (an Excel workbook is called .xlsx).'
        )
    return text


def _noted(path: Path, note: re.Match[str]) -> str:
    """The separator that Excel's note names."""
    if note[1] not in SEPARATORS:
        raise UserError(
            f'{path}, row 1: found "{note[0]}", expected a {", a ".join(SEPARATORS.values())}: save the table as CSV '
            "with one of these between the cells."
        )
    return note[1]


def _separator(path: Path, text: str) -> str:
    """What stands between the cells: by it the header has ``patient_id``, or else the most columns."""
    headers: dict[str, list[str]] = {}
    for separator in SEPARATORS:
        try:
            headers[separator] = next((cells for _, cells in _records(path, text, separator)), [])
        except UserError:  # the quotes fit another separator; if they fit none, reading will tell
            headers[separator] = []
    known = [separator for separator, header in headers.items() if "patient_id" in header]
    if known:
        return known[0]
    best = max(headers, key=lambda separator: len(headers[separator]))  # of equals the first
    if len(headers[best]) == 1 and not re.fullmatch(r"\w+", headers[best][0]):  # one name is one column
        tried = ", ".join(SEPARATORS.values())
        raise UserError(
            f"{path}: the header is a single cell; expected names of columns, and tried {tried} as separator. Save the "
            "table with one of these between the cells, the names of the columns in the first row."
        )
    return best


def _records(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Each record that has a cell, with the line where it begins."""
    # The csv module and not pandas: messages need true line numbers (blank lines and quoted line breaks shift pandas'
    # own) and rows that are too short must not be filled up silently.
    reader, line = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator), 1
    try:
        for record in reader:
            cells = [cell.strip() for cell in record]
            if any(cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, row {line}: not valid CSV ({error}); check the quotes in this row.") from error
