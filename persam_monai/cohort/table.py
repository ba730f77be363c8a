# SPDX-License-Identifier: Apache-2.0
"""A table as text: columns, and rows that know their line in the file."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from persam_monai.errors import UserError, raise_together


@dataclass(frozen=True)
class TableRow:
    """Cells of one row.

    Args:
        line: where the row begins in the file; the header is line 1.
        cells: column name to text, without surrounding spaces.
    """

    line: int
    cells: dict[str, str] = field(repr=False)


@dataclass(frozen=True)
class Table:
    """A table of text.

    Args:
        path: the file.
        columns: names in the header, as they stand there (perhaps repeated), without surrounding spaces.
        rows: the rows that are not empty.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]


def read_table(path: Path) -> Table:
    """Read a CSV file in UTF-8, with or without a byte order mark.

    Raises:
        UserError: if the file is missing, unreadable, not UTF-8, badly quoted or without rows, or if rows differ in
            length from the header (all such rows together).
    """
    records = list(_records(path))
    if not records:
        raise UserError(f"{path}: the table is empty; expected a header line and one row per slide.")
    (_, header), *body = records
    if not body:
        raise UserError(f"{path}: the table has a header and no rows; expected one row per slide.")
    if len(header) == 1 and any(separator in header[0] for separator in ";\t"):
        raise UserError(f"{path}: the cells are not separated by commas; save the table as CSV with commas.")
    uneven = [
        f"row {line}: found {len(cells)} cells, expected {len(header)} as in the header "
        "(a comma inside a cell needs quotes around the cell)."
        for line, cells in body
        if len(cells) != len(header)
    ]
    raise_together(f"{path}: rows differ in length from the header", uneven)
    rows = tuple(TableRow(line, dict(zip(header, cells, strict=True))) for line, cells in body)
    return Table(path, tuple(header), rows)


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Each record that has a cell, with the line where it begins."""
    # The csv module and not pandas: messages need true line numbers (blank lines and quoted line breaks shift pandas'
    # own) and rows that are too short must not be filled up silently.
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader, line = csv.reader(file, strict=True), 1
            try:
                for record in reader:
                    cells = [cell.strip() for cell in record]
                    if any(cells):
                        yield line, cells
                    line = reader.line_num + 1
            except csv.Error as error:
                raise UserError(
                    f"{path}, row {line}: not valid CSV ({error}); check the quotes in this row."
                ) from error
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected the cohort table.") from None
    except UnicodeDecodeError:
        raise UserError(
            f'{path}: the table is not UTF-8 text; save it again as "CSV UTF-8" (an Excel workbook: export it as that).'
        ) from None
    except OSError as error:
        raise UserError(f"{path}: the table cannot be read: {error.strerror}.") from error
