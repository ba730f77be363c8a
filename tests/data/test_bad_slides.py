# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import logging
from pathlib import Path

import numpy as np
import pytest

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort
from persam_monai.data import BadSlides, BagDataset, PatchSettings, RandomBags, SlidePatches
from persam_monai.errors import UserError
from persam_monai.synthetic import write_pyramid
from tests.data.making import Picture, cohort_of, write_slides

PATCHES = PatchSettings()
GOOD = ["a.tif", "b.tif"]
BAD = {"text.tif": "not a whole-slide image", "glass.tif": "no tissue found", "missing.tif": "No such file"}


def lines(folder: Path) -> list[dict[str, str]]:
    with (folder / "skipped_slides.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def slides(tmp_path: Path, schema: ClinicalSchema, picture: Picture) -> Cohort:
    """Two good slides between three that cannot be used."""
    folder = tmp_path / "slides"
    write_slides(folder, picture, dict.fromkeys(GOOD, 512))
    (folder / "text.tif").write_text("not a slide")
    write_pyramid(folder / "glass.tif", np.full((600, 600, 3), 243, np.uint8), mpp=0.25)
    return cohort_of(folder, schema, ["text.tif", "a.tif", "glass.tif", "b.tif", "missing.tif"])


def dataset(slides: Cohort, bad_slides: BadSlides | None = None, label: str = "training") -> BagDataset:
    return BagDataset(slides, RandomBags(2, 30), SlidePatches(PATCHES), label=label, bad_slides=bad_slides)


def test_by_default_bad_slides_are_errors_reported_together(slides: Cohort, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        dataset(slides, BadSlides(folder=tmp_path)).prepare()
    message = str(caught.value)
    assert all(str(slides.entries[0].path.parent / name) in message for name in BAD)
    assert all(problem in message for problem in BAD.values())
    assert not (tmp_path / "skipped_slides.csv").exists()


def test_skipped_slides_are_left_out_logged_and_listed_once(
    slides: Cohort, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad_slides = BadSlides("skip", tmp_path)
    bags = dataset(slides, bad_slides)
    with caplog.at_level(logging.WARNING):
        bags.prepare()
        bags.prepare()
    assert [(key.slide, key.bag) for key in bags.keys(5)] == [(1, 0), (1, 1), (3, 0), (3, 1)]
    assert len(bags) == 4
    assert bags.skipped == {0, 2, 4}
    assert not (tmp_path / "skipped_slides.csv").exists(), "an earlier training's list stands until this one begins"
    bad_slides.begin()
    found = lines(tmp_path)
    assert list(found[0]) == ["part", "slide", "problem"]
    assert [(line["part"], line["slide"]) for line in found] == [("training", name) for name in BAD]
    for line, problem in zip(found, BAD.values(), strict=True):
        assert problem in line["problem"]
        assert str(slides.entries[0].path.parent / line["slide"]) in line["problem"]
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3
    for message, line in zip(messages, found, strict=True):
        assert line["slide"] in message
        assert line["problem"] in message
    bags.skip(0, "again")
    assert lines(tmp_path) == found


def test_problems_of_several_lines_and_odd_names_stay_one_row_each(tmp_path: Path) -> None:
    bad_slides = BadSlides("skip", tmp_path / "made" / "then")
    bad_slides.begin()
    odd = 'block "A",\nlevel 2.tif'
    bad_slides.add("test", odd, UserError("first,\n  second; 5 µm"))
    (line,) = lines(tmp_path / "made" / "then")
    assert line == {"part": "test", "slide": odd, "problem": "first, second; 5 µm"}
    assert bad_slides.of("test") == {odd: "first, second; 5 µm"}
    assert bad_slides.of("training") == {}


def test_not_one_slide_left_is_an_error(slides: Cohort) -> None:
    hopeless = slides.subset([slides.entries[i] for i in (0, 2)])
    with pytest.raises(UserError, match=r"Not one of the 2 slides for validation .*glass.tif: no tissue found"):
        dataset(hopeless, BadSlides("skip"), "validation").prepare()


def test_a_slide_that_goes_bad_after_all_others_is_an_error(slides: Cohort) -> None:
    bags = dataset(slides, BadSlides("skip")).prepare()
    bags.skip(1, "first")
    with pytest.raises(UserError, match=r"Not one of the 5 slides.*second"):
        bags.skip(3, "second")


def test_a_resumed_training_skips_what_it_skipped_before(
    slides: Cohort, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = BadSlides("skip", tmp_path)
    bags = dataset(slides, before).prepare()
    before.begin()
    bags.skip(3, UserError("a tile is damaged"))
    wanted = lines(tmp_path)
    assert wanted[-1] == {"part": "training", "slide": "b.tif", "problem": "a tile is damaged"}

    after = BadSlides("skip", tmp_path)
    after.restore(tmp_path)
    caplog.clear()
    again, other = dataset(slides, after).prepare(), dataset(slides, after, "validation").prepare()
    after.begin()
    assert again.keys(2) == bags.keys(2)
    assert again.skipped == {0, 2, 3, 4}
    assert other.skipped == {0, 2, 4}, "the other part was not read before"
    assert lines(tmp_path)[:4] == wanted
    assert [line["part"] for line in lines(tmp_path)[4:]] == ["validation"] * 3
    assert "(training)" not in caplog.text, "what was logged before is not logged again"


def test_a_file_that_is_no_list_is_named_with_its_columns(tmp_path: Path) -> None:
    (tmp_path / "skipped_slides.csv").write_text("slide,reason\na.tif,damaged\n")
    with pytest.raises(UserError, match=r"skipped_slides\.csv.*part.*slide, problem"):
        BadSlides("skip", tmp_path).restore(tmp_path)


def test_a_training_of_which_no_slide_was_left_cannot_be_resumed(slides: Cohort, tmp_path: Path) -> None:
    before = BadSlides("skip", tmp_path)
    bags = dataset(slides, before).prepare()
    before.begin()
    bags.skip(1, "first")
    with pytest.raises(UserError, match="Not one"):
        bags.skip(3, "second")
    after = BadSlides("skip", tmp_path)
    after.restore(tmp_path)
    with pytest.raises(UserError, match="Not one of the 5 slides for training"):
        dataset(slides, after).prepare()


def test_whoever_raises_takes_up_no_list(slides: Cohort, tmp_path: Path) -> None:
    bad_slides = BadSlides("skip", tmp_path)
    bad_slides.begin()
    bad_slides.add("training", "a.tif", "damaged")
    strict = BadSlides("raise", tmp_path)
    strict.restore(tmp_path)
    good = slides.subset([slides.entries[1]])
    assert dataset(good, strict).prepare().skipped == set()


@pytest.mark.parametrize("earlier", [True, False])
def test_a_new_list_takes_the_place_of_an_earlier_one(tmp_path: Path, earlier: bool) -> None:
    if earlier:
        (tmp_path / "skipped_slides.csv").write_text("part,slide,problem\ntraining,old.tif,old\n")
    bad_slides = BadSlides("skip", tmp_path)
    bad_slides.begin()
    assert list(tmp_path.iterdir()) == []
    bad_slides.add("test", "new.tif", "new")
    assert [line["slide"] for line in lines(tmp_path)] == ["new.tif"]
    assert len(list(tmp_path.iterdir())) == 1, "no half-written file stays"


def test_without_a_folder_no_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bad_slides = BadSlides("skip")
    bad_slides.begin()
    bad_slides.add("test", "a.tif", "damaged")
    assert bad_slides.of("test") == {"a.tif": "damaged"}
    assert list(tmp_path.iterdir()) == []


def test_what_was_asked_for_must_be_one_of_two(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"on_bad_slide is 'skipp'; expected one of raise, skip.*Did you mean .skip."):
        BadSlides("skipp", tmp_path)
