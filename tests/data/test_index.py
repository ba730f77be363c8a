# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort
from persam_monai.cohort.entry import SlideEntry
from persam_monai.data import (
    BagDataset,
    IndexCache,
    PatchSettings,
    RandomBags,
    SlideIndex,
    SlidePatches,
    index_slide,
    index_slides,
)
from persam_monai.errors import UserError
from tests.data.making import Picture, cohort_of, write_slides
from tests.slides.writing import write_slide

PATCHES = PatchSettings()
SIDES = {"a.tif": 1024, "b.tif": 512, "c.tif": 768, "d.tif": 512, "e.tif": 1280}
CELLS = [16, 4, 9, 4, 25]  # all tissue


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory, schema: ClinicalSchema, picture: Picture) -> Cohort:
    folder = tmp_path_factory.mktemp("indexed")
    write_slides(folder, picture, SIDES)
    return cohort_of(folder, schema, list(SIDES))


def indices(found: list[SlideIndex | UserError]) -> list[SlideIndex]:
    assert all(isinstance(one, SlideIndex) for one in found)
    return [one for one in found if isinstance(one, SlideIndex)]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_worker_processes_find_the_same_in_the_order_of_the_cohort(slides: Cohort, num_workers: int) -> None:
    alone = indices(index_slides(slides.entries, PATCHES))
    helped = indices(index_slides(slides.entries, PATCHES, num_workers=num_workers))
    assert [len(one.cells) for one in alone] == CELLS
    for ours, theirs in zip(alone, helped, strict=True):
        assert ours.header == theirs.header
        np.testing.assert_array_equal(ours.cells.origins, theirs.cells.origins)
        np.testing.assert_array_equal(ours.cells.choices, theirs.cells.choices)
        np.testing.assert_array_equal(ours.cells.tissue.bits, theirs.cells.tissue.bits)
    assert [one.header.path for one in helped] == [entry.path for entry in slides.entries]


@pytest.mark.parametrize("tile", [(128, 128), (512, 512), (1024, 1024), (1536, 128)])
def test_an_epoch_has_as_many_bags_whatever_the_tiles(
    tmp_path: Path, schema: ClinicalSchema, picture: Picture, tile: tuple[int, int]
) -> None:
    pixels = np.full((1800, 1800, 3), 243, np.uint8)
    pixels[228:1572, 228:1572] = picture(1344, 1344, 0)  # six patches each way
    for name, size in (("usual.tif", (256, 256)), ("other.tif", tile)):
        write_slide(tmp_path / name, [pixels], "lzw", size)
    data = cohort_of(tmp_path, schema, ["usual.tif", "other.tif"])
    bags = BagDataset(data, RandomBags(6, 30), SlidePatches(PATCHES)).prepare()
    counts = np.bincount([key.slide for key in bags.keys(0)])
    assert counts.tolist() == [5, 5]  # of about 35 patches, since the corners of the mask are round


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_is_wrong_with_a_slide_stands_in_its_place(
    slides: Cohort, tmp_path: Path, schema: ClinicalSchema, num_workers: int
) -> None:
    (tmp_path / "text.tif").write_text("not a slide")
    bad = cohort_of(tmp_path, schema, ["text.tif", "missing.tif"]).entries
    entries = [slides.entries[0], bad[0], slides.entries[1], bad[1]]
    found = index_slides(entries, PATCHES, num_workers=num_workers)
    assert [type(one) for one in found] == [SlideIndex, UserError, SlideIndex, UserError]
    assert str(bad[0].path) in str(found[1])
    assert "not a whole-slide image" in str(found[1])
    assert str(bad[1].path) in str(found[3])
    assert "does not exist" in str(found[3])


def test_a_slide_smaller_than_a_patch_is_told_as_such(slides: Cohort) -> None:
    """Not as one without tissue, of which there may be enough."""
    entry = slides.entries[0]
    (found,) = index_slides([entry], PatchSettings(size=5000))
    assert isinstance(found, UserError)
    assert str(found).startswith(f"Slide {entry.path} is smaller than a patch of 5000 px at 0.25 µm/px.")


def dies_on(*names: str, number: int = signal.SIGSEGV) -> object:
    """Looks into slides; some of them end the process, as a native library would."""

    def look(entry: SlideEntry, patches: PatchSettings) -> SlideIndex:
        if entry.slide in names:
            time.sleep(0.1)  # until the parent waits for this slide
            os.kill(os.getpid(), number)
        return index_slide(entry, patches)

    return look


@pytest.mark.parametrize(
    ("names", "num_workers"), [(("c.tif",), 1), (("c.tif",), 2), (("a.tif", "b.tif", "e.tif"), 2), (tuple(SIDES), 2)]
)
def test_a_slide_that_ends_its_worker_is_an_error_like_any_other(
    slides: Cohort, names: tuple[str, ...], num_workers: int
) -> None:
    found = index_slides(slides.entries, PATCHES, num_workers=num_workers, index=dies_on(*names))  # type: ignore[arg-type]
    for entry, one, cells in zip(slides.entries, found, CELLS, strict=True):
        if entry.slide in names:
            assert isinstance(one, UserError)
            assert str(entry.path) in str(one)
            assert "SIGSEGV" in str(one)
            assert "crashed" in str(one)
        else:
            assert isinstance(one, SlideIndex)
            assert one.header.path == entry.path
            assert len(one.cells) == cells


def test_a_killed_worker_points_to_the_memory(slides: Cohort) -> None:
    deadly = dies_on("b.tif", number=signal.SIGKILL)
    with pytest.raises(UserError, match=r"SIGKILL.*memory") as caught:
        index_slides(slides.entries[:2], PATCHES, num_workers=1, index=deadly)  # type: ignore[arg-type]
    assert str(slides.entries[1].path) in str(caught.value)


def test_what_was_found_before_a_crash_is_kept(slides: Cohort, tmp_path: Path) -> None:
    cache = IndexCache(tmp_path)
    index_slides(slides.entries, PATCHES, cache=cache, num_workers=1, index=dies_on("d.tif"))  # type: ignore[arg-type]
    known = [cache.find(entry, PATCHES) is not None for entry in slides.entries]
    assert known == [True, True, True, False, True]
    # Only the slide that is not known is looked into again.
    everything_kills = dies_on(*SIDES)
    again = index_slides(slides.entries, PATCHES, cache=cache, num_workers=1, index=everything_kills)  # type: ignore[arg-type]
    assert [isinstance(one, SlideIndex) for one in again] == known


def test_a_programming_mistake_is_no_damaged_slide(slides: Cohort) -> None:
    def broken(entry: SlideEntry, patches: PatchSettings) -> SlideIndex:
        raise ZeroDivisionError("ours")

    for num_workers in (0, 1):
        with pytest.raises(ZeroDivisionError, match="ours"):
            index_slides(slides.entries, PATCHES, num_workers=num_workers, index=broken)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_looking_for_tissue_leaves_the_global_random_state_alone(slides: Cohort, num_workers: int) -> None:
    before = torch.get_rng_state()
    index_slides(slides.entries[:2], PATCHES, num_workers=num_workers)
    assert torch.equal(torch.get_rng_state(), before), "results would depend on what is in the cache"


def test_a_dataset_looks_with_its_workers(slides: Cohort, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dataset = BagDataset(
        slides, RandomBags(4, 30), SlidePatches(PATCHES, index_dir=tmp_path, index_workers=2)
    ).prepare()
    assert len(dataset) == 4 + 1 + 2 + 1 + 6
    assert len(list(tmp_path.iterdir())) == 5
