# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persam_monai.cohort.reading import SlideEntry
from persam_monai.data import FeatureFiles, FeatureInstances, PatchSettings, SlidePatches
from persam_monai.errors import UserError
from tests.data.features.making import (
    MADE,
    entry,
    positions,
    values,
    write_clam,
    write_features_file,
    write_trident,
)

GENERATOR = np.random.default_rng(0)
CHOSEN = np.array([5, 0, 11])


def look(files: FeatureFiles, *slides: str) -> list[FeatureInstances]:
    """All of the slides, none of which has a problem."""
    found = files.look([entry(slide, row) for row, slide in enumerate(slides, 2)])
    return [one for one in found if isinstance(one, FeatureInstances) or pytest.fail(str(one))]


def test_slides_are_found_and_read_in_the_tables_order(tmp_path: Path) -> None:
    for i in range(3):
        write_features_file(tmp_path / f"slides/P{i}.h5", 12 + i, seed=i)
    files = FeatureFiles(tmp_path)
    assert (files.pixels, files.patches) == (False, PatchSettings(224, 0.25, "grid"))
    found = look(files, "slides/P2.svs", "slides/P0.svs")
    assert [len(one) for one in found] == [14, 12]
    features, coords = found[0].read(CHOSEN, GENERATOR)
    np.testing.assert_array_equal(features, values(14, seed=2)[CHOSEN])
    np.testing.assert_array_equal(coords, positions(14)[CHOSEN])
    assert (found[0].dim, found[0].extent) == (5, (224.0, 224.0))
    sent = pickle.loads(pickle.dumps(found[0]))
    np.testing.assert_array_equal(sent.read(CHOSEN, GENERATOR)[0], features)


def test_rows_go_where_they_are_wanted(tmp_path: Path) -> None:
    write_features_file(tmp_path / "P1.h5", dtype="f2")
    (one,) = look(FeatureFiles(tmp_path), "P1.svs")
    out = np.zeros((3, 5), np.float16)
    features, _ = one.read(CHOSEN, GENERATOR, 2, out)
    assert features is out
    np.testing.assert_array_equal(out, values(dtype=np.float16)[CHOSEN])


def test_features_of_a_cohort_have_one_type(tmp_path: Path) -> None:
    write_features_file(tmp_path / "P1.h5", dtype="f2")
    write_features_file(tmp_path / "P2.h5", dtype="f4", seed=1)
    half, single = look(FeatureFiles(tmp_path), "P1.svs", "P2.svs")
    assert half.read(CHOSEN, GENERATOR)[0].dtype == single.read(CHOSEN, GENERATOR)[0].dtype == np.float32
    np.testing.assert_array_equal(half.read(CHOSEN, GENERATOR)[0], values(dtype=np.float16)[CHOSEN])
    (half,) = look(FeatureFiles(tmp_path), "P1.svs")
    assert half.read(CHOSEN, GENERATOR)[0].dtype == np.float16


def test_the_problems_of_single_slides_are_theirs(tmp_path: Path) -> None:
    write_features_file(tmp_path / "P1.h5")
    (tmp_path / "P2.h5").touch()
    good, broken, absent = FeatureFiles(tmp_path).look([entry("P1.svs"), entry("P2.svs"), entry("ward/P3.svs")])
    assert isinstance(good, FeatureInstances)
    assert isinstance(broken, UserError)
    assert str(tmp_path / "P2.h5") in str(broken)
    assert isinstance(absent, UserError)
    for part in ("ward/P3.svs", str(tmp_path / "ward/P3.h5"), "run extracting"):
        assert part in str(absent)


@pytest.mark.parametrize("make", [lambda path: None, Path.touch])
def test_a_folder_that_is_not_there_is_named(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "none")
    files = FeatureFiles(tmp_path / "none")
    for use in (files.look, files.dim_of):
        with pytest.raises(UserError, match=r"/none .*--features_dir.*run extracting"):
            use([entry("P1.svs")])


