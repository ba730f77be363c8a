# SPDX-License-Identifier: Apache-2.0
"""For each rule of bundle/docs/clinical.md on tables, tables that break it, and what is told."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort
from persam_monai.errors import UserError
from tests.cohort.making import Cells, write_excel, write_parquet, write_text

DOCUMENT = Path(__file__).parents[2] / "bundle" / "docs" / "clinical.md"
SCHEMA: dict[str, Any] = {
    "classes": ["DLBCL", "FL"],
    "groups": {
        "interview": {"age": {"kind": "numeric"}, "site": {"kind": "categorical", "levels": ["neck", "groin"]}},
        "blood": {"ldh": {"kind": "numeric"}},
    },
}
GOOD: list[list[Any]] = [
    ["patient_id", "slide", "label", "age", "site", "ldh"],
    ["P1", "a.svs", "FL", 63, "neck", 250],
    ["P1", "b.svs", "FL", 63, "neck", 250],
    ["P2", "c.svs", "DLBCL", None, "groin", 310],
]
SECRETS = ("P1", "P2", "a.svs", "groin")  # cells, some of which stand in every table below
Edit = tuple[int, int, Any]
Write = Callable[[Path], object]


def edited(*edits: Edit, column: list[Any] | None = None) -> list[list[Any]]:
    """The good table with cells changed, by row (0 is the header) and column, and perhaps a column more."""
    cells = [list(row) for row in GOOD]
    for row, place, value in edits:
        cells[row][place] = value
    if column is not None:
        cells = [[*row, cell] for row, cell in zip(cells, column, strict=True)]
    return cells


def comma(cells: Cells) -> Write:
    return lambda folder: write_text(folder / "cohort.csv", cells)


def semicolon(cells: Cells) -> Write:
    return lambda folder: write_text(folder / "cohort.csv", cells, ";")


def excel(cells: Cells, sheet: str = "Sheet1", **more: Cells) -> Write:
    return lambda folder: write_excel(folder / "cohort.xlsx", cells, sheet, **more)


def parquet(cells: Cells) -> Write:
    return lambda folder: write_parquet(folder / "cohort.parquet", cells)


def raw(content: bytes, name: str = "cohort.csv") -> Write:
    return lambda folder: (folder / name).write_bytes(content)


def both(*writes: Write) -> Write:
    return lambda folder: [write(folder) for write in writes]


@dataclass(frozen=True)
class Broken:
    """A table that breaks a rule.

    Args:
        rule: of clinical.md.
        write: writes the table into a folder.
        told: parts of the message; the last one tells what to do.
        row: where; None for the table as a whole.
        column: where; None for a row as a whole.
        cell: what stands there; the list of problems must not repeat it.
        listed: whether there is a list of problems; not if it is not known which table is meant.
    """

    rule: str
    write: Write
    told: tuple[str, ...]
    row: int | None = None
    column: str | None = None
    cell: str | None = None
    listed: bool = True


HEADER = ",".join(map(str, GOOD[0])).encode()
GAP = [
    Broken(
        "T1", lambda folder: None, ("cohort.csv (the cohort table: one row per slide; or cohort.tsv",), listed=False
    ),
    Broken(
        "T1",
        both(comma(GOOD), excel(GOOD)),
        ("found 2 cohort tables (cohort.csv, cohort.xlsx)", "Say which with --table cohort.csv, or remove the others"),
        listed=False,
    ),
    Broken("T1", raw(b"", "cohort.xls"), ('found the ending ".xls"', 'save it as "Excel Workbook (.xlsx)"')),
    Broken("T1", raw(b"", "cohort.ods"), ('found the ending ".ods"', 'save it as "Excel Workbook (.xlsx)"')),
    Broken("T1", raw(b"", "cohort.txt"), ('found the ending ".txt"', "give it the ending .csv or .tsv")),
    Broken("T2", raw(HEADER + "\nJosé".encode("latin-1")), ("not UTF-8 text", 'save it again as "CSV UTF-8"')),
    Broken("T2", raw(HEADER.decode().encode("utf-16-le")), ("not UTF-8 text", 'save it again as "CSV UTF-8"')),
    Broken("T2", raw(HEADER.decode().encode("utf-16")), ("UTF-16 text", 'save it again as "CSV UTF-8"')),
    Broken(
        "T2", raw(b"PK\x03\x04rest"), ("an Excel workbook, or another zip file", "give a workbook the ending .xlsx")
    ),
    Broken("T2", raw(b"\xd0\xcf\x11\xe0"), ("an old Excel workbook", 'save it as "CSV UTF-8"')),
    Broken("T2", raw(b"PAR1"), ("a Parquet file", "give it the ending .parquet")),
    Broken("T2", raw(HEADER.replace(b",", b"|")), ("tried comma, semicolon, tab", "with one of these between")),
    Broken("T2", raw(b"sep=|\n" + HEADER), ('row 1: found "sep=|"', "with one of these between the cells")),
    Broken("T2", raw(HEADER + b'\nP1,"a.svs'), ("row 2: not valid CSV", "check the quotes in this row")),
    Broken("T3", raw(HEADER + b"\n\nP1,a.svs,FL,63"), ("row 3: found 4 cells, expected 6", "needs quotes"), 3),
    Broken("T3", semicolon([*GOOD[:2], [*GOOD[2], 9]]), ("row 3: found 7 cells, expected 6", "needs quotes"), 3),
    Broken("T3", raw(b""), ("the table is empty", "expected a header line and one row per slide")),
    Broken("T3", parquet(GOOD[:1]), ("a header and no rows", "expected one row per slide")),
]
COLUMNS = [
    Broken("T4", comma(edited((0, 5, "LDH_"))), ("is missing; the table has", "Rename that column"), None, "ldh"),
    Broken("T4", comma(edited((0, 2, "x"))), ("is missing; the table has", "Add the column"), None, "label"),
    Broken("T4", parquet(edited((0, 0, "id"))), ("is missing; the table has", "Add the column"), None, "patient_id"),
    Broken(
        "T4", excel(edited(column=["age", 1, 1, 1])), ("stands 2 times", "rename or remove the others"), None, "age"
    ),
    Broken(
        "T4",
        excel(edited(column=["Fold", 0, 0, 1])),
        ('did you mean "fold"?', 'Rename the column to "fold", or remove it'),
        None,
        "Fold",
    ),
    Broken(
        "T4",
        parquet(edited(column=["mpp", [1], [1], [2]])),
        ("found the type list", "write the column as one of these"),
        None,
        "mpp",
    ),
    Broken("T5", comma(edited((2, 0, ""))), ('found ""', "fill in the cell"), 3, "patient_id"),
    Broken("T5", excel(edited((2, 0, None))), ("found an empty cell", "fill in the cell"), 3, "patient_id"),
    Broken("T5", comma(edited((3, 1, "n/a"))), ('found "n/a"', "fill in the cell"), 4, "slide", "n/a"),
    Broken(
        "T5", comma(edited((3, 1, "x.svs"))), ("1 of 3 slide files not found", "copy the files"), 4, "slide", "x.svs"
    ),
    Broken("T5", comma(edited((3, 1, "./a.svs"))), ("is in row 2 already", "remove one row"), 4, "slide", "./a.svs"),
    Broken(
        "T6",
        comma(edited((3, 2, "DLBLC"))),
        ('found "DLBLC"', 'Did you mean "DLBCL"?', "correct the cell, or the classes in the schema"),
        4,
        "label",
        "DLBLC",
    ),
    *(
        Broken(
            "T5", comma(edited((3, 0, cell))), ("taken the identifier for a number", "as text"), 4, "patient_id", cell
        )
        for cell in ("1.23457E+18", "1.2345678901234568e+18", "1E+15", "1.20E+06")
    ),
    Broken("T5", semicolon(edited((3, 0, "1,23457E+18"))), ("rounded it", "as text"), 4, "patient_id", "1,23457E+18"),
    Broken("T5", comma(edited((3, 1, "1.2E+19"))), ("rounded it", "as text"), 4, "slide", "1.2E+19"),
    Broken(
        "T5", excel(edited((3, 0, 1234567890123456))), ("rounded to 15 digits", "as text"), 4, "patient_id", "1234567"
    ),
    Broken("T5", excel(edited((3, 0, "P\n3"))), ("text in one line", "take line breaks"), 4, "patient_id", "P\n3"),
    Broken("T5", comma(edited((3, 0, "Unknown"))), ('found "Unknown"', "fill in the cell"), 4, "patient_id", "Unknown"),
    Broken("T5", comma(edited((3, 0, "#REF!"))), ('found "#REF!"', "correct the formula"), 4, "patient_id", "#REF!"),
    Broken("T6", comma(edited((3, 2, "1.2E+19"))), ("rounded it", "as text"), 4, "label", "1.2E+19"),
    Broken("T6", excel(edited((3, 2, 17.0))), ('found "17"', "correct the cell, or the classes"), 4, "label", "17"),
    Broken("T7", comma(edited(column=["mpp", "0", "", ""])), ('found "0"', "correct the cell"), 2, "mpp"),
    Broken("T7", excel(edited(column=["mpp", None, -1.5, 1])), ("found -1.5", "correct the cell"), 3, "mpp", "-1.5"),
    Broken("T7", comma(edited(column=["mpp", "0,25", "", ""])), ('found "0,25"', "correct the cell"), 2, "mpp", "0,25"),
    Broken("T7", comma(edited(column=["mpp", "40", "", ""])), ("not the magnification", "correct"), 2, "mpp", '"40"'),
    Broken(
        "T7", comma(edited(column=["fold", 0, 0, "1.000"])), ('found "1.000"', "correct the cell"), 4, "fold", "1.000"
    ),
    Broken("T7", comma(edited(column=["fold", 0, 0, "1.5"])), ('found "1.5"', "correct the cell"), 4, "fold", "1.5"),
    Broken(
        "T7", comma(edited(column=["fold", "", 0, 1])), ("1 cell is empty (row 2)", "give every row a fold"), 2, "fold"
    ),
    Broken(
        "T8",
        comma(edited((2, 2, "DLBCL"))),
        ("found DLBCL here and FL in row 2, which is the same patient", "make them agree"),
        3,
        "label",
        "DLBCL",
    ),
    Broken("T8", excel(edited((2, 3, 64))), ("found 64 here and 63 in row 2", "make them agree"), 3, "age", "64"),
    Broken(
        "T8",
        excel(edited((2, 5, None))),
        ("found an empty cell here and 250 in row 2", "make them agree"),
        3,
        "ldh",
        "250",
    ),
    Broken(
        "T8", comma(edited(column=["fold", 0, 1, 1])), ("found 1 here and 0 in row 2", "make them agree"), 3, "fold"
    ),
    *(
        Broken(
            "T9",
            excel(edited((3, 0, spelling))),
            (f'found "{spelling}", expected "P1"', "row 2", "write it the same way if it is the same patient"),
            4,
            "patient_id",
            spelling,
        )
        for spelling in ("p1", "P 1", "P01", "P001", "\uff301", "p\u00a0001", "P1\u200b")
    ),
    *(
        Broken("T9", comma(edited((1, 0, one), (2, 0, one), (3, 0, other))), ("or forms of letters",), 4, "patient_id")
        for one, other in (("Jos\u00e9", "Jose\u0301"), ("P-1", "P\u20131"), ("P-1", "P\u22121"), ("17", "17.0"))
    ),
]
BOOKS = [
    Broken(
        "T10",
        excel(GOOD, notes=[["a note"]]),
        ('2 sheets are not empty ("Sheet1", "notes")', 'Rename the sheet with one row per slide to "cohort"'),
    ),
    Broken("T10", excel([], "cohort"), ("the table is empty", "expected a header line")),
    Broken(
        "T10",
        excel(edited((3, 5, "=100+10"))),
        ("found a formula that was never calculated", "open the workbook in Excel and save it"),
        4,
        "ldh",
    ),
    Broken("T10", excel(edited((3, 0, "=A3"))), ("a formula that was never", "open the workbook"), 4, "patient_id"),
    Broken("T10", excel(edited((3, 5, "#DIV/0!"))), ("found #DIV/0!", "correct the formula"), 4, "ldh", "#DIV/0!"),
    Broken("T10", excel(edited((3, 3, datetime(2020, 5, 1)))), ("found 2020-05-01", "format"), 4, "age", "2020-05"),
    Broken("T10", excel(edited((3, 4, datetime(2020, 5, 1)))), ("found 2020-05-01", "format"), 4, "site", "2020-05"),
    Broken("T10", excel(edited((3, 0, datetime(2020, 5, 1)))), ("found 2020", "as text"), 4, "patient_id", "2020-05"),
    Broken(
        "T10",
        parquet(edited((1, 5, None), (2, 5, None), (3, 5, datetime(2020, 5, 1)))),
        ("found 2020-05-01", "format"),
        3,
        "ldh",
        "2020-05",
    ),
    Broken("T10", raw(b"patient_id,slide", "cohort.xlsx"), ("not a readable Excel workbook", "the ending .csv")),
    Broken("T10", raw(b"\xd0\xcf\x11\xe0", "cohort.xlsx"), ("has a password or is in", "without a password")),
    Broken(
        "C4",
        semicolon(edited((1, 3, "61,5"), (2, 3, "61,5"), (3, 5, "1.5"))),
        ('found "1.5", expected a decimal comma', "Correct the cell, or declare decimal:"),
        4,
        "ldh",
        '"1.5"',
    ),
    Broken(
        "C4",
        excel(edited((1, 3, "61.5"), (2, 3, "61.5"), (3, 5, "1,5"))),
        ('found "1,5", expected a decimal point', "rule C4", "Correct the cell, or declare decimal:"),
        4,
        "ldh",
        "1,5",
    ),
    Broken(
        "C4",
        semicolon(edited((3, 3, "61.5"), (3, 5, "1,5"))),
        ('found "1,5", expected a decimal point', "cells with a point: 1, with a comma: 1", "Correct the cell"),
        4,
        "ldh",
        "1,5",
    ),
    Broken(
        "C4",
        semicolon(edited((3, 5, "1,200"))),
        ('found "1,200"', "such cells in the column: 1", 'Declare decimal: "." or decimal: ","'),
        4,
        "ldh",
        "1,200",
    ),
    Broken("C4", comma(edited((3, 5, "1,5"))), ('found "1,5"', "declare decimal"), 4, "ldh", "1,5"),
]
CATALOGUE = [*GAP, *COLUMNS, *BOOKS]


def complaint(broken: Broken, folder: Path) -> str:
    """The message about a broken table."""
    (folder / "clinical.yaml").write_text(yaml.safe_dump(SCHEMA), encoding="utf-8")
    for name in "abc":
        (folder / f"{name}.svs").touch()
    broken.write(folder)
    with pytest.raises(UserError) as caught:
        Cohort.load_dir(folder, problems_file=folder / "problems.csv")
    return str(caught.value)


@pytest.mark.parametrize("broken", CATALOGUE, ids=[f"{index}-{broken.rule}" for index, broken in enumerate(CATALOGUE)])
def test_a_broken_rule_is_told_with_place_and_cure_and_kept_without_the_cell(broken: Broken, tmp_path: Path) -> None:
    message = complaint(broken, tmp_path)
    for part in broken.told:
        assert part in message
    place = [f"row {broken.row}"] if broken.row is not None else []
    place += [f'column "{broken.column}"'] if broken.column is not None else []
    assert ", ".join(place) in message or "is empty" in message or "files not found" in message
    file = tmp_path / "problems.csv"
    assert file.exists() is broken.listed
    if broken.listed:
        content = file.read_text(encoding="utf-8")
        (row,) = csv.DictReader(content.splitlines())
        assert (row["row"], row["column"]) == (str(broken.row or ""), broken.column or "")
        assert row["problem"]
        for secret in (*SECRETS, *([broken.cell] if broken.cell else [])):
            assert secret not in row["problem"].replace(str(tmp_path), "")


def test_every_rule_on_tables_is_in_the_catalogue() -> None:
    rules = re.findall(r"^\| (T\d+) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rules) == len(set(rules)) >= 10
    assert {*rules, "C4"} == {broken.rule for broken in CATALOGUE}


def test_the_good_table_breaks_none(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.svs").touch()
    schema = ClinicalSchema.from_dict(SCHEMA)
    for write in (comma(GOOD), semicolon(GOOD), excel(GOOD), parquet(GOOD)):
        write(tmp_path)
    for name in ("cohort.csv", "cohort.xlsx", "cohort.parquet"):
        assert Cohort.load(tmp_path / name, schema).patients == ("P1", "P2")
