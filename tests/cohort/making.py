# SPDX-License-Identifier: Apache-2.0
"""Writes one table in all the forms that a cohort may have."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq

Cells = Sequence[Sequence[Any]]


def write_text(path: Path, cells: Cells, separator: str = ",") -> Path:
    """A text file; the first row of ``cells`` is the header, ``None`` an empty cell."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=separator, lineterminator="\n").writerows(cells)
    return path


def write_excel(path: Path, cells: Cells, sheet: str = "Sheet1", **more: Cells) -> Path:
    """A workbook with the sheets ``sheet`` and, by name, ``more``."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, content in {sheet: cells, **more}.items():
        page = book.create_sheet(title)
        for row in content:
            page.append(list(row))
    book.save(path)
    return path


def write_parquet(path: Path, cells: Cells) -> Path:
    """A Parquet file; each column has the type that its cells have in common, text if they have none."""
    header, *rows = cells
    columns = []
    for column in zip(*rows, strict=True) if rows else [()] * len(header):
        try:
            columns.append(pa.array(column))
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            columns.append(pa.array([None if cell is None else _text(cell) for cell in column]))
    pq.write_table(pa.table(columns, names=list(header)), path)
    return path


def _text(cell: object) -> str:
    return f"{cell:.10g}" if isinstance(cell, float) else str(cell)


WRITERS: dict[str, Callable[[Path, Cells], Path]] = {
    "cohort.csv": write_text,
    "cohort.tsv": lambda path, cells: write_text(path, cells, "\t"),
    "semicolons.csv": lambda path, cells: write_text(path, cells, ";"),
    "cohort.xlsx": write_excel,
    "cohort.parquet": write_parquet,
}
"""File name to what writes the file."""
