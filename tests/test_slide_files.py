# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from persam_monai.cohort import Cohort
from persam_monai.data.feature_finding import fingerprint
from persam_monai.data.index import file_identity
from persam_monai.engines import slides_to_extract
from persam_monai.errors import UserError
from persam_monai.slide_files import files_of_slide, slide_path, without_ending
from persam_monai.slides.header import read_header
from tests.slides.dicom import write_dicom

Picture = Callable[..., np.ndarray]
WITHOUT_DICOM = {
    "a.mrxs": ["a/Slidedat.ini", "a/Data0000.dat", "a/Data0001.dat"],
    "a.vms": ["a.jpg", "a(1,0).jpg", "a_map2.jpg", "a.opt"],
    "a.vmu": ["a.ngr", "a_map.ngr"],
    "a.svs": [],
}


@pytest.fixture(params=WITHOUT_DICOM)
def slide(request: pytest.FixtureRequest, tmp_path: Path) -> list[Path]:
    """A slide's files, the one by which it is opened first, beside those of another slide."""
    for name in (*WITHOUT_DICOM[request.param], "b/Data0000.dat", "b.jpg", "b.ngr", "b.svs"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    listed = "".join(f"File({i},0) = {name}\r\n" for i, name in enumerate(WITHOUT_DICOM[request.param]))
    opened = tmp_path / request.param
    opened.write_text(f"[Virtual Microscope Specimen]\r\nNoLayers=1\r\nMacroImage=gone.jpg\r\n{listed}Remark=\r\n")
    return [opened, *(tmp_path / name for name in WITHOUT_DICOM[request.param])]


@pytest.fixture
def dicom(tmp_path: Path, picture: Picture) -> list[Path]:
    """Two levels of a slide in a folder of its own, whose first file by name is the coarse one."""
    pixels = picture(1024, 1024)
    return [
        write_dicom(tmp_path / "dicom" / "1.2.3.4", pixels[::4, ::4], 1.0),
        write_dicom(tmp_path / "dicom" / "fine.dcm", pixels, 0.25),
    ]


def assert_all_count(files: list[Path]) -> None:
    """Whichever file changes, the identity and the fingerprint do."""
    opened = files[0]
    identity, before = file_identity(opened), fingerprint(opened)
    for file in files:
        content, times = file.read_bytes(), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
        file.write_bytes(content + b"\n")
        assert file_identity(opened) != identity, file
        assert fingerprint(opened) != before, file
        file.write_bytes(content)
        os.utime(file, ns=times)
    assert (file_identity(opened), fingerprint(opened)) == (identity, before)


def test_a_slide_is_all_of_its_files(slide: list[Path]) -> None:
    assert files_of_slide(slide[0]) == sorted(slide)
    assert slide_path(slide[0]) == slide[0]
    assert_all_count(slide)


def test_a_dicom_slide_is_its_series(dicom: list[Path], picture: Picture) -> None:
    folder = dicom[0].parent
    (folder / "notes.txt").write_text("fixed overnight")
    (folder / "fine.dcm.part").write_bytes(b"\0" * 128 + b"DICM")
    assert files_of_slide(dicom[1]) == dicom
    assert_all_count(dicom)
    other = write_dicom(folder / "other.dcm", picture(256, 256), 0.25, series=2)
    assert files_of_slide(other) == [other]
    assert files_of_slide(dicom[1]) == dicom


def test_a_dicom_slide_that_is_completed_is_another_one(dicom: list[Path]) -> None:
    opened, later = dicom[0], dicom[1].rename(dicom[1].parents[1] / "later")
    identity, before = file_identity(opened), fingerprint(opened)
    later.rename(dicom[1])
    assert file_identity(opened) != identity
    assert fingerprint(opened) != before


def test_the_folder_and_each_file_of_a_dicom_slide_are_one_slide(
    dicom: list[Path], picture: Picture, tmp_path: Path
) -> None:
    names = ["dicom", "dicom/", *(str(file.relative_to(tmp_path)) for file in dicom)]
    assert {slide_path(tmp_path / name) for name in names} == {dicom[0]}
    assert [level.dimensions for level in read_header(dicom[0]).levels] == [(1024, 1024), (256, 256)]
    for name in names:
        (entry,) = slides_to_extract("", slide=str(tmp_path / name)).entries
        assert entry.path == dicom[0]
        (tmp_path / "cohort.csv").write_text(f"slide\n{name}\n")
        (entry,) = Cohort.load_slides(tmp_path / "cohort.csv").entries
        assert (entry.slide, entry.path) == (name, dicom[0])
    (tmp_path / "cohort.csv").write_text("slide\ndicom\ndicom/fine.dcm\n")
    with pytest.raises(UserError, match=r'row 3, column "slide": found "dicom/fine\.dcm".*row 2'):
        Cohort.load_slides(tmp_path / "cohort.csv")


def test_a_folder_that_is_not_one_dicom_slide_is_refused(dicom: list[Path], picture: Picture, tmp_path: Path) -> None:
    write_dicom(dicom[0].with_name("other.dcm"), picture(256, 256), 0.25, series=2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "cohort.csv").write_text("slide\ndicom\nempty\ndicom/fine.dcm\n")
    with pytest.raises(UserError) as caught:
        Cohort.load_slides(tmp_path / "cohort.csv")
    for part in (f"{tmp_path / 'dicom'} (a folder", f"{tmp_path / 'empty'} (a folder", "row 2", "row 3"):
        assert part in str(caught.value)
    assert "row 4" not in str(caught.value)
    with pytest.raises(UserError, match=r"--slide .*dicom"):
        slides_to_extract("", slide=str(tmp_path / "dicom"))


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("P1.svs", "P1"),
        ("P1.SVS", "P1"),
        ("P1.ome.tif", "P1.ome"),
        ("S21-1044.2", "S21-1044.2"),
        ("S21-1044.2.ndpi", "S21-1044.2"),
        ("1.2.840.10008", "1.2.840.10008"),
        (".svs", ".svs"),
        ("P1", "P1"),
    ],
)
def test_only_endings_of_slides_are_taken_off(name: str, stem: str) -> None:
    assert without_ending(name) == stem
