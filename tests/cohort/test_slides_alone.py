# SPDX-License-Identifier: Apache-2.0
"""Of a table that is read for its slides alone, nothing else can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from persam_monai.cohort import load_slides
from persam_monai.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.tif", "b.tif"):
        (tmp_path / name).touch()
    return tmp_path


def table(folder: Path, text: str) -> Path:
    (folder / "cohort.csv").write_text(text)
    return folder / "cohort.csv"


def test_a_column_of_slides_is_enough(folder: Path) -> None:
    slides = load_slides(table(folder, "slide\na.tif\nb.tif\n"))
    assert [(entry.slide, entry.path, entry.label) for entry in slides] == [
        ("a.tif", folder / "a.tif", None),
        ("b.tif", folder / "b.tif", None),
    ]


def test_whatever_else_the_table_says_does_not_matter(folder: Path) -> None:
    text = "patient_id,slide,label,fold,age,mpp\nP1,a.tif,?,x,#REF!,0.5\n,b.tif,,,,\n"
    assert [entry.mpp for entry in load_slides(table(folder, text))] == [0.5, None]


def test_a_slide_in_several_rows_counts_once(folder: Path) -> None:
    slides = load_slides(table(folder, "patient_id,slide\nP1,a.tif\nP1,b.tif\nP2,a.tif\n"))
    assert [(entry.slide, entry.row) for entry in slides] == [("a.tif", 2), ("b.tif", 3)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("slide,mpp\na.tif,0.5\na.tif,0.25\n", "row 3.*a.tif.*row 2 already"),
        ("slide,mpp\na.tif,40\n", "row 2.*mpp.*40"),
        ("slide\na.tif\nc.tif\n", "1 of 2 slide files not found.*\n.*row 3.*c.tif"),
        ("slides,patient_id\na.tif,P1\n", 'slide.*is missing.*Did you mean "slides"'),
        ("Slide\na.tif\n", 'Rename the column to "slide"'),
        ("slide,mpp\na.tif,\n,0.5\n", "row 3.*slide"),
    ],
)
def test_what_is_wrong_with_slides_is_an_error(folder: Path, text: str, found: str) -> None:
    with pytest.raises(UserError, match=found):
        load_slides(table(folder, text), folder / "problems.csv")
    assert (folder / "problems.csv").is_file()