def test_a_folder_without_any_slides_features_is_an_error_that_shows_where_they_are(tmp_path: Path) -> None:
    write_trident(tmp_path / "20x_256px_0px_overlap/features_uni_v1/P1.h5", values())
    slides = [entry("P1.svs"), entry("P2.svs", 3)]
    with pytest.raises(UserError, match=r"2 slides for training .*20x_256px_0px_overlap/features_uni_v1"):
        FeatureFiles(tmp_path).look(slides, "training")
    (tmp_path / "P2.h5").write_text("no features")
    with pytest.raises(UserError, match=r"2 slides .*\n.*P1\.svs .*\n.*P2\.h5"):
        FeatureFiles(tmp_path).dim_of(slides)


def test_two_slides_of_one_file_are_an_error(tmp_path: Path) -> None:
    write_trident(tmp_path / "P1.h5", values())
    write_trident(tmp_path / "P2.h5", values())
    with pytest.raises(UserError) as caught:
        FeatureFiles(tmp_path, 256, 0.5).look([entry("a/P1.svs", 4), entry("P2.svs", 5), entry("b/P1.tif", 6)])
    assert "P1.h5: a/P1.svs (row 4) and b/P1.tif (row 6)" in str(caught.value)
    assert "P2" not in str(caught.value)


def test_what_the_configuration_says_must_be_what_the_files_say(tmp_path: Path) -> None:
    slides = [f"P{i}.svs" for i in range(3)]
    for i in range(3):
        write_trident(tmp_path / f"P{i}.h5", values(seed=i))
    with pytest.raises(UserError) as caught:
        look(FeatureFiles(tmp_path, 224, 0.25, "resnet50"), *slides)
    for text in (
        f"{tmp_path / 'P0.h5'}: extractor is 'uni_v1', but 'resnet50' in --extractor_name",
        "mpp is 0.5, but 0.25 in --mpp",
        "patch_size is 256, but 224 in --patch_size",
        str(tmp_path / "P1.h5"),
        "and 4 more",
    ):
        assert text in str(caught.value)
    assert len(look(FeatureFiles(tmp_path, 256, 0.5, "uni_v1"), *slides)) == 3


def test_a_rounded_resolution_is_the_same(tmp_path: Path) -> None:
    write_trident(tmp_path / "P1.h5", values(), target_magnification=30)
    look(FeatureFiles(tmp_path, 256, 0.33), "P1.svs")


@pytest.mark.parametrize(
    ("other", "name", "wrong", "right"),
    [
        ({"made": replace(MADE, extractor="uni_v1")}, "extractor", "'uni_v1'", "'resnet50'"),
        ({"made": replace(MADE, weights="cd" * 32)}, "weights", "cdcdcdcdcdcd…", "abababababab…"),
        ({"made": replace(MADE, mpp=0.5)}, "mpp", "0.5", "0.25"),
        ({"made": replace(MADE, patch_size=225)}, "patch_size", "225", "224"),
        ({"made": replace(MADE, settings={"pixel_std": [1.0, 2.0]})}, "pixel_std", "[1.0, 2.0]", "[1.0, 1.0, 1.0]"),
        ({"made": replace(MADE, settings={"pixel_std": None})}, "pixel_std", "None", "[1.0, 1.0, 1.0]"),
        ({"dim": 7}, "dim", "7", "5"),
    ],
)
def test_files_must_agree_with_each_other(
    tmp_path: Path, other: dict[str, Any], name: str, wrong: str, right: str
) -> None:
    for i in range(2):
        write_features_file(tmp_path / f"P{i}.h5")
    write_features_file(tmp_path / "odd.h5", **other)
    together, separately = FeatureFiles(tmp_path), FeatureFiles(tmp_path)
    look(separately, "P0.svs")  # datasets are looked into after each other
    for files, slides in ((together, ["P0.svs", "odd.svs", "P1.svs"]), (separately, ["odd.svs"])):
        with pytest.raises(UserError) as caught:
            look(files, *slides)
        assert f"{tmp_path / 'odd.h5'}: {name} is {wrong}, but {right} in " in str(caught.value)
        assert "P1.h5" not in str(caught.value)


