# SPDX-License-Identifier: Apache-2.0
"""Slips of those who keep tables: spellings of classes, rows that disagree, cells that Excel cannot show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pytest
from persam_monai.drafting.classes import one_spelling

from persam_monai.errors import UserError
from tests.drafting.conftest import Drafted

Draft = Callable[..., Drafted]


def test_classes_that_differ_in_spelling_alone_are_one_with_a_note(drafted: Draft) -> None:
    labels = ["FL"] * 9 + ["fl"] * 2 + ["DLBCL"] * 9 + ["DLBCL ?"] * 3 + ["D.L.B.C.L."]
    draft = drafted({"label": labels, "age": [str(40 + i % 9) for i in range(24)]})
    assert "classes: [DLBCL, FL]\n" in draft.text
    text = " ".join(draft.text.replace("\n# ", " ").split())
    assert "Patients: DLBCL 13, FL 11." in text
    assert "FL and fl differ in case alone: one class? Then write FL in the rows with fl (rows: 2)" in text
    assert "DLBCL and DLBCL ?, D.L.B.C.L. differ in case, spaces or punctuation alone" in text


def test_leaks_are_judged_by_class_and_not_by_spelling(drafted: Draft) -> None:
    labels = ["FL", "DLBCL", "fl", "DLBCL"] * 10
    draft = drafted(
        {
            "label": labels,
            "bcl6": ["pos" if x.upper() == "FL" else "neg" for x in labels],
            "age": ["4", "4", "5", "5"] * 10,
        }
    )
    assert "bcl6" not in draft.variables


@pytest.mark.parametrize(
    "labels",
    [
        *[("HER2+", "HER2-"), ("<5", ">5"), ("1.5", "15"), ("T1", "T2"), ("A+", "A"), ("~A", "A"), ("!A", "A")],
        *[("-1", "1"), ("−1", "1"), ("–1", "1"), ("1-2", "12"), ("1/2", "12"), ("1_2", "12"), ("x -1", "x 1")],
        *[("A/B", "AB"), ("¬A", "A"), ("ER- PR+", "ER PR+")],
    ],
)
def test_signs_that_mean_something_keep_classes_apart(labels: tuple[str, ...]) -> None:
    found = one_spelling(Counter(labels))
    assert set(found.chosen.values()) == set(labels)
    assert not found.notes


@pytest.mark.parametrize(
    "labels",
    [
        ("HER2-low", "HER2 low", "HER2_low", "her2/low", "HER2 – low", "HER2 (low)"),
        ("1-2", "1–2", "1 - 2"),
        ("-1", "−1", "- 1"),
        ("HER2-", "HER2 -", "HER2−"),
        ("DLBCL", "DLBCL ?", "D.L.B.C.L."),
    ],
)
def test_punctuation_without_meaning_does_not(labels: tuple[str, ...]) -> None:
    found = one_spelling(Counter({label: len(labels) - place for place, label in enumerate((*labels, "another"))}))
    assert found.chosen == {**dict.fromkeys(labels, labels[0]), "another": "another"}
    assert len(found.notes) == 1


@pytest.mark.parametrize("labels", [("-1", "1"), ("1-2", "12"), ("A/B", "AB"), ("~A", "A")])
def test_a_table_of_two_classes_that_a_sign_tells_apart_is_drafted(drafted: Draft, labels: tuple[str, str]) -> None:
    draft = drafted({"label": list(labels) * 12, "age": [str(40 + i % 9) for i in range(24)]})
    assert set(draft.cohort().schema.classes) == set(labels)


def test_classes_are_left_apart_rather_than_be_a_single_one(drafted: Draft) -> None:
    labels = ["F.L."] * 8 + ["FL"] * 12 + ["fl"] * 4
    draft = drafted({"label": labels, "age": [str(40 + i % 9) for i in range(24)]})
    text = " ".join(draft.text.replace("\n# ", " ").split())
    assert "Patients: F.L. 8, FL 16." in text
    assert "FL and F.L., fl differ in case, spaces or punctuation alone: one class?" in text
    assert "leave the classes as they are" in text


def test_one_class_in_two_spellings_is_not_two(drafted: Draft) -> None:
    with pytest.raises(UserError, match=r"found 1 different labels.*FL and fl differ in case alone"):
        drafted({"label": ["FL", "fl", "FL"], "age": ["1", "2", "3"]})


def patients_with_two_rows(patients: int, disagreeing: int) -> dict[str, list[str]]:
    sizes = [str(30 + 3 * (i // 2) % 50) for i in range(2 * patients)]
    for patient in range(disagreeing):
        sizes[2 * patient] = "77.5"
    return {
        "patient_id": [f"P{i // 2}" for i in range(2 * patients)],
        "label": ["AB"[i // 2 % 2] for i in range(2 * patients)],
        "age": [str(40 + 2 * (i // 2) % 31) for i in range(2 * patients)],
        "size": sizes,
    }


@pytest.mark.parametrize(("patients", "disagreeing"), [(8, 1), (50, 1), (50, 2)])
def test_few_patients_whose_rows_disagree_are_a_slip(drafted: Draft, patients: int, disagreeing: int) -> None:
    draft = drafted(patients_with_two_rows(patients, disagreeing))
    assert list(draft.variables) == ["age", "size"]
    expected = f"rows of one patient disagree (patients: {disagreeing}): check_cohort.py names the rows"
    assert expected in draft.comment_on("size")
    with pytest.raises(UserError, match=f"{disagreeing} problem"):
        draft.cohort()


@pytest.mark.parametrize(("patients", "disagreeing"), [(8, 2), (40, 2), (1, 1)])
def test_many_patients_whose_rows_disagree_set_a_variable_aside(
    drafted: Draft, patients: int, disagreeing: int
) -> None:
    columns = patients_with_two_rows(patients, disagreeing)
    more = {"patient_id": ["Q", "R"], "label": ["A", "B"], "age": ["50", "51"], "size": ["41", "42"]}
    draft = drafted({name: cells + more[name] for name, cells in columns.items()})
    assert list(draft.variables) == ["age"]
    assert "take it in on purpose and check_cohort.py names the rows" in draft.comment_on("size")


@pytest.fixture
def workbook(tmp_path: Path) -> Drafted:
    """Cells that cannot be read: all shares, the sums of one class, one ratio."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["patient_id", "slide", "label", "age", "share", "sum", "ratio"])
    for i in range(40):
        total: object = f"=D{i + 2}*2" if i % 2 else 2.5 * (40 + i * 7 % 31)
        sheet.append([f"P{i}", f"{i}.svs", "AB"[i % 2], 40 + i * 7 % 31, 0.25, total, 1.5 + i % 9])
        sheet.cell(i + 2, 5).number_format = "0%"
    broken = sheet.cell(5, 7)
    broken.value, broken.data_type = "#DIV/0!", "e"
    book.save(tmp_path / "cohort.xlsx")
    return Drafted(tmp_path / "cohort.xlsx")


def test_cells_that_cannot_be_read_are_told_with_their_cure(workbook: Drafted) -> None:
    assert "cannot be read (rows: 40): expected a plain number: as a percentage" in workbook.comment_on("share")
    assert "empty in every row" not in workbook.text
    assert "Cannot be read (rows: 20): expected a value: open the workbook in Excel" in workbook.comment_on("sum")
    assert "Cannot be read (rows: 1): expected a value, and no error of Excel's" in workbook.comment_on("ratio")
    assert "Missing: 0 of 40 patients" in workbook.comment_on("ratio")


def test_cells_that_cannot_be_read_are_no_leak_by_their_absence(workbook: Drafted) -> None:
    assert list(workbook.variables) == ["age", "sum", "ratio"]
    assert "LEAK" not in workbook.text
