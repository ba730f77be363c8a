# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import posixpath
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persam_monai.cohort import SlideEntry
from persam_monai.data import FeatureFiles, FeatureInstances, feature_file, write_features
from persam_monai.data.feature_finding import ENDS, find_features, fingerprint
from persam_monai.errors import UserError
from tests.data.features.making import MADE, entry, positions, values, write_clam, write_features_file, write_trident

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
        assert set(posixpath.normpath(slide.replace("\0", "/"))) <= set("./")  # there is no name in it
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


def test_other_slides_files_are_not_taken(tmp_path: Path) -> None:
    for name in ("P1.h5", "P10.h5", "other/P2.h5", "P2.hdf5", "P2.h5.partial"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_features(tmp_path, "P2.svs") is None
    assert find_features(tmp_path, "x" * 5000 + ".svs") is None
    assert find_features(tmp_path / "none", "P1.svs") is None


def slide(folder: Path, name: str, content: str) -> SlideEntry:
    """A slide with a file."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return replace(entry(name), path=path)


def extract(path: Path, of: SlideEntry) -> None:
    """A file of features with the fingerprint of its slide."""
    write_features(path, values(), positions(), MADE, (224.0, 224.0), fingerprint(of.path))


def test_features_of_another_slide_of_that_name_are_not_taken(tmp_path: Path) -> None:
    features = tmp_path / "features"
    extract(features / "P1.h5", slide(tmp_path, "P1.svs", "P1"))
    good, other = FeatureFiles(features).look([entry("P1.svs"), entry("ward/P1.svs", 3)])
    assert isinstance(good, FeatureInstances)
    assert isinstance(other, UserError)
    for text in ("slide ward/P1.svs", str(features / "P1.h5"), str(features / "ward/P1.h5"), "--features_dir"):
        assert text in str(other)
    with pytest.raises(UserError, match=r"P1\.h5 .*ward/P1\.h5"):
        FeatureFiles(features).made_of([entry("ward/P1.svs")])


def test_the_bare_name_is_enough_for_the_same_slide_elsewhere_and_for_files_without_fingerprint(tmp_path: Path) -> None:
    here, same, other = (slide(tmp_path, f"{name}/P1.svs", text) for name, text in zip("abc", "xxy", strict=True))
    extract(tmp_path / "features/P1.h5", here)
    files = FeatureFiles(tmp_path / "features")
    assert isinstance(files.look([same])[0], FeatureInstances)
    assert isinstance(files.look([other])[0], UserError)
    write_clam(tmp_path / "others", "P1", values())
    write_trident(tmp_path / "others/P2.h5", values())
    write_features_file(tmp_path / "converted/P1.h5")
    others = FeatureFiles(tmp_path / "others", 256, 0.5).look([entry("ward/P1.svs"), entry("ward/P2.svs")])
    converted = FeatureFiles(tmp_path / "converted").look([entry("ward/P1.svs")])
    assert all(isinstance(item, FeatureInstances) for item in (*others, *converted))


def test_features_of_a_slide_that_was_replaced_are_not_taken(tmp_path: Path) -> None:
    kept, replaced = slide(tmp_path, "P1.svs", "one"), slide(tmp_path, "P2.svs", "two")
    for item in (kept, replaced):
        extract(tmp_path / "features" / f"{item.path.stem}.h5", item)
    files = FeatureFiles(tmp_path / "features")
    assert all(isinstance(item, FeatureInstances) for item in files.look([kept, replaced]))
    replaced.path.write_text("two, scanned again")
    good, bad = files.look([kept, replaced])
    assert isinstance(good, FeatureInstances)
    assert isinstance(bad, UserError)
    for text in ("slide P2.svs", str(tmp_path / "features/P2.h5"), "--overwrite true", "--features_dir"):
        assert text in str(bad)


def test_a_slide_that_is_not_there_is_no_problem_of_its_features(tmp_path: Path) -> None:
    scanned = slide(tmp_path, "P1.svs", "one")
    extract(tmp_path / "features/P1.h5", scanned)
    scanned.path.unlink()
    (item,) = FeatureFiles(tmp_path / "features").look([scanned])
    assert isinstance(item, FeatureInstances)


def test_a_fingerprint_is_of_size_begin_and_end(tmp_path: Path) -> None:
    content = np.random.default_rng(0).integers(0, 256, 3 * ENDS, np.uint8)
    path = tmp_path / "slide"
    path.write_bytes(content.tobytes())
    fingerprints = {"whole": fingerprint(path)}
    for offset in (0, ENDS - 1, 2 * ENDS, 3 * ENDS - 1, ENDS):
        other = content.copy()
        other[offset] ^= 1
        path.write_bytes(other.tobytes())
        fingerprints[str(offset)] = fingerprint(path)
    path.write_bytes(content[:100].tobytes())
    fingerprints["short"] = fingerprint(path)
    assert fingerprints.pop(str(ENDS)) == fingerprints["whole"]  # the middle does not count
    assert len(set(fingerprints.values())) == 6
    path.unlink()
    with pytest.raises(UserError, match=str(path)):
        fingerprint(path)
