# SPDX-License-Identifier: Apache-2.0
"""Cells of Excel and Parquet that hold something else than a person sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort, read_table
from persam_monai.cohort.tables import CellFault
from persam_monai.errors import UserError
from tests.cohort.making import write_excel

CELLS: list[list[Any]] = [["patient_id", "slide", "label", "age"], ["P1", "1.svs", "A", 52]]


@pytest.mark.parametrize(
    "form", ['0.0" g/dL"', '"<"0.0', "#,##0,", '"P"000', "0.0%", r"0\ \m\g", r"0\.0", ";;;", '[>9]"high";0']
)
def test_a_number_that_excel_shows_as_something_else_is_not_read(tmp_path: Path, form: str) -> None:
    book = openpyxl.Workbook()
    for cells in CELLS:
        book.active.append(cells)
    book.active["D2"].number_format = form
    book.save(tmp_path / "cohort.xlsx")
    (row,) = read_table(tmp_path / "cohort.xlsx").rows
    assert isinstance(row.cells["age"], CellFault)
    assert "format the column as numbers" in row.cells["age"].expected


@pytest.mark.parametrize(("value", "read"), [(5.2, True), (-5.2, True), (0, False)])
def test_the_part_of_a_format_counts_that_shows_the_number(tmp_path: Path, value: float, read: bool) -> None:
    book = openpyxl.Workbook()
    for cells in [CELLS[0], [*CELLS[1][:3], value]]:
        book.active.append(cells)
    book.active["D2"].number_format = '0.0;-0.0;"n/a"'
    book.save(tmp_path / "cohort.xlsx")
    (row,) = read_table(tmp_path / "cohort.xlsx").rows
    assert (row.cells["age"] == value) == read


@pytest.mark.parametrize(
    "form",
    [
        "General",
        "0.00",
        '_(* #,##0.0_);_(* (#,##0.0);_(* "-"??_)',
        "#,##0.0",
        '_-* #,##0.00\\ "€"_-',
        "[Red]0.0",
        "0.00E+00",
    ],
)
def test_a_number_in_an_ordinary_format_is_read(tmp_path: Path, form: str) -> None:
    book = openpyxl.Workbook()
    for cells in CELLS:
        book.active.append(cells)
    book.active["D2"].number_format = form
    hidden = book.create_sheet("cohort")
    hidden.append(["not", "this"])
    hidden.sheet_state = "hidden"
    book.save(tmp_path / "cohort.xlsx")
    (row,) = read_table(tmp_path / "cohort.xlsx").rows
    assert row.cells["age"] == 52


def test_whole_numbers_that_excel_has_rounded_are_no_identifiers(tmp_path: Path) -> None:
    cells: list[list[Any]] = [["patient_id", "slide", "label"], [4111111111111110, "1.svs", "A"]]
    (row,) = read_table(write_excel(tmp_path / "cohort.xlsx", cells)).rows
    assert isinstance(row.cells["patient_id"], float)
    with pytest.raises(UserError, match=r'row 2, column "patient_id".*rounded to 15 digits'):
        Cohort.load(tmp_path / "cohort.xlsx", ClinicalSchema(("A", "B"), {}), require_slides=False)


@pytest.mark.parametrize("kind", ["period", "binary", "dictionary"])
def test_parquet_types_that_nobody_reads_off_a_table_are_refused(tmp_path: Path, kind: str) -> None:
    columns: dict[str, Any] = {
        "period": pa.Array.from_pandas(pd.Series(pd.period_range("2024-01", periods=1, freq="M"))),
        "binary": pa.array([b"neck"], pa.binary_view()) if hasattr(pa, "binary_view") else pa.array([b"neck"]),
        "dictionary": pa.array([b"neck"]).dictionary_encode(),
    }
    value = columns[kind]
    table = pa.table(
        {"patient_id": ["P1"], "x": pa.Array.from_pandas(value) if isinstance(value, pd.Series) else value}
    )
    pq.write_table(table, tmp_path / "cohort.parquet")
    assert "x" in read_table(tmp_path / "cohort.parquet").faults
