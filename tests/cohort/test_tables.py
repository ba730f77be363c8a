# SPDX-License-Identifier: Apache-2.0
"""How files become tables: separators, sheets, types, and damage."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
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
    ["P, 1", "a.svs", "FL", 63.5, True, 0.25, 0, 'a "word"; or two'],
    ["P, 1", "b.svs", "FL", 63.5, True, None, 0, None],
    ["Pé", "c.svs", "17", None, False, 0.5, 1, "tab\tbed"],
]


def cells_of(path: Path) -> list[tuple[int, list[Any]]]:
    return [(row.line, list(row.cells.values())) for row in read_table(path).rows]


def test_five_forms_of_a_table_are_one_cohort(tmp_path: Path) -> None:
    expected = None
    for name, write in WRITERS.items():
        cohort = Cohort.load(write(tmp_path / name, CELLS), SCHEMA, require_slides=False)
        first = 1 if name.endswith("parquet") else 2
        assert [entry.row for entry in cohort] == [first, first + 1, first + 2]
        entries = [replace(entry, row=0) for entry in cohort]
        expected = expected or entries
        assert entries == expected
        assert [entry.mpp for entry in cohort] == [0.25, None, 0.5]
        np.testing.assert_array_equal(cohort.clinical_matrix(), np.array([[63.5, 1], [np.nan, 0]], np.float32))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("note", ["", "sep={}\n", '"sep={}"\r\n'])
def test_the_header_or_its_note_tells_the_separator(tmp_path: Path, separator: str, note: str) -> None:
    lines = [["slide", "patient_id", 'a "b", c; d'], ["1,5", "2;5", "3"]]
    path = write_text(tmp_path / "cohort.csv", lines, separator)
    path.write_text(note.format(separator) + path.read_text(), newline="")
    assert cells_of(path) == [(3 if note else 2, ["1,5", "2;5", "3"])]


def test_text_may_have_a_mark_windows_lines_and_breaks_inside_cells(tmp_path: Path) -> None:
    path = tmp_path / "cohort.tsv"
    path.write_bytes('\ufeffpatient_id\t"sli\r\nde"\r\n\r\n"x"\t y \r\n\t\r\n"p\nq"\tz'.encode())
    assert read_table(path).columns == ("patient_id", "sli de")
    assert cells_of(path) == [(4, ["x", "y"]), (6, ["p\nq", "z"])]


@pytest.mark.parametrize("identifier", [17, 17.0, "17"])
@pytest.mark.parametrize("name", ["cohort.xlsx", "cohort.parquet"])
def test_numbers_that_name_something_are_the_text_that_people_see(tmp_path: Path, name: str, identifier: Any) -> None:
    cells = [CELLS[0], [identifier, identifier, identifier, 63, True, 0.25, 0.0, ""]]
    (entry,) = Cohort.load(WRITERS[name](tmp_path / name, cells), SCHEMA, require_slides=False)
    assert (entry.patient_id, entry.slide, entry.label, entry.fold) == ("17", "17", 1, 0)
    assert entry.path == tmp_path / "17"


def test_a_workbook_gives_values_dates_and_percentages_of_its_one_sheet(tmp_path: Path) -> None:
    cells: list[list[Any]] = [["patient_id", "share", "seen", "score"], ["P1", 0.455, date(2020, 5, 1), 7]]
    path = write_excel(tmp_path / "cohort.xlsx", cells, "Cohort", notes=[["something else"]])
    book = openpyxl.load_workbook(path)
    book["Cohort"]["B2"].number_format = "0.0%"
    book.save(path)
    ((line, found),) = cells_of(path)
    assert (line, found[1], found[3]) == (2, "45.5%", 7)
    assert pd.Timestamp(found[2]) == pd.Timestamp(2020, 5, 1)


def test_a_hidden_sheet_is_not_looked_at_and_two_filled_ones_are_an_error(tmp_path: Path) -> None:
    path = write_excel(tmp_path / "cohort.xlsx", CELLS, "Sheet1", notes=[["something else"]])
    with pytest.raises(UserError, match=r'2 sheets.*"Sheet1", "notes".*"cohort"'):
        read_table(path)
    book = openpyxl.load_workbook(path)
    book["notes"].sheet_state = "hidden"
    book.save(path)
    assert len(read_table(path).rows) == 3


def test_parquet_types_are_what_they_mean(tmp_path: Path) -> None:
    columns = {
        "text": pa.array([" a ", None, "c"]).dictionary_encode(),
        "whole": pa.array([1, None, 3], pa.int8()),
        "narrow": pa.array([0.1, None, float("nan")], pa.float32()),
        "truth": pa.array([True, None, False]),
        "money": pa.array([Decimal("1.50"), None, Decimal("2.00")]),
        "day": pa.array([date(2020, 5, 1), None, None]),
    }
    pq.write_table(pa.table(columns), tmp_path / "cohort.parquet")
    (first, last) = cells_of(tmp_path / "cohort.parquet")
    assert first == (1, ["a", 1, 0.1, True, Decimal("1.50"), date(2020, 5, 1)])
    assert (last[0], last[1][:2]) == (3, ["c", 3])
    assert np.isnan(last[1][2])


def test_a_frame_of_pandas_is_read(tmp_path: Path) -> None:
    frame = pd.DataFrame(CELLS[1:], columns=CELLS[0]).convert_dtypes()
    frame["label"] = frame["label"].astype("category")
    frame.set_index("patient_id").to_parquet(tmp_path / "cohort.parquet")
    frame.to_excel(tmp_path / "cohort.xlsx", index=False)
    names = ("cohort.parquet", "cohort.xlsx")
    one, other = (Cohort.load(tmp_path / name, SCHEMA, require_slides=False) for name in names)
    assert [replace(entry, row=0) for entry in one] == [replace(entry, row=0) for entry in other]
    np.testing.assert_array_equal(one.clinical_matrix(), other.clinical_matrix())


@pytest.mark.parametrize("name", list(WRITERS))
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    generator = np.random.default_rng(0)
    path = WRITERS[name](tmp_path / name, CELLS)
    whole = path.read_bytes()
    for attempt in range(40):
        damaged = bytearray(whole[: generator.integers(len(whole))] if attempt % 3 == 0 else whole)
        for position in generator.integers(len(damaged), size=5 if damaged else 0):
            damaged[position] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            assert 0 < len(Cohort.load(path, SCHEMA, require_slides=False)) <= 3
        except UserError as error:
            message = str(error)
        else:
            message = str(path)
        assert str(path) in message


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("cohort.csv", b"", ("the table is empty",)),
        ("cohort.csv", b"patient_id,slide\n", ("the table is empty",)),
        ("cohort.csv", "patient_id\nJosé\n".encode("latin-1"), ("not UTF-8",)),
        ("cohort.csv", "patient_id,slide\n1,2\n".encode("utf-16"), ("not UTF-8",)),
        ("cohort.csv", b'patient_id,slide\n1,"2\n', ("row 2", "quotes")),
        ("cohort.csv", b"sep=|\npatient_id|slide\n1|2\n", ('found "sep=|"', "semicolon")),
        ("cohort.xlsx", b"patient_id,slide\n1,2\n", ("not a readable Excel workbook",)),
        ("cohort.parquet", b"patient_id,slide\n1,2\n", ("not a readable Parquet file",)),
        ("cohort.ods", b"", ('found the ending ".ods"', ".xlsx")),
    ],
)
def test_what_is_no_table_is_an_error(tmp_path: Path, name: str, content: bytes, parts: tuple[str, ...]) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_table(tmp_path / name)
    for part in (str(tmp_path / name), *parts):
        assert part in str(caught.value)


def test_the_one_table_of_a_folder_is_found(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"found no cohort table.*cohort\.csv"):
        find_table(tmp_path)
    for other in ("cohort.yaml", "cohort.csv.bak", ".~lock.cohort.csv#", "~$cohort.xlsx"):
        (tmp_path / other).touch()
    (tmp_path / "cohort.xlsx").touch()
    assert find_table(tmp_path) == tmp_path / "cohort.xlsx"
    (tmp_path / "cohort.csv").touch()
    with pytest.raises(UserError, match=r"2 cohort tables \(cohort\.csv, cohort\.xlsx\).*--table cohort\.csv"):
        find_table(tmp_path)
    assert find_table(tmp_path, "elsewhere/any.tsv") == tmp_path / "elsewhere" / "any.tsv"
    with pytest.raises(UserError, match=r"cohorts\.csv: no such file.*cohort\.csv"):
        read_table(tmp_path / "cohorts.csv")
    with pytest.raises(UserError, match="nowhere: no such folder"):
        find_table(tmp_path / "nowhere")