def test_what_files_do_not_say_is_believed_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i in range(3):
        write_clam(tmp_path, f"Jane-Roe-{i}", values(seed=i))
    (tmp_path / "h5_files/Jane-Roe-0.h5").unlink()  # .pt alone
    files = FeatureFiles(tmp_path, 256, 0.5)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = look(files, *(f"Jane-Roe-{i}.svs" for i in range(3)))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3
    for message, texts in zip(messages, (("3 of 3", "mpp", "0.5"), ("patch_size", "256"), (".pt",)), strict=True):
        assert all(text in message for text in texts)
    np.testing.assert_array_equal(found[0].read(CHOSEN, GENERATOR)[1], np.full((3, 2), -1))


def test_what_made_the_features_and_how_many_they_are_is_said_by_the_slides_own_files(tmp_path: Path) -> None:
    write_features_file(tmp_path / "A1.h5", dim=9, made=replace(MADE, extractor="not_in_the_table"))
    (tmp_path / "P1.h5").write_text("no features")
    write_features_file(tmp_path / "P2.h5")
    files = FeatureFiles(tmp_path)
    slides = [entry("absent.svs"), entry("P1.svs"), entry("P2.svs")]
    assert files.made_of(slides) == {
        "extractor": "resnet50",
        "weights": "ab" * 32,
        "mpp": 0.25,
        "patch_size": 224,
        "settings": {"pixel_std": [1.0, 1.0, 1.0]},
    }
    assert files.dim_of(slides) == 5
    assert json.loads(json.dumps(files.made_of(slides))) == files.made_of(slides)
    assert SlidePatches(files.patches).made_of(slides) is None  # type: ignore[func-returns-value]


def test_what_changes_no_extractor_changes_nothing_of_what_made_the_features(tmp_path: Path) -> None:
    """Else a training would not be resumed."""
    settings = {"pixel_mean": [0.5, 0.5, 0.5], "pixel_std": [1.0, 1.0, 1.0], "input_size": None}
    write_features_file(tmp_path / "P1.h5", made=replace(MADE, settings=settings))
    others = {**settings, "slide_mpp": 0.2498, "backend": "cucim", "extractor_batch": 8, "precision": "float32"}
    write_features_file(tmp_path / "P2.h5", made=replace(MADE, settings=others, version="9"))
    first, second = (FeatureFiles(tmp_path).made_of([entry(slide)]) for slide in ("P1.svs", "P2.svs"))
    assert first == second
    assert first["settings"] == settings


def test_slides_must_agree_with_the_one_that_the_network_was_made_for(tmp_path: Path) -> None:
    write_features_file(tmp_path / "P1.h5", dim=9)
    write_features_file(tmp_path / "P2.h5", dim=5)
    files = FeatureFiles(tmp_path)
    assert files.dim_of([entry("P1.svs"), entry("P2.svs")]) == 9
    with pytest.raises(UserError, match=r"P2\.h5: dim is 5, but 9 in .*P1\.h5"):
        look(files, "P2.svs")


@pytest.mark.parametrize("setting", [{"cache_gb": -1}, {"cache_gb": "much"}, {"mpp": 0}, {"patch_size": 2.5}])
def test_settings_that_are_not_possible_are_refused(tmp_path: Path, setting: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(setting))):
        FeatureFiles(tmp_path, **setting)


def test_nothing_is_looked_into_for_no_slides(tmp_path: Path) -> None:
    nobody: list[SlideEntry] = []
    assert FeatureFiles(tmp_path).look(nobody) == []
