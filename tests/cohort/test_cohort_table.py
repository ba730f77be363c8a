# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import math
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort
from persam_monai.errors import UserError

SCHEMA = ClinicalSchema.from_dict(
    {
        "classes": ["DLBCL", "FL"],
        "groups": {
            "interview": {"age": {"kind": "numeric"}, "sex": {"kind": "categorical", "levels": ["female", "male"]}},
            "blood": {"ldh": {"kind": "numeric", "transform": "log"}},
        },
    }
)
HEADER = "patient_id,slide,label,age,sex,ldh"
GOOD = [HEADER, "P1,a.tif,FL,63,male,250", "P1,b.tif,FL,63,male,250", "P2,c.tif,DLBCL,,female,"]

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a table, and a file for each slide named."""

    def table(lines: list[str], slides: str = "abc", encoding: str = "utf-8") -> Path:
        for name in slides:
            (tmp_path / f"{name}.tif").touch()
        path = tmp_path / "cohort.csv"
        path.write_text("\n".join(lines) + "\n", encoding=encoding)
        return path

    return table


def complaint(path: Path, require_labels: bool = True) -> str:
    with pytest.raises(UserError) as caught:
        Cohort.load(path, SCHEMA, require_labels)
    message = str(caught.value)
    assert str(path) in message
    return message


def edited(old: str, new: str) -> list[str]:
    text = "\n".join(GOOD)
    assert old in text
    return text.replace(old, new, 1).split("\n")


def test_a_table_becomes_slides_patients_and_records(write: Write, tmp_path: Path) -> None:
    cohort = Cohort.load(write(GOOD), SCHEMA)
    assert len(cohort) == 3
    assert [entry.slide for entry in cohort] == ["a.tif", "b.tif", "c.tif"]
    assert [entry.path for entry in cohort] == [tmp_path / f"{name}.tif" for name in "abc"]
    assert [entry.row for entry in cohort] == [2, 3, 4]
    assert cohort.patients == ("P1", "P2")
    assert cohort.labels == (1, 1, 0)
    assert cohort.patient_labels == {"P1": 1, "P2": 0}
    assert cohort.class_counts() == [1, 2]
    assert cohort.classes == ("DLBCL", "FL")
    expected = np.array([[63, 0, 1, math.log(250)], [math.nan, 1, 0, math.nan]], np.float32)
    np.testing.assert_array_equal(cohort.clinical_matrix(), expected)
    assert cohort.clinical_matrix().dtype == np.float32
    assert {(entry.mpp, entry.fold) for entry in cohort} == {(None, None)}


def test_optional_columns_are_read_and_others_ignored(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    extra = ["note,mpp,fold", "secret,0.25,0", ",,0", "x,0.5,2"]
    with caplog.at_level(logging.INFO):
        cohort = Cohort.load(write([f"{line},{more}" for line, more in zip(GOOD, extra, strict=True)]), SCHEMA)
    assert [entry.mpp for entry in cohort] == [0.25, None, 0.5]
    assert [entry.fold for entry in cohort] == [0, 0, 2]
    assert len(caplog.messages) == 1
    assert caplog.messages[0].endswith("ignored: note")
    assert caplog.records[0].levelno == logging.INFO


def test_lines_are_the_files_own(write: Write) -> None:
    lines = [HEADER, "", 'P1,a.tif,FL,"63",male,250', ",,,,,", 'P1,b.tif,FL,63,"', 'male",250', "P2,c.tif,FX,,female,"]
    assert "row 7, " in complaint(write(lines))


def test_byte_order_mark_and_spaces_do_no_harm(write: Write) -> None:
    lines = [line.replace(",", " , ") for line in GOOD]
    cohort = Cohort.load(write(lines, encoding="utf-8-sig"), SCHEMA)
    assert cohort.patients == ("P1", "P2")
    assert cohort.labels == (1, 1, 0)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("P1,b", ",b", ['row 3, column "patient_id": found "", expected a value']),
        ("c.tif", "", ['row 4, column "slide": found "", expected a value']),
        ("c.tif", "./a.tif", ['row 4, column "slide": found "./a.tif", which is in row 2 already']),
        ("DLBCL", "DLBLC", ['row 4, column "label": found "DLBLC"', "one of DLBCL, FL", 'Did you mean "DLBCL"?']),
        ("DLBCL", "", ['row 4, column "label": found "", expected one of DLBCL, FL']),
        ("female", "femal", ['row 4, column "sex": found "femal"', 'Did you mean "female"?']),
        ("male,250", "male,high", ['row 2, column "ldh": found "high", expected a number']),
        ("male,250", "male,0", ['row 2, column "ldh": found "0"', "transform: log"]),
        ("P1,b.tif,FL", "P1,b.tif,DLBCL", ['row 3, column "label": found DLBCL here and FL in row 2']),
        ("b.tif,FL,63", "b.tif,FL,64", ['row 3, column "age": found 64 here and 63 in row 2', "same patient"]),
        ("b.tif,FL,63,male,250", "b.tif,FL,63,male,", ['column "ldh": found an empty cell here and 250 in row 2']),
        ("b.tif,FL,63,male", "b.tif,FL,63,female", ['column "sex": found female here and male in row 2']),
        (
            HEADER,
            HEADER.replace("ldh", "platelets"),
            ['column "ldh": is missing; the table has patient_id, slide, label', "Add the column, and leave"],
        ),
        (
            HEADER,
            HEADER.replace("ldh", "LDH_"),
            ['column "ldh": is missing; the table has patient_id, slide, label', 'Did you mean "LDH_"? Rename'],
        ),
        (HEADER, HEADER.replace("label", "lable"), ['column "label": is missing', 'Did you mean "lable"? Rename']),
        (HEADER, HEADER.replace("ldh", "age"), ['column "age": stands 2 times', 'column "ldh": is missing']),
        (HEADER, HEADER.replace("slide", "Slide"), ['column "slide": is missing', 'Did you mean "Slide"?']),
        ("DLBCL,,", "DLBCL,", ["row 4: found 5 cells, expected 6"]),
        ("male,250", "male,2,50", ["row 2: found 7 cells, expected 6", "quotes"]),
        ("P2", '"P2', ["row 4: not valid CSV", "quotes"]),
    ],
)
def test_each_fault_is_told_with_its_place_and_cure(write: Write, old: str, new: str, told: list[str]) -> None:
    message = complaint(write(edited(old, new)))
    for part in told:
        assert part in message


@pytest.mark.parametrize(
    ("column", "cells", "told"),
    [
        ("mpp", ["0", "", "0.25"], ['row 2, column "mpp": found "0"', "such as 0.25"]),
        ("mpp", ["0.25 um", "nan", "-1"], ['row 2, column "mpp"', 'row 4, column "mpp": found "-1"']),
        ("fold", ["0", "0", "1.5"], ['row 4, column "fold": found "1.5"', "a whole number from 0"]),
        ("fold", ["0", "0", "-1"], ['row 4, column "fold": found "-1"']),
        ("fold", ["0", "", ""], ['column "fold": 2 cells are empty (rows 3, 4)', "every row a fold, or none"]),
        ("fold", ["0", "1", "2"], ['row 3, column "fold": found 1 here and 0 in row 2']),
        ("Fold", ["0", "0", "1"], ['column "Fold": did you mean "fold"? Rename']),
        ("MPP", ["1", "1", "1"], ['column "MPP": did you mean "mpp"?']),
    ],
)
def test_optional_columns_are_checked(write: Write, column: str, cells: list[str], told: list[str]) -> None:
    lines = [f"{line},{cell}" for line, cell in zip(GOOD, [column, *cells], strict=True)]
    message = complaint(write(lines))
    for part in told:
        assert part in message


def test_an_empty_fold_column_is_none(write: Write) -> None:
    cohort = Cohort.load(
        write([f"{line},{cell}" for line, cell in zip(GOOD, ["fold", "", "", ""], strict=True)]), SCHEMA
    )
    assert {entry.fold for entry in cohort} == {None}


def test_every_missing_slide_is_listed(write: Write, tmp_path: Path) -> None:
    lines = [HEADER, *(f"P{number},s{number}.tif,FL,1,male,1" for number in range(60))]
    (tmp_path / "s7.tif").mkdir()
    message = complaint(write(lines, slides=""))
    assert "60 of 60 slide files not found" in message
    for number in range(60):
        assert f"row {number + 2}: {tmp_path / f's{number}.tif'}" in message
    assert "s7.tif (a folder)" in message


def test_missing_slides_are_listed_beside_many_other_problems(write: Write, tmp_path: Path) -> None:
    lines = [HEADER, *(f"P{number},s{number}.tif,XX,old,it,0" for number in range(30))]
    message = complaint(write(lines, slides=""))
    assert all(f"row {number + 2}: {tmp_path / f's{number}.tif'}" in message for number in range(30))
    assert 'row 2, column "age"' in message
    assert '… and 25 more in column "age" (rows 7, 8, ' in message


def test_all_problems_come_together(write: Write) -> None:
    lines = [HEADER.replace("sex", "gender"), "P1,a.tif,XX,old,male,250", "P1,b.tif,FL,63,male,0", ",z.tif,FL,1,male,1"]
    message = complaint(write(lines))
    told = ['"sex": is missing', 'row 2, column "label"', 'row 2, column "age"', 'row 3, column "ldh"']
    for part in [*told, 'row 4, column "patient_id"', "z.tif"]:
        assert part in message
    assert "same patient" not in message  # a cell that is wrong already is not compared


def test_labels_may_be_absent_for_inference(write: Write) -> None:
    without = [",".join(line.split(",")[:2] + line.split(",")[3:]) for line in GOOD]
    assert Cohort.load(write(without), SCHEMA, require_labels=False).labels == (None, None, None)
    assert 'column "label": is missing' in complaint(write(without))
    partly = Cohort.load(write(edited("a.tif,FL", "a.tif,")), SCHEMA, require_labels=False)
    assert partly.labels == (None, 1, 0)
    assert partly.patient_labels == {"P1": 1, "P2": 0}
    assert partly.class_counts() == [1, 1]
    message = complaint(write(edited("a.tif,FL", "a.tif,CLL")), require_labels=False)
    assert 'found "CLL", expected one of DLBCL, FL, or an empty cell' in message


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the table is empty"),
        (b"\n\n", "the table is empty"),
        (HEADER.encode(), "no rows"),
        (HEADER.replace(",", "|").encode() + b"\nP1|a.tif|FL|63|male|250", "tried comma, semicolon, tab as separator"),
        ((HEADER + "\nJosé,a.tif,FL,63,male,250").encode("latin-1"), "not UTF-8"),
        (HEADER.encode("utf-16"), "not UTF-8"),
    ],
)
def test_files_that_are_no_table(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "cohort.csv"
    path.write_bytes(content)
    assert told in complaint(path)


def test_a_missing_or_unreadable_table_is_told(tmp_path: Path) -> None:
    assert "no such file; expected the cohort table" in complaint(tmp_path / "cohort.csv")
    assert "cannot be read" in complaint(tmp_path)


def test_a_dataset_folder_holds_schema_and_table(write: Write, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such folder; expected the dataset folder.*--dataset_dir"):
        Cohort.load_dir(tmp_path / "nowhere")
    with pytest.raises(UserError) as caught:
        Cohort.load_dir(tmp_path)
    assert f"{tmp_path / 'clinical.yaml'} (the clinical schema" in str(caught.value)
    assert f"{tmp_path / 'cohort.csv'} (the cohort table" in str(caught.value)
    table = write(GOOD)
    (tmp_path / "clinical.yaml").write_text(str(SCHEMA.to_dict()), encoding="utf-8")  # JSON-like text is YAML too
    cohort = Cohort.load_dir(tmp_path)
    assert cohort.schema == SCHEMA
    assert cohort.entries == Cohort.load(table, SCHEMA).entries


def test_a_subset_keeps_schema_and_order(write: Write) -> None:
    cohort = Cohort.load(write(GOOD), SCHEMA)
    part = cohort.subset(entry for entry in cohort if entry.patient_id == "P2")
    assert part.patients == ("P2",)
    assert part.schema is cohort.schema
    assert part.clinical_matrix().shape == (1, 4)
    assert cohort.subset([]).clinical_matrix().shape == (0, 4)


def test_nothing_of_a_patient_is_printed_or_logged(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    lines = [HEADER + ",name", "Identifier7,a.tif,FL,63.25,male,250,Doe", "Identifier8,b.tif,DLBCL,64,male,1,Roe"]
    with caplog.at_level(logging.DEBUG):
        cohort = Cohort.load(write(lines), SCHEMA)
    for secret in ("Identifier", "63.25", "male", "Doe", "a.tif"):
        assert secret not in caplog.text
        assert secret not in repr(cohort.entries)


def test_a_cohort_travels_to_worker_processes(write: Write) -> None:
    cohort = Cohort.load(write(GOOD), SCHEMA)
    again = pickle.loads(pickle.dumps(cohort))
    assert again.entries == cohort.entries
    np.testing.assert_array_equal(again.clinical_matrix(), cohort.clinical_matrix())


def test_folds_as_pandas_writes_them_are_folds(write: Write) -> None:
    lines = [f"{line},{cell}" for line, cell in zip(GOOD, ["fold", "0.0", "0", "1.0"], strict=True)]
    assert [entry.fold for entry in Cohort.load(write(lines), SCHEMA)] == [0, 0, 1]


def test_two_links_to_one_slide_are_one_slide(write: Write, tmp_path: Path) -> None:
    path = write(GOOD, slides="ab")
    (tmp_path / "c.tif").symlink_to(tmp_path / "a.tif")
    assert 'row 4, column "slide": found "c.tif", which is in row 2 already' in complaint(path)


def test_an_error_of_excels_is_no_other_level(write: Write) -> None:
    schema = {"classes": ["DLBCL", "FL"], "groups": {"g": {"site": {"kind": "categorical", "levels": ["a", "b"]}}}}
    schema["groups"]["g"]["site"]["other"] = True  # type: ignore[index]
    path = write(["patient_id,slide,label,site", "P1,a.tif,FL,#BEZUG!", "P2,b.tif,FL,#x"])
    with pytest.raises(UserError, match=r'1 problem in 1 column:\n.*row 2, column "site": found "#BEZUG!"'):
        Cohort.load(path, ClinicalSchema.from_dict(schema))


def test_cells_with_a_missing_code_are_counted(write: Write) -> None:
    schema = ClinicalSchema.from_dict({**SCHEMA.to_dict(), "missing_codes": [-9, "n.d."]})
    lines = [HEADER, "P1,a.tif,FL,-9.0,male,", "P2,b.tif,FL,63,N.D.,-9", "P3,c.tif,DLBCL,-9,,na"]
    cohort = Cohort.load(write(lines), schema)
    assert cohort.coded == {"age": 2, "sex": 1, "ldh": 1}
    assert np.isnan(cohort.clinical_matrix()[:, 0]).tolist() == [True, False, True]
    assert Cohort.load(write(GOOD), SCHEMA).coded == {}
