# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persam_monai.data.features import feature_file, find_features
from persam_monai.errors import UserError

ODD = st.text(st.sampled_from("ab.. //~ -é\0\n\\:"), min_size=1, max_size=20) | st.text(max_size=20)


@pytest.mark.parametrize(
    ("slide", "file"),
    [
        ("P001.svs", "P001.h5"),
        ("slides/P001.tif", "slides/P001.h5"),
        ("/mnt/scans/P001.ndpi", "mnt/scans/P001.h5"),
        ("../../scans/P001.svs", "scans/P001.h5"),
        ("./a/../b/P001.svs", "b/P001.h5"),
        ("TCGA-AA.8923A151-A690.svs", "TCGA-AA.8923A151-A690.h5"),
        ("P001.ome.tif", "P001.ome.h5"),
        ("P001", "P001.h5"),
        ("S21-1044.2", "S21-1044.2.h5"),
        ("S21-1044.2.SVS", "S21-1044.2.h5"),
        ("dicom/1.2.840.10008.5/", "dicom/1.2.840.10008.5.h5"),
    ],
)
def test_our_file_has_the_slides_path_in_the_folder(slide: str, file: str) -> None:
    assert feature_file("features", slide) == Path("features", file)


@given(ODD)
def test_a_file_never_leaves_the_folder(slide: str) -> None:
    try:
        file = feature_file("/data/features", slide)
    except UserError:
        assert not set(slide) - set("./\0")  # there is no name in it
        return
    inside = os.path.relpath(os.path.normpath(file), "/data/features")
    assert not PurePosixPath(inside).is_absolute()
    assert ".." not in PurePosixPath(inside).parts
    assert inside != "."
    assert file.name.endswith(".h5")


@pytest.mark.parametrize("slide", ["", ".", "..", "/", "../.."])
def test_a_slide_without_a_name_is_an_error(slide: str) -> None:
    with pytest.raises(UserError, match="names no file"):
        feature_file("features", slide)


def test_files_are_found_in_a_fixed_order(tmp_path: Path) -> None:
    order = [
        "cohort/P1.ome.tif.h5",
        "cohort/P1.ome.h5",  # ours
        "cohort/P1.h5",
        "P1.ome.tif.h5",
        "P1.ome.h5",
        "P1.h5",  # TRIDENT's
        "h5_files/P1.ome.tif.h5",
        "h5_files/P1.ome.h5",  # CLAM's
        "h5_files/P1.h5",
        "P1.ome.pt",
        "pt_files/P1.ome.pt",
    ]
    for name in reversed(order):
        place = tmp_path / name
        place.parent.mkdir(exist_ok=True)
        place.touch()
        assert find_features(tmp_path, "cohort/P1.ome.tif") == place


@pytest.mark.parametrize("slide", ["S21-1044.2", "S21-1044.2.svs", "cohort/S21-1044.2"])
def test_a_dot_in_a_slides_name_begins_no_ending(tmp_path: Path, slide: str) -> None:
    (tmp_path / "S21-1044.h5").touch()
    assert find_features(tmp_path, slide) is None
    own = tmp_path / "S21-1044.2.h5"
    own.touch()
    assert find_features(tmp_path, slide) == own
    assert find_features(tmp_path, "S21-1044.svs") == tmp_path / "S21-1044.h5"


def test_the_whole_name_comes_before_that_without_ending(tmp_path: Path) -> None:
    for name in ("P1.h5", "P1.svs.h5"):
        (tmp_path / name).touch()
    assert find_features(tmp_path, "P1.svs") == tmp_path / "P1.svs.h5"
    assert find_features(tmp_path, "P1") == tmp_path / "P1.h5"


def test_other_slides_files_are_not_taken(tmp_path: Path) -> None:
    for name in ("P1.h5", "P10.h5", "other/P2.h5", "P2.hdf5", "P2.h5.partial"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_features(tmp_path, "P2.svs") is None
    assert find_features(tmp_path, "x" * 5000 + ".svs") is None
    assert find_features(tmp_path / "none", "P1.svs") is None
