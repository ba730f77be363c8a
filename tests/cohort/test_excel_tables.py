# SPDX-License-Identifier: Apache-2.0
"""What a workbook of Excel's holds, and how it is read."""

from __future__ import annotations

import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from openpyxl.styles import Font

from persam_monai.cohort import read_table
from persam_monai.cohort.tables import CellFault
from tests.cohort.making import write_excel


def cells_of(path: Path) -> list[tuple[int, list[Any]]]:
    return [(row.line, list(row.cells.values())) for row in read_table(path).rows]


def test_excel_cells_keep_their_types_and_their_row_numbers(tmp_path: Path) -> None:
    day = datetime(2020, 5, 1)
    rows: list[list[Any]] = [
        [],
        ["patient_id", " age ", "x"],
        [],
        [17, 63.5, True],
        [" P1 ", day, "#N/A"],
        ["", "", " "],
    ]
    path = write_excel(tmp_path / "cohort.xlsx", rows)
    table = read_table(path)
    assert table.columns == ("patient_id", "age", "x")
    assert cells_of(path) == [(4, [17, 63.5, True]), (5, ["P1", day, None])]
    assert table.rows[0].text("patient_id") == "17"


def test_formats_merged_cells_and_notes_beside_the_table_do_no_harm(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    page = book.active
    for row in (["patient_id", "slide", "note"], ["P1", "a.svs", "both"], ["P2", "b.svs", None]):
        page.append(row)
    page.merge_cells("C2:C3")
    page["Z1"].font = page["B900"].font = page["AMJ2"].font = Font(bold=True)
    page["F3"] = "a thought beside the table"
    page["H20"] = "and one below"
    page.row_dimensions[2].height = 40
    book.create_sheet("empty")["A1"].font = Font(bold=True)
    book.save(tmp_path / "cohort.xlsx")
    assert cells_of(tmp_path / "cohort.xlsx") == [(2, ["P1", "a.svs", "both"]), (3, ["P2", "b.svs", None])]


def test_the_sheet_called_cohort_is_taken(tmp_path: Path) -> None:
    path = write_excel(tmp_path / "cohort.xlsx", [["about"]], "README", Cohort=[["patient_id"], ["P1"]])
    assert cells_of(path) == [(2, ["P1"])]


def calculated(path: Path, value: str, kind: str, waits: bool = False) -> None:
    """Give the one formula of a workbook a result, as Excel stores it."""
    with zipfile.ZipFile(path) as book:
        parts = {name: book.read(name).decode() for name in book.namelist()}
    page = parts["xl/worksheets/sheet1.xml"]
    assert "</f><v></v>" in page or "</f><v/>" in page or "</f><v />" in page
    begin = page.index('<c r="B2"')
    cell = page[begin : page.index("</c>", begin)]
    result = cell.split("</f>")[0].replace('<c r="B2"', f'<c r="B2" t="{kind}"') + f"</f><v>{value}</v>"
    parts["xl/worksheets/sheet1.xml"] = page.replace(cell, result)
    if not waits:
        parts["xl/workbook.xml"] = parts["xl/workbook.xml"].replace('fullCalcOnLoad="1"', "")
    with zipfile.ZipFile(path, "w") as book:
        for name, content in parts.items():
            book.writestr(name, content)


@pytest.mark.parametrize(
    ("value", "kind", "waits", "expected"),
    [
        ("61.5", "n", False, 61.5),
        ("0", "n", False, 0),
        ("yes", "str", False, "yes"),
        ("", "str", False, None),  # =IF(A2="","",A2)
        ("1", "b", False, True),
        ("#N/A", "e", False, None),
        ("#REF!", "e", False, CellFault),
        ("", "n", False, CellFault),
        ("0", "n", True, CellFault),  # what programs write in the place of a result
    ],
)
def test_a_formula_is_its_result(tmp_path: Path, value: str, kind: str, waits: bool, expected: object) -> None:
    path = write_excel(tmp_path / "cohort.xlsx", [["patient_id", "age"], ["P1", "=60+1.5"]])
    calculated(path, value, kind, waits)
    ((_, (_, cell)),) = cells_of(path)
    assert cell.__class__ is CellFault if expected is CellFault else cell == expected


@pytest.mark.parametrize(("shown", "found"), [("0.0%", "45.5%"), ('0.0"%"', None), ("0.0\\%", None), ("General", None)])
def test_a_percentage_is_no_plain_number(tmp_path: Path, shown: str, found: str | None) -> None:
    write_excel(tmp_path / "cohort.xlsx", [["patient_id", "age"], ["P1", 0.455]])
    book = openpyxl.load_workbook(tmp_path / "cohort.xlsx")
    book.active["B2"].number_format = shown
    book.save(tmp_path / "cohort.xlsx")
    ((_, (_, cell)),) = cells_of(tmp_path / "cohort.xlsx")
    if found is None:
        assert cell == 0.455
    else:
        assert cell.found == found
        assert "format the column as numbers" in cell.expected
