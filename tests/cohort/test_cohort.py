# SPDX-License-Identifier: Apache-2.0
"""A cohort table becomes slides, patients and records; whatever is wrong with it is reported at once."""

from __future__ import annotations

import csv
import logging
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort
from persam_monai.errors import UserError
from tests.cohort.making import write_excel, write_text

DECLARED: dict[str, Any] = {
    "classes": ["DLBCL", "FL"],
    "groups": {
        "interview": {"age": {"kind": "numeric"}, "sex": {"kind": "categorical", "levels": ["female", "male"]}},
        "blood": {"ldh": {"kind": "numeric", "transform": "log"}},
    },
}
SCHEMA = ClinicalSchema.from_dict(DECLARED)
GOOD: list[list[Any]] = [
    ["patient_id", "slide", "label", "age", "sex", "ldh"],
    ["P1", "a.tif", "FL", "63", "male", "250"],
    ["P1", "b.tif", "FL", "63", "male", "250"],
    ["P2", "c.tif", "DLBCL", "", "female", ""],
]
ROW = {name: column for column, name in enumerate(GOOD[0])}


@pytest.fixture(autouse=True)
def slides(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.tif").touch()


def edited(*changes: tuple[int, str, Any], **more: list[Any]) -> list[list[Any]]:
    """The good table with cells changed, by row as Excel counts and by column, and with further columns."""
    cells = [list(row) for row in GOOD]
    for line, column, value in changes:
        cells[line - 1][ROW[column]] = value
    for name, added in more.items():
        cells = [[*row, cell] for row, cell in zip(cells, [name, *added], strict=True)]
    return cells


def load(folder: Path, cells: list[list[Any]], schema: ClinicalSchema = SCHEMA, **options: Any) -> Cohort:
    return Cohort.load(write_text(folder / "cohort.csv", cells, options.pop("separator", ",")), schema, **options)


def complaint(folder: Path, cells: list[list[Any]], schema: ClinicalSchema = SCHEMA, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(folder, cells, schema, **options)
    assert str(folder / "cohort.csv") in str(caught.value)
    return str(caught.value)


def one_number(**top: Any) -> ClinicalSchema:
    return ClinicalSchema.from_dict({"classes": ["A", "B"], **top, "groups": {"g": {"x": {"kind": "numeric"}}}})


def numbers(*cells: Any) -> list[list[Any]]:
    return [["patient_id", "slide", "label", "x"], *([f"P{i}", f"{i}.tif", "A", cell] for i, cell in enumerate(cells))]


def test_a_table_becomes_slides_patients_and_records(tmp_path: Path) -> None:
    cohort = load(tmp_path, GOOD)
    assert [(entry.slide, entry.path, entry.row) for entry in cohort] == [
        (f"{name}.tif", tmp_path / f"{name}.tif", row) for row, name in enumerate("abc", start=2)
    ]
    assert (cohort.patients, cohort.labels, cohort.classes) == (("P1", "P2"), (1, 1, 0), ("DLBCL", "FL"))
    assert (cohort.patient_labels, cohort.class_counts()) == ({"P1": 1, "P2": 0}, [1, 2])
    expected = np.array([[63, 0, 1, math.log(250)], [math.nan, 1, 0, math.nan]], np.float32)
    np.testing.assert_array_equal(cohort.clinical_matrix(), expected)
    assert {(entry.mpp, entry.fold) for entry in cohort} == {(None, None)}
    part = cohort.subset(entry for entry in cohort if entry.patient_id == "P2")
    assert (part.patients, part.clinical_matrix().shape) == (("P2",), (1, 4))
    again = pickle.loads(pickle.dumps(cohort))  # as it goes to worker processes
    assert again.entries == cohort.entries


def test_optional_columns_are_read_and_others_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        cohort = load(tmp_path, edited(note=["x", "", "y"], mpp=["0.25", "", "0,5"], fold=["0", "0.0", "2"]))
    assert [entry.mpp for entry in cohort] == [0.25, None, 0.5]
    assert [entry.fold for entry in cohort] == [0, 0, 2]
    assert "note" in caplog.text
    assert {entry.fold for entry in load(tmp_path, edited(fold=["", "", ""]))} == {None}


def test_labels_may_be_absent_for_inference(tmp_path: Path) -> None:
    without = [row[:2] + row[3:] for row in GOOD]
    assert load(tmp_path, without, require_labels=False).labels == (None, None, None)
    assert 'column "label": is missing' in complaint(tmp_path, without)
    partly = load(tmp_path, edited((2, "label", "")), require_labels=False)
    assert (partly.labels, partly.patient_labels) == ((None, 1, 0), {"P1": 1, "P2": 0})
    assert "or an empty cell" in complaint(tmp_path, edited((2, "label", "CLL")), require_labels=False)


# The table, and parts of the message.
FAULTS: list[tuple[list[list[Any]], tuple[str, ...]]] = [
    (edited((3, "patient_id", "")), ('row 3, column "patient_id"', "an empty cell")),
    (edited((3, "patient_id", "unknown")), ('row 3, column "patient_id"', '"unknown"')),
    (edited((4, "patient_id", "p 01")), ('row 4, column "patient_id"', '"p 01"', '"P1"')),
    (edited((4, "patient_id", "1.23457E+18")), ('row 4, column "patient_id"', "rounded")),
    (edited((4, "slide", "")), ('row 4, column "slide"', "an empty cell")),
    (edited((4, "slide", "./a.tif")), ('row 4, column "slide"', "row 2")),
    (edited((4, "slide", "d.tif")), ('row 4, column "slide"', "d.tif", "relative to the table")),
    (edited((4, "slide", "x\\d.tif")), ('row 4, column "slide"', "with / between folders")),
    (edited((4, "label", "DLBLC")), ('row 4, column "label"', '"DLBLC"', 'mean "DLBCL"')),
    (edited((4, "label", "")), ('row 4, column "label"', "DLBCL, FL")),
    (edited((4, "sex", "femal")), ('row 4, column "sex"', '"femal"', 'mean "female"')),
    (edited((4, "ldh", "high")), ('row 4, column "ldh"', '"high"', "a number")),
    (edited((3, "label", "DLBCL")), ('row 3, column "label"', '"DLBCL" here and "FL" there', "row 2")),
    (edited((3, "age", "64")), ('row 3, column "age"', '"64" here and "63" there', "same patient")),
    (edited((3, "ldh", "")), ('row 3, column "ldh"', "an empty cell here")),
    (edited((1, "ldh", "LDH_")), ('column "ldh": is missing', 'mean "LDH_"', "patient_id, slide, label")),
    (edited((1, "label", "lable")), ('column "label": is missing', 'mean "lable"')),
    (edited((1, "ldh", "age")), ('column "age": is in the header 2 times', 'column "ldh": is missing')),
    (GOOD[1:], ("Does the first row hold the names",)),
    ([*GOOD[:3], GOOD[3][:-1]], ("row 4", "5 cells", "expected 6")),
    (edited(mpp=["0", "", "40"]), ('column "mpp"', "row 2", "row 4", "magnification")),
    (edited(fold=["0", "0", "1.5"]), ('row 4, column "fold"', '"1.5"', "a whole number from 0")),
    (edited(fold=["0", "", ""]), ('column "fold"', "2 cells empty (rows 3, 4)")),
    (edited(fold=["0", "1", "2"]), ('row 3, column "fold"', '"1" here and "0" there')),
    (edited(Fold=["0", "0", "1"]), ('column "Fold"', 'mean "fold"')),
    (edited((2, "sex", "#REF!")), ('row 2, column "sex"', "no error of a spreadsheet")),
]


@pytest.mark.parametrize(("cells", "parts"), FAULTS)
def test_a_fault_is_named_with_row_column_and_cure(
    tmp_path: Path, cells: list[list[Any]], parts: tuple[str, ...]
) -> None:
    message = complaint(tmp_path, cells, problems_file=tmp_path / "problems.csv")
    for part in parts:
        assert part in message
    assert (tmp_path / "problems.csv").is_file()


def test_all_problems_come_together_and_wrong_cells_are_not_compared(tmp_path: Path) -> None:
    message = complaint(
        tmp_path,
        edited((1, "sex", "gender"), (2, "label", "XX"), (2, "age", "old"), (3, "ldh", "0"), (4, "slide", "z.tif")),
    )
    for part in ('"sex": is missing', 'row 2, column "label"', 'row 2, column "age"', 'row 3, column "ldh"', "z.tif"):
        assert part in message
    assert "same patient" not in message


def test_lines_are_the_files_own(tmp_path: Path) -> None:
    lines = ",".join(GOOD[0]) + '\n\nP1,a.tif,FL,63,male,1\n,,,,,\nP1,b.tif,FL,63,"male\n",1\nP2,c.tif,FX,,female,\n'
    (tmp_path / "cohort.csv").write_text(lines)
    with pytest.raises(UserError, match='row 7, column "label"'):
        Cohort.load(tmp_path / "cohort.csv", SCHEMA)


def test_the_screen_shows_ten_rows_of_a_problem_and_the_file_all_without_the_cells(tmp_path: Path) -> None:
    patients = [[f"P{i}", f"s{i}.svs", "FL", "SECRET", "male", "1"] for i in range(760)]
    file = tmp_path / "new" / "problems.csv"
    heading, line = complaint(tmp_path, [GOOD[0], *patients], require_slides=False, problems_file=file).splitlines()
    assert f"760 problems ({file} lists all of them)" in heading
    assert line.count("SECRET") == 10
    assert "750 more rows" in line
    with file.open(newline="", encoding="utf-8") as stream:
        listed = list(csv.DictReader(stream))
    assert [(each["column"], int(each["row"])) for each in listed] == [("age", row) for row in range(2, 762)]
    assert not any(word in file.read_text() for word in ("SECRET", "P7", ".svs"))


def test_a_table_in_order_removes_an_earlier_list_and_no_other_file(tmp_path: Path) -> None:
    file = tmp_path / "problems.csv"
    complaint(tmp_path, edited((2, "age", "old")), problems_file=file)
    load(tmp_path, GOOD, problems_file=str(file))
    assert not file.exists()
    file.write_text("my own notes\n")
    load(tmp_path, GOOD, problems_file=file)
    assert "lists all" not in complaint(tmp_path, edited((2, "age", "old")), problems_file=file)
    assert file.read_text() == "my own notes\n"


@pytest.mark.parametrize("writer", [write_text, write_excel])
def test_a_german_export_is_never_read_a_thousand_times_wrong(tmp_path: Path, writer: Any) -> None:
    """Whatever the schema and the command line declare: the right numbers, or an error."""
    written, meant = ["1.234,5", "12.500", "0,375", "987", "1.000.000"], [1234.5, 12500, 0.375, 987, 1e6]
    path = tmp_path / ("cohort.csv" if writer is write_text else "cohort.xlsx")
    writer(path, numbers(*written), **({"separator": ";"} if writer is write_text else {}))
    read = 0
    for schema in ({}, {"decimal": "."}, {"decimal": ","}, {"thousands": ","}, {"decimal": ",", "thousands": "."}):
        for decimal in (None, ".", ","):
            try:
                cohort = Cohort.load(path, one_number(**schema), require_slides=False, decimal=decimal)
            except UserError:
                continue
            read += 1
            np.testing.assert_array_equal(cohort.clinical_matrix()[:, 0], np.array(meant, np.float32))
    assert read == 3  # with both signs declared and none or the comma given, and with --decimal , over thousands: ,


@pytest.mark.parametrize("cells", [("1.234", "2.500", "12", ""), ("1,234", "2,500")])
def test_a_column_whose_signs_may_mean_two_things_needs_a_declaration(tmp_path: Path, cells: tuple[str, ...]) -> None:
    message = complaint(tmp_path, numbers(*cells), one_number(), require_slides=False, separator=";")
    assert 'row 2, column "x"' in message
    assert "decimal" in message
    sign = cells[0][1]
    options = {"require_slides": False, "separator": ";"}
    assert load(tmp_path, numbers(*cells), one_number(decimal=sign), **options).clinical_matrix()[0] == np.float32(
        1.234
    )
    assert load(tmp_path, numbers(*cells), one_number(), decimal=sign, **options).clinical_matrix()[0] == np.float32(
        1.234
    )
    other = {".": ",", ",": "."}[sign]
    declared = one_number(decimal=other, thousands=sign)
    assert load(tmp_path, numbers(*cells), declared, **options).clinical_matrix()[0] == 1234
    clear = [*numbers(*cells), ["P9", "9.tif", "A", "0.5"]]
    if sign == ".":
        assert load(tmp_path, clear, one_number(), **options).clinical_matrix()[0] == np.float32(1.234)


def test_percentages_and_dates_of_a_workbook_are_errors(tmp_path: Path) -> None:
    import openpyxl

    path = write_excel(tmp_path / "cohort.xlsx", numbers(0.455, 1, 2))
    book = openpyxl.load_workbook(path)
    book.active["D2"].number_format, book.active["D3"].number_format = "0.0%", "yyyy-mm-dd"
    book.save(path)
    with pytest.raises(UserError) as caught:
        Cohort.load(path, one_number(), require_slides=False)
    assert 'row 2, column "x": found "45.5%"' in str(caught.value)
    assert 'row 3, column "x"' in str(caught.value)
    assert "no date" in str(caught.value)


def test_labels_and_columns_that_look_the_same_are_the_same(tmp_path: Path) -> None:
    schema = ClinicalSchema.from_dict({"classes": ["Adénome", "1"], "groups": {"g": {"größe": {"kind": "numeric"}}}})
    cells = [["patient_id", "slide", "label", "gro\u0308ße"]]
    cells += [["P1", "a.tif", "Ade\u0301nome", "3"], ["P2", "b.tif", "1.0", "4"]]
    cohort = load(tmp_path, cells, schema)
    assert (cohort.labels, cohort.clinical_matrix().tolist()) == ((0, 1), [[3], [4]])


def test_two_links_to_one_slide_are_one_slide(tmp_path: Path) -> None:
    (tmp_path / "c.tif").unlink()
    (tmp_path / "c.tif").symlink_to(tmp_path / "a.tif")
    assert 'row 4, column "slide"' in complaint(tmp_path, GOOD)


def test_paths_lead_through_links_as_the_file_system_says(tmp_path: Path) -> None:
    (tmp_path / "real" / "data").mkdir(parents=True)
    (tmp_path / "real" / "a.tif").touch()
    (tmp_path / "data").symlink_to(tmp_path / "real" / "data")
    write_text(tmp_path / "real/data/cohort.csv", [*numbers()[:1], ["P", "../a.tif", "A", 1]])
    (entry,) = Cohort.load(tmp_path / "data" / "cohort.csv", one_number())
    assert entry.path == tmp_path / "real" / "a.tif"


def test_a_dataset_folder_holds_schema_and_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such folder.*--dataset_dir"):
        Cohort.load_dir(tmp_path / "nowhere")
    table = write_text(tmp_path / "study.csv", GOOD)
    with pytest.raises(UserError, match=r"clinical\.yaml: no such file"):
        Cohort.load_dir(tmp_path, table="study.csv")
    (tmp_path / "clinical.yaml").write_text(str(DECLARED), encoding="utf-8")
    assert Cohort.load_dir(tmp_path, table="study.csv").entries == Cohort.load(table, SCHEMA).entries
    with pytest.raises(UserError, match="found no cohort table"):
        Cohort.load_dir(tmp_path)


def test_nothing_of_a_patient_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        cohort = load(tmp_path, edited((4, "age", "63.25"), name=["Doe", "Doe", "Roe"]))
    for secret in ("P1", "63.25", "male", "Doe", "a.tif"):
        assert secret not in caplog.text
        assert secret not in repr(cohort.entries)


def test_slides_alone_need_nothing_but_their_column(tmp_path: Path) -> None:
    def slides(text: str) -> Cohort:
        (tmp_path / "cohort.csv").write_text(text)
        return Cohort.load_slides(tmp_path / "cohort.csv", tmp_path / "problems.csv")

    found = slides("patient_id,slide,label,fold,age,mpp\nP1,a.tif,?,x,#REF!,0.5\n,b.tif,,,,\nP2,a.tif,,,,0.5\n")
    assert [(entry.slide, entry.mpp, entry.label, entry.row) for entry in found] == [
        ("a.tif", 0.5, None, 2),
        ("b.tif", None, None, 3),
    ]
    for text, parts in (
        ("slide,mpp\na.tif,0.5\na.tif,0.25\n", ("row 3", "a.tif", "row 2")),
        ("slide,mpp\na.tif,40\n", ("row 2", '"mpp"', "40")),
        ("slide\na.tif\nd.tif\n", ("row 3", "d.tif")),
        ("slides,patient_id\na.tif,P1\n", ('"slide": is missing', 'mean "slides"')),
        ("slide,mpp\na.tif,\n,0.5\n", ("row 3", '"slide"')),
    ):
        with pytest.raises(UserError) as caught:
            slides(text)
        assert all(part in str(caught.value) for part in parts), caught.value
        assert (tmp_path / "problems.csv").is_file()
