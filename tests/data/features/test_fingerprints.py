# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from persam_monai.cohort.entry import SlideEntry
from persam_monai.data.features import FeatureFiles, FeatureInstances, write_features
from persam_monai.data.features.fingerprints import fingerprint
from persam_monai.errors import UserError
from tests.data.features.making import MADE, entry, positions, values, write_clam, write_ours, write_trident


def slide(folder: Path, name: str, content: str) -> SlideEntry:
    """A slide with a file."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return replace(entry(name), path=path)


def extract(path: Path, one: SlideEntry, seed: int = 0) -> None:
    """A file of features that knows its slide."""
    write_features(path, values(seed=seed), positions(), MADE, (224.0, 224.0), fingerprint(one.path))


def test_features_of_another_slide_of_that_name_are_not_taken(tmp_path: Path) -> None:
    features = tmp_path / "features"
    for seed, name in enumerate(("P1", "P2")):
        extract(features / f"{name}.h5", slide(tmp_path, f"{name}.svs", name), seed)
    good, other = FeatureFiles(features).look([entry("P1.svs"), entry("other/hospital/P1.svs", 3)])
    assert isinstance(good, FeatureInstances)
    assert isinstance(other, UserError)
    for part in (
        "Slide other/hospital/P1.svs has no features at",
        str(features / "other/hospital/P1.h5"),
        str(features / "P1.h5"),
        "cannot be compared",
        "run extracting",
        "move the file there",
    ):
        assert part in str(other)
    with pytest.raises(UserError, match=r"no features at .*other/P2\.h5"):
        FeatureFiles(features).made_of([entry("other/P2.svs")])


def test_files_of_ours_that_were_converted_from_others_lie_where_they_were_put(tmp_path: Path) -> None:
    write_ours(tmp_path / "P1.h5")
    (found,) = FeatureFiles(tmp_path).look([entry("slides/P1.svs")])
    assert isinstance(found, FeatureInstances)


def test_a_file_that_says_what_made_it_speaks_for_those_that_do_not(tmp_path: Path) -> None:
    write_clam(tmp_path, "P1", values())
    write_trident(tmp_path / "P2.h5", values())
    made = FeatureFiles(tmp_path, 256, 0.5).made_of([entry("P1.svs"), entry("P2.svs")])
    assert made["extractor"] == "uni_v1"


def test_a_bare_name_is_enough_for_the_same_slide_elsewhere(tmp_path: Path) -> None:
    here, there, third = (
        slide(tmp_path, f"{name}/P1.svs", text) for name, text in (("a", "x"), ("b", "x"), ("c", "y"))
    )
    extract(tmp_path / "features/P1.h5", here)
    files = FeatureFiles(tmp_path / "features")
    (same,) = files.look([there])
    assert isinstance(same, FeatureInstances)
    (other,) = files.look([third])
    assert isinstance(other, UserError)
    assert "was another file" in str(other)


def test_others_files_are_found_by_the_bare_name(tmp_path: Path) -> None:
    write_clam(tmp_path, "P1", values())
    write_trident(tmp_path / "P2.h5", values())
    found = FeatureFiles(tmp_path, 256, 0.5).look([entry("ward/P1.svs"), entry("ward/P2.svs")])
    assert all(isinstance(one, FeatureInstances) for one in found)


def test_features_of_a_slide_that_was_replaced_are_not_taken(tmp_path: Path) -> None:
    kept, replaced = slide(tmp_path, "P1.svs", "one"), slide(tmp_path, "P2.svs", "two")
    for one in (kept, replaced):
        extract(tmp_path / "features" / f"{one.path.stem}.h5", one)
    files = FeatureFiles(tmp_path / "features")
    assert all(isinstance(one, FeatureInstances) for one in files.look([kept, replaced]))
    replaced.path.write_text("two, scanned again")
    good, bad = files.look([kept, replaced])
    assert isinstance(good, FeatureInstances)
    assert isinstance(bad, UserError)
    for part in (
        "of slide P2.svs",
        str(tmp_path / "features/P2.h5"),
        f"another file than {replaced.path}",
        "run extracting --overwrite true",
        "another --features_dir",
    ):
        assert part in str(bad)


@pytest.mark.parametrize("there", ["absent", "folder"])
def test_a_slide_that_cannot_be_read_is_no_problem_of_its_features(tmp_path: Path, there: str) -> None:
    one = slide(tmp_path, "P1.svs", "one")
    extract(tmp_path / "features/P1.h5", one, seed=3)
    one.path.unlink()
    if there == "folder":
        one.path.mkdir()
    (found,) = FeatureFiles(tmp_path / "features").look([one])
    assert isinstance(found, FeatureInstances)
    rows = np.array([5, 0])
    np.testing.assert_array_equal(found.read(rows, np.random.default_rng(0))[0], values(seed=3)[rows])


def test_features_that_do_not_say_of_which_slide_they_are_are_believed_in_their_place(tmp_path: Path) -> None:
    write_ours(tmp_path / "features/P1.h5")
    (found,) = FeatureFiles(tmp_path / "features").look([slide(tmp_path, "P1.svs", "one")])
    assert isinstance(found, FeatureInstances)
