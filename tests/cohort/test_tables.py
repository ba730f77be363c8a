# SPDX-License-Identifier: Apache-2.0
"""How files become tables: separators, sheets, types, and what the readers pass over."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort, find_table, read_table
from persam_monai.errors import UserError
from tests.cohort.making import WRITERS, write_excel, write_text

SCHEMA = ClinicalSchema.from_dict(
    {"classes": ["FL", "17"], "groups": {"g": {"age": {"kind": "numeric"}, "smoker": {"kind": "binary"}}}}
)
CELLS: list[list[Any]] = [
    ["patient_id", "slide", "label", "age", "smoker", "mpp", "fold", "note"],
    ["P, 1", "a.svs", "FL", 63, True, 0.25, 0, 'a "word"; or two'],
    ["P, 1", "b.svs", "FL", 63, True, None, 0, None],
    ["Pé", "c.svs", "17", None, False, 0.5, 1, "tab\tbed"],
]


def slides(folder: Path) -> None:
    for name in "abc":
        (folder / f"{name}.svs").touch()


def cells_of(path: Path) -> list[tuple[int, list[Any]]]:
    return [(row.line, list(row.cells.values())) for row in read_table(path).rows]


def test_five_forms_of_a_table_are_one_cohort(tmp_path: Path) -> None:
    slides(tmp_path)
    expected = None
    for name, write in WRITERS.items():
        cohort = Cohort.load(write(tmp_path / name, CELLS), SCHEMA)
        first = 1 if name.endswith("parquet") else 2
        assert [entry.row for entry in cohort] == [first, first + 1, first + 2]
        entries = [replace(entry, row=0) for entry in cohort]
        expected = expected or entries
        assert entries == expected
        assert [entry.mpp for entry in cohort] == [0.25, None, 0.5]
        np.testing.assert_array_equal(cohort.clinical_matrix(), np.array([[63, 1], [np.nan, 0]], np.float32))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("note", ["", "sep={}\n", '"sep={}"\r\n', "SEP={}\n"])
def test_the_header_or_its_note_tells_the_separator(tmp_path: Path, separator: str, note: str) -> None:
    lines = [["slide", "patient_id", 'a "b", c; d'], ["1,5", "2;5", "3"]]
    path = write_text(tmp_path / "cohort.csv", lines, separator)
    path.write_text(note.format(separator) + path.read_text(), newline="")
    assert cells_of(path) == [(3 if note else 2, ["1,5", "2;5", "3"])]


def test_without_patient_id_the_most_columns_tell(tmp_path: Path) -> None:
    path = tmp_path / "cohort.csv"
    path.write_text("ID;slide, path;label\n1;2;3\n")
    assert read_table(path).columns == ("ID", "slide, path", "label")
    path.write_text("slide\na.svs\n")
    assert read_table(path).columns == ("slide",)


def test_text_may_have_a_mark_windows_lines_and_breaks_inside_cells(tmp_path: Path) -> None:
    path = tmp_path / "cohort.tsv"
    path.write_bytes('\ufeffpatient_id\t"sli\r\nde"\r\n\r\n"x"\t y \r\n\t\r\n"p\nq"\tz'.encode())
    assert read_table(path).columns == ("patient_id", "sli de")
    assert cells_of(path) == [(4, ["x", "y"]), (6, ["p\nq", "z"])]


def test_uneven_rows_are_refused_unless_admitted(tmp_path: Path) -> None:
    path = tmp_path / "cohort.csv"
    path.write_text("patient_id,slide\n1,2\n1\n1,2,3\n")
    with pytest.raises(UserError, match=r"(?s)row 3: found 1 cell, expected 2.*row 4: found 3 cells"):
        read_table(path)
    table = read_table(path, admit_uneven=True)
    assert [row.line for row in table.rows] == [2]
    assert [line for line, _ in table.uneven] == [3, 4]


@pytest.mark.parametrize("identifier", [17, 17.0, "17"])
@pytest.mark.parametrize("name", ["cohort.xlsx", "cohort.parquet"])
def test_numbers_that_name_something_are_the_text_that_people_see(
    tmp_path: Path, name: str, identifier: object
) -> None:
    slides(tmp_path)
    (tmp_path / "17").touch()
    cells = [CELLS[0], [identifier, identifier, identifier, 63, True, 0.25, 0.0, ""]]
    (entry,) = Cohort.load(WRITERS[name](tmp_path / name, cells), SCHEMA)
    assert (entry.patient_id, entry.slide, entry.label, entry.fold) == ("17", "17", 1, 0)
    assert entry.path == tmp_path / "17"


def test_an_identifier_that_excel_has_rounded_is_refused(tmp_path: Path) -> None:
    slides(tmp_path)
    cells = [CELLS[0], [1.23456789012345e18, *CELLS[1][1:]]]
    with pytest.raises(
        UserError, match=r'row 2, column "patient_id": .*rounded to 15 digits.*format the column as text'
    ):
        Cohort.load(write_excel(tmp_path / "cohort.xlsx", cells), SCHEMA)


def test_parquet_types_are_what_they_mean(tmp_path: Path) -> None:
    columns = {
        "text": pa.array([" a ", None, "c"]).dictionary_encode(),
        "whole": pa.array([1, None, 3], pa.int8()),
        "narrow": pa.array([0.1, None, float("nan")], pa.float32()),
        "truth": pa.array([True, None, False]),
        "money": pa.array([Decimal("1.50"), None, Decimal("2.00")]),
        "day": pa.array([date(2020, 5, 1), None, None]),
        "moment": pa.array([datetime(2020, 5, 1, 12), None, None], pa.timestamp("ns")),
        "nothing": pa.nulls(3),
        "list": pa.array([[1], None, [2, 3]]),
        "bytes": pa.array([b"a", None, b"b"]),
    }
    pq.write_table(pa.table(columns), tmp_path / "cohort.parquet")
    table = read_table(tmp_path / "cohort.parquet")
    assert set(table.faults) == {"list", "bytes"}
    assert [row.line for row in table.rows] == [1, 3]
    first, last = (row.cells for row in table.rows)
    assert list(first.values())[:5] == ["a", 1, 0.1, True, 1.5]
    assert (first["day"], first["moment"]) == (date(2020, 5, 1), datetime(2020, 5, 1, 12))
    assert list(last.values())[:2] == ["c", 3]
    assert np.isnan(last["narrow"])
    assert (last["truth"], last["money"], last["nothing"]) == (False, 2, None)


def test_a_frame_of_pandas_is_read(tmp_path: Path) -> None:
    slides(tmp_path)
    frame = pd.DataFrame(CELLS[1:], columns=CELLS[0]).convert_dtypes()
    frame["label"] = frame["label"].astype("category")
    frame.set_index("patient_id").to_parquet(tmp_path / "cohort.parquet")
    frame.to_excel(tmp_path / "cohort.xlsx", index=False)
    one, other = (Cohort.load(tmp_path / name, SCHEMA) for name in ("cohort.parquet", "cohort.xlsx"))
    assert [replace(entry, row=0) for entry in one] == [replace(entry, row=0) for entry in other]
    np.testing.assert_array_equal(one.clinical_matrix(), other.clinical_matrix())


@pytest.mark.parametrize("name", list(WRITERS))
def test_a_damaged_file_is_told_and_does_not_crash(tmp_path: Path, name: str) -> None:
    generator = np.random.default_rng(0)
    path = WRITERS[name](tmp_path / name, CELLS)
    whole = path.read_bytes()
    for attempt in range(60):
        damaged = bytearray(whole[: generator.integers(len(whole))] if attempt % 3 == 0 else whole)
        for place in generator.integers(len(damaged), size=5 if damaged else 0):
            damaged[place] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            cohort = Cohort.load(path, SCHEMA, require_slides=False)
        except UserError as error:
            told = str(error)
            assert str(path) in told
        else:
            assert 0 < len(cohort) <= 3


def test_columns_that_cannot_be_read_are_harmless_if_nobody_needs_them(tmp_path: Path) -> None:
    slides(tmp_path)
    cells = [[*CELLS[0], "more"], *([*row, [1, 2]] for row in CELLS[1:])]
    assert len(Cohort.load(WRITERS["cohort.parquet"](tmp_path / "cohort.parquet", cells), SCHEMA)) == 3


def test_the_one_table_of_a_folder_is_found(tmp_path: Path) -> None:
    assert find_table(tmp_path) is None
    for other in ("cohort.yaml", "cohort.csv.bak", ".~lock.cohort.csv#", "~$cohort.xlsx", "my_cohort.csv"):
        (tmp_path / other).touch()
    (tmp_path / "cohort").mkdir()
    assert find_table(tmp_path) is None
    (tmp_path / "cohort.ods").touch()
    assert find_table(tmp_path) == tmp_path / "cohort.ods"  # so that reading it tells what to do
    (tmp_path / "cohort.XLSX").touch()
    for nothing in (None, "null", ""):
        assert find_table(tmp_path, nothing) == tmp_path / "cohort.XLSX"
    (tmp_path / "cohort.csv").touch()
    with pytest.raises(UserError, match=r"found 2 cohort tables \(cohort\.XLSX, cohort\.csv\).*--table cohort\.XLSX"):
        find_table(tmp_path)
    assert find_table(tmp_path, "cohort.csv") == tmp_path / "cohort.csv"
    assert find_table(tmp_path, "elsewhere/any.tsv") == tmp_path / "elsewhere" / "any.tsv"


def test_a_table_can_be_named_and_slides_can_be_left_for_later(tmp_path: Path) -> None:
    (tmp_path / "clinical.yaml").write_text(str(SCHEMA.to_dict()), encoding="utf-8")
    write_text(tmp_path / "cohort.csv", CELLS)
    shutil.copy(tmp_path / "cohort.csv", tmp_path / "study.tsv")
    (tmp_path / "cohort.tsv").touch()
    with pytest.raises(UserError, match="3 of 3 slide files not found"):
        Cohort.load_dir(tmp_path, table="study.tsv")
    assert len(Cohort.load_dir(tmp_path, table="study.tsv", require_slides=False)) == 3
    with pytest.raises(UserError, match=r"studi\.tsv: no such file; expected the cohort table\. Did you mean \"study"):
        Cohort.load_dir(tmp_path, table="studi.tsv")


@pytest.mark.parametrize("name", ["cohort.csv", "cohort.xlsx"])
def test_a_study_with_a_fifth_of_a_column_missing_is_read(tmp_path: Path, name: str) -> None:
    generator = np.random.default_rng(0)
    variables = {f"v{number}": {"kind": "numeric", "range": [0, 1000]} for number in range(35)}
    schema = ClinicalSchema.from_dict({"classes": ["A", "B"], "groups": {"g": variables}})
    values = generator.uniform(0, 1000, (763, 35)).round(2)
    values[generator.permutation(763)[:153], 7] = np.nan
    cells: list[list[Any]] = [["patient_id", "slide", "label", *variables]]
    for number, record in enumerate(values.tolist()):
        known = [None if value != value else value for value in record]
        cells.append([f"P{number}", f"{number}.svs", "AB"[number % 2], *known])
    cohort = Cohort.load(WRITERS[name](tmp_path / name, cells), schema, require_slides=False)
    assert cohort.class_counts() == [382, 381]
    np.testing.assert_array_equal(cohort.clinical_matrix(), values.astype(np.float32))
    assert np.isnan(cohort.clinical_matrix()).sum() == 153
