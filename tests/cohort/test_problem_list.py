# SPDX-License-Identifier: Apache-2.0
"""What is told on the screen, what is kept in the file, and what goes into the log."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import pytest

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort
from persam_monai.errors import UserError
from tests.cohort.making import write_text

VARIABLES = [f"v{number}" for number in range(40)]
SCHEMA = ClinicalSchema.from_dict(
    {
        "classes": ["DLBCL", "FL"],
        "groups": {
            "a": {
                "age": {"kind": "numeric"},
                "site": {"kind": "categorical", "levels": ["neck", "groin"], "other": True},
            },
            "b": {"ldh": {"kind": "numeric"}},
        },
    }
)
HEADER = ["patient_id", "slide", "label", "ldh", "age", "site"]


def rows(number: int, ldh: str = "250", age: str = "63", site: str = "neck") -> list[list[str]]:
    return [HEADER, *([f"P{patient}", f"s{patient}.svs", "FL", ldh, age, site] for patient in range(number))]


def complaint(path: Path, file: Path | None, schema: ClinicalSchema = SCHEMA) -> str:
    with pytest.raises(UserError) as caught:
        Cohort.load(path, schema, problems_file=file, require_slides=False)
    return str(caught.value)


def kept(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_screen_shows_the_first_rows_of_each_column_in_the_tables_order(tmp_path: Path) -> None:
    table = write_text(tmp_path / "cohort.csv", rows(17, ldh="high", age="old"))
    file = tmp_path / "new" / "problems.csv"
    heading, *lines = complaint(table, file).splitlines()
    assert (
        heading == f"{table}: the cohort table needs correcting: 34 problems in 2 columns ({file} lists all of them):"
    )
    for column, part in (("ldh", lines[:6]), ("age", lines[6:])):
        assert [line.split(":")[0] for line in part[:5]] == [f'  - row {row}, column "{column}"' for row in range(2, 7)]
        assert part[5] == f'  - … and 12 more in column "{column}" (rows 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, …)'
        assert 'found "' in part[0]
        assert len(part) == 6


def test_the_file_has_all_of_it_by_column_and_row_without_the_cells(tmp_path: Path) -> None:
    cells = rows(12, ldh="SECRET1", age="SECRET2")
    cells[3][0] = cells[3][2] = ""
    cells[5][:2] = ["p3", "s1.svs"]
    cells += [["P0", "z.svs", "DLBCL", "1", "2", "OTHER9"], ["P9", "y.svs", "SECRET3"]]
    file = tmp_path / "problems.csv"
    complaint(write_text(tmp_path / "cohort.csv", cells), file)
    listed = kept(file)
    places = [(line["column"], int(line["row"])) for line in listed]
    assert places == sorted(places)
    assert places[0] == ("", 15)
    assert [row for column, row in places if column == "age"] == list(range(2, 14))
    assert {("patient_id", 4), ("patient_id", 6), ("label", 4), ("label", 14), ("slide", 6), ("site", 14)} <= set(
        places
    )
    assert all(line["problem"] for line in listed)
    assert not any(word in file.read_text() for word in ("SECRET", "OTHER9", "P3", "p3", "neck", ".svs"))


def test_a_flood_keeps_an_example_of_every_column(tmp_path: Path) -> None:
    schema = ClinicalSchema.from_dict(
        {"classes": ["DLBCL", "FL"], "groups": {"g": {name: {"kind": "numeric"} for name in VARIABLES}}}
    )
    header = ["patient_id", "slide", "label", *VARIABLES]
    cells = [header, *([f"P{row}", f"{row}.svs", "FL", *["x"] * 40] for row in range(763))]
    message = complaint(write_text(tmp_path / "cohort.csv", cells), tmp_path / "problems.csv", schema)
    assert "30520 problems in 40 columns" in message
    assert all(f'row 2, column "{name}": found "x"' in message for name in VARIABLES)
    assert len(message.splitlines()) < 100
    assert len(kept(tmp_path / "problems.csv")) == 30520


def test_many_missing_columns_repeat_the_header_once(tmp_path: Path) -> None:
    cells = [row[:3] for row in rows(2)]
    message = complaint(write_text(tmp_path / "cohort.csv", cells), None)
    assert message.count("the table has patient_id, slide, label") == 1
    assert all(f'column "{name}": is missing' in message for name in ("ldh", "age", "site"))


def test_a_table_in_order_removes_the_list_of_an_earlier_time(tmp_path: Path) -> None:
    file = tmp_path / "problems.csv"
    complaint(write_text(tmp_path / "cohort.csv", rows(3, age="old")), file)
    assert file.exists()
    table = write_text(tmp_path / "cohort.csv", rows(3))
    Cohort.load(table, SCHEMA, problems_file=str(file), require_slides=False)
    assert not file.exists()
    Cohort.load(table, SCHEMA, problems_file="null", require_slides=False)
    file.write_text("column;row;my own notes\n")
    Cohort.load(table, SCHEMA, problems_file=file, require_slides=False)
    assert file.read_text() == "column;row;my own notes\n"


def test_a_list_that_cannot_be_written_does_not_hide_the_problems(tmp_path: Path) -> None:
    table = write_text(tmp_path / "cohort.csv", rows(3, age="old"))
    content = table.read_text()
    (tmp_path / "taken").touch()
    for place, reason in ((tmp_path / "taken" / "problems.csv", "cannot be written"), (table, "is something else")):
        message = complaint(table, place)
        assert 'row 2, column "age": found "old"' in message
        assert "lists all of them" not in message
        assert f"The list of problems was not written: {place} {reason}" in message
    assert table.read_text() == content


def test_a_table_that_cannot_be_read_at_all_is_listed_too(tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text("")
    complaint(tmp_path / "cohort.csv", tmp_path / "problems.csv")
    (line,) = kept(tmp_path / "problems.csv")
    assert (line["column"], line["row"]) == ("", "")
    assert "the table is empty" in line["problem"]


def test_a_table_without_header_gives_no_cell_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = write_text(tmp_path / "cohort.csv", rows(3)[1:])
    with caplog.at_level(logging.DEBUG):
        complaint(table, tmp_path / "problems.csv")
    assert not caplog.messages
    assert not any(word in (tmp_path / "problems.csv").read_text() for word in ("P0", "s0.svs", "neck", "63"))


def test_the_log_says_how_many_rows_count_as_other_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cells = rows(5)
    cells[2][5], cells[4][5] = "spleen", "liver"
    table = write_text(tmp_path / "cohort.csv", cells)
    with caplog.at_level(logging.DEBUG):
        cohort = Cohort.load(table, SCHEMA, require_slides=False)
    assert caplog.messages == ['Column "site": 2 rows count as other, being none of the levels.']
    place = SCHEMA.component_names.index("site=other")
    assert cohort.clinical_matrix()[:, place].tolist() == [0, 1, 0, 1, 0]


def test_rows_are_compared_with_the_first_that_can_be(tmp_path: Path) -> None:
    cells = [
        HEADER,
        *(
            ["P1", f"{row}.svs", label, ldh, "1", "neck"]
            for row, (label, ldh) in enumerate([("", "high"), ("FL", "250"), ("DLBCL", "260")])
        ),
    ]
    table = write_text(tmp_path / "cohort.csv", cells)
    with pytest.raises(UserError) as caught:
        Cohort.load(table, SCHEMA, require_labels=False, require_slides=False)
    message = str(caught.value)
    assert "3 problems in 2 columns" in message
    assert 'row 4, column "label": found DLBCL here and FL in row 3' in message
    assert 'row 4, column "ldh": found 260 here and 250 in row 3' in message


def test_what_may_be_meant_is_told_on_the_screen_and_not_in_the_file(tmp_path: Path) -> None:
    levels = {"kind": "categorical", "levels": ["groin", "axilla"]}
    schema = ClinicalSchema.from_dict({"classes": ["DLBCL", "FL"], "groups": {"g": {"site": levels}}})
    cells = [["patient_id", "slide", "label", "site"], ["P0", "a.svs", "DLBLC", "groim"]]
    message = complaint(write_text(tmp_path / "cohort.csv", cells), tmp_path / "problems.csv", schema)
    assert 'Did you mean "groin"?' in message
    assert 'Did you mean "DLBCL"?' in message
    for line in kept(tmp_path / "problems.csv"):
        assert "mean" not in line["problem"]
        assert line["problem"].startswith("expected one of ")


def test_cells_that_disagree_are_shown_as_the_table_has_them_and_neither_is_called_right(tmp_path: Path) -> None:
    cells = [HEADER, *(["P1", f"{row}.svs", "FL", ldh, "1", "neck"] for row, ldh in enumerate(["1,5", "2,50", "1,50"]))]
    message = complaint(write_text(tmp_path / "cohort.csv", cells, ";"), tmp_path / "problems.csv")
    end = "row 2, which is the same patient; make them agree."
    assert f'row 3, column "ldh": found 2,50 here and 1,5 in {end}' in message
    (line,) = kept(tmp_path / "problems.csv")
    assert (line["column"], line["row"], line["problem"]) == ("ldh", "3", f"does not agree with {end}")


def test_a_header_without_any_needed_column_is_asked_about_once(tmp_path: Path) -> None:
    question = "Does the first row hold the names of the columns?"
    file = tmp_path / "problems.csv"
    assert complaint(write_text(tmp_path / "cohort.csv", rows(3)[1:]), file).count(question) == 1
    assert file.read_text().count(question) == 1
    assert question not in complaint(write_text(tmp_path / "cohort.csv", [row[:3] for row in rows(3)]), file)


def test_a_table_that_is_not_there_is_not_confused_with_a_slide(tmp_path: Path) -> None:
    (tmp_path / "cohorts.svs").touch()
    assert "cohorts.svs" not in complaint(tmp_path / "cohort.csv", None)


def test_one_row_is_one_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cells = rows(2)
    cells[2][5] = "spleen"
    with caplog.at_level(logging.INFO):
        Cohort.load(write_text(tmp_path / "cohort.csv", cells), SCHEMA, require_slides=False)
    assert caplog.messages == ['Column "site": 1 row counts as other, being none of the levels.']
