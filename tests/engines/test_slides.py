# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort, SlideEntry
from persam_monai.engines import part_dir, slides_to_extract
from persam_monai.engines.slides import part_of
from persam_monai.errors import UserError

PATIENTS = ["A", "B", "A", "C", "D", "B", "E"]  # of slides 0 to 6


@pytest.fixture
def cohort() -> Cohort:
    record = np.zeros(0, np.float32)
    entries = [
        SlideEntry(str(i), Path(f"/{i}.svs"), patient, None, record, None, None, i + 2)
        for i, patient in enumerate(PATIENTS)
    ]
    return Cohort(tuple(entries), ClinicalSchema.without_record(), "cohort.csv")


@pytest.mark.parametrize(
    ("part", "slides"),
    [(None, "0123456"), ("1/1", "0123456"), ("1/2", "0236"), ("2/2", "145"), ("2/5", "15")],
)
def test_a_part_is_every_nth_patient_with_all_slides(cohort: Cohort, part: str | None, slides: str) -> None:
    assert "".join(entry.slide for entry in part_of(cohort, part).entries) == slides


@pytest.mark.parametrize("parts", range(1, 6))
def test_parts_are_the_whole(cohort: Cohort, parts: int) -> None:
    counts = Counter(entry.slide for i in range(parts) for entry in part_of(cohort, f"{i + 1}/{parts}").entries)
    assert counts == Counter(entry.slide for entry in cohort.entries)


@pytest.mark.parametrize("part", ["0/8", "9/8", "3", "3/8/1", "-1/8", "a/b", "1.5/8", " "])
def test_what_is_no_part_is_refused(cohort: Cohort, part: Any) -> None:
    for use in (lambda: part_of(cohort, part), lambda: part_dir("output", part)):
        with pytest.raises(UserError, match=f"part is {part!r}.*3/8"):
            use()


def test_a_part_without_slides_is_refused(cohort: Cohort) -> None:
    with pytest.raises(UserError, match=r"--part 6/6 .*cohort\.csv has 5"):
        part_of(cohort, "6/6")


def test_the_outputs_of_a_part_have_a_folder_of_their_own() -> None:
    assert part_dir("output/inference", "3/8") == "output/inference/part_3_of_8"
    assert part_dir("output/inference", None) == "output/inference"


def test_slides_of_a_table_are_extracted_in_parts(tmp_path: Path) -> None:
    names = [f"{i}.svs" for i in range(5)]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "cohort.csv").write_text("patient_id,slide\n" + "".join(f"A,{name}\n" for name in names))
    slides = slides_to_extract(str(tmp_path), part="2/3").entries  # one patient: every slide counts by itself
    assert [entry.slide for entry in slides] == ["1.svs", "4.svs"]
    (slide,) = slides_to_extract("nowhere", slide=str(tmp_path / "0.svs"), slide_mpp=0.5).entries
    assert (slide.path, slide.mpp) == (tmp_path / "0.svs", 0.5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"slide_mpp": 0.5}, "--slide_mpp goes with --slide"),
        ({"slide": "nowhere.svs"}, r"--slide nowhere\.svs"),
        ({"slide": "nowhere.svs", "slide_mpp": -1}, "slide_mpp is -1"),
        ({"table": "nowhere.csv"}, r"nowhere\.csv"),
        ({}, "--table"),
    ],
)
def test_slides_that_are_not_there_are_named(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        slides_to_extract(str(tmp_path), **settings)
