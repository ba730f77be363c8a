# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from persam_monai.checking.sources import find_slides
from persam_monai.errors import UserError
from tests.slides.dicom import write_dicom


def test_a_folder_without_a_table_gives_its_own_slides_alone(tmp_path: Path) -> None:
    for name in ("b.SVS", "a.ndpi", "notes.txt", "._a.ndpi", "deeper/c.svs"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.tif").mkdir()
    source = find_slides([tmp_path], slide_mpp=0.5)
    assert [(entry.slide, entry.mpp) for entry in source.entries] == [("a.ndpi", 0.5), ("b.SVS", 0.5)]
    assert source.found == f"2 slides in {tmp_path}, which has no cohort.csv."


def test_the_files_of_a_dicom_slide_are_one_slide(tmp_path: Path) -> None:
    for name, series in (("0.dcm", 1), ("1.dcm", 2), ("2.dcm", 1)):
        write_dicom(tmp_path / name, np.zeros((256, 256, 3), np.uint8), 0.25, series)
    assert [entry.slide for entry in find_slides([tmp_path]).entries] == ["0.dcm", "1.dcm"]
    (again,) = find_slides([tmp_path / "2.dcm", tmp_path / "0.dcm"]).entries
    assert again.path == tmp_path / "0.dcm"


def test_paths_in_a_table_are_relative_to_it_and_nothing_else_of_it_matters(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/all.csv").write_text("age,slide,mpp\nold,../a.svs,\n,/data/b.svs,0.5\n,../x/../a.svs,0.3\n")
    source = find_slides([tmp_path], table="tables/all.csv", slide_mpp=0.1)
    expected = [("../a.svs", tmp_path / "a.svs", None), ("/data/b.svs", Path("/data/b.svs"), 0.5)]
    assert [(entry.slide, entry.path, entry.mpp) for entry in source.entries] == expected
    assert source.found.endswith("; 1 named again, looked at once.")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("patient_id,Slide\n1,a.svs\n", r'column "slide": is missing; .* Did you mean "Slide"\?'),
        ("slide,slide\na.svs,b.svs\n", 'column "slide": stands 2 times'),
        ("slide,mpp\na.svs,0.25\n,0.5\n", 'row 3, column "slide": found ""'),
        ("slide,mpp\na.svs,fine\nb.svs,-1\n", '(?s)row 2, column "mpp": found "fine".*row 3, .*found "-1"'),
        ("slide\n", "no rows"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "cohort.csv").write_text(content)
    with pytest.raises(UserError, match=complaint):
        find_slides([tmp_path])


def test_folders_without_slides_and_places_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither cohort\.csv nor slides.*\.svs"):
        find_slides([tmp_path])
    with pytest.raises(UserError, match="no such file or folder"):
        find_slides([tmp_path / "dataset"])
