# SPDX-License-Identifier: Apache-2.0
"""Looking into slides, and what is kept of it for the next time."""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import signal
import time
import zipfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort
from persam_monai.cohort.reading import SlideEntry
from persam_monai.data import (
    BagDataset,
    IndexCache,
    PatchSettings,
    RandomBags,
    SlideIndex,
    SlidePatches,
    index_home,
    index_slide,
    index_slides,
)
from persam_monai.errors import UserError
from persam_monai.slides import PackedMask, PatchCells, Slide
from tests.data.making import Picture, cohort_of, write_slides
from tests.slides.dicom import write_dicom
from tests.slides.writing import write_slide

PATCHES, SMALL = PatchSettings(), PatchSettings(size=32)
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
    assert "No such file" in str(found[3])


def test_a_slide_smaller_than_a_patch_is_named_as_such(slides: Cohort) -> None:
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


@pytest.fixture
def entry(tmp_path: Path, schema: ClinicalSchema, picture: Picture) -> SlideEntry:
    folder = tmp_path / "slides"
    write_slides(folder, picture, {"a.tif": 512})
    return cohort_of(folder, schema, ["a.tif"]).entries[0]


@pytest.fixture
def cache(tmp_path: Path) -> IndexCache:
    return IndexCache(tmp_path / "index")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The slides that have been opened to look for tissue."""
    paths: list[Path] = []

    def open_slide(path: Path, *args: Any) -> Slide:
        paths.append(path)
        return Slide(path, *args)

    monkeypatch.setattr("persam_monai.data.index.Slide", open_slide)
    return paths


def look(entry: SlideEntry, cache: IndexCache, patches: PatchSettings = SMALL) -> SlideIndex:
    (found,) = index_slides([entry], patches, cache=cache)
    assert isinstance(found, SlideIndex)
    return found


def entry_file(cache: IndexCache) -> Path:
    (file,) = cache.folder.iterdir()
    return file


def assert_same(one: SlideIndex | None, other: SlideIndex) -> None:
    """Equal to the last bit, in value and in type."""
    assert one is not None
    assert one[0] == other[0]
    assert repr(one[0]) == repr(other[0])  # a pair is no list, a whole number is no float
    for field in fields(PatchCells):
        ours, theirs = getattr(one[1], field.name), getattr(other[1], field.name)
        if isinstance(ours, PackedMask):
            assert (ours.width, ours.scale) == (theirs.width, theirs.scale)
            ours, theirs = ours.bits, theirs.bits
        if isinstance(theirs, np.ndarray):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
        else:
            assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("backend", ["auto", "openslide"])
def test_what_was_found_is_there_the_next_time_and_no_slide_is_opened(
    entry: SlideEntry, cache: IndexCache, opened: list[Path], backend: str
) -> None:
    patches = PatchSettings(size=32, backend=backend)
    first = look(entry, cache, patches)
    assert opened == [entry.path]
    assert len(first.cells)
    assert_same(look(entry, IndexCache(cache.folder), patches), first)
    assert opened == [entry.path]


def test_a_prepared_dataset_reads_the_same_bags_from_what_was_kept(
    entry: SlideEntry, tmp_path: Path, schema: ClinicalSchema, opened: list[Path]
) -> None:
    data = cohort_of(entry.path.parent, schema, [entry.slide])
    datasets = [
        BagDataset(data, RandomBags(2, 2), SlidePatches(SMALL, index_dir=place)).prepare()
        for place in (None, tmp_path / "index", tmp_path / "index")
    ]
    assert len(opened) == 2
    wanted, *others = ([dataset[key] for key in dataset.keys(3)] for dataset in datasets)
    assert len(wanted) == 2
    for found in others:
        for item, bag in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(item["locations"], bag["locations"])
            np.testing.assert_array_equal(item["image"], bag["image"])


@pytest.mark.parametrize(
    "other",
    [
        {"mpp": 0.5},
        {"size": 40},
        {"sampling": "grid"},
        {"min_tissue": 0.4},
        {"backend": "openslide"},
        {"own mpp": 0.26},
    ],
    ids=lambda other: next(iter(other)),
)
def test_every_setting_has_an_entry_of_its_own(
    entry: SlideEntry, cache: IndexCache, opened: list[Path], other: dict[str, Any]
) -> None:
    before = look(entry, cache)
    changed = replace(entry, mpp=other["own mpp"]) if "own mpp" in other else entry
    patches = SMALL if "own mpp" in other else replace(SMALL, **other)
    assert cache.find(changed, patches) is None
    look(changed, cache, patches)
    assert len(opened) == 2
    assert len(list(cache.folder.iterdir())) == 2
    assert_same(cache.find(entry, SMALL), before)


def test_a_number_is_the_same_setting_with_and_without_a_point(
    entry: SlideEntry, cache: IndexCache, opened: list[Path]
) -> None:
    look(replace(entry, mpp=1), cache, PatchSettings(size=32, mpp=1, min_tissue=0))
    look(replace(entry, mpp=1.0), cache, PatchSettings(size=32, mpp=1.0, min_tissue=0.0))
    assert len(opened) == 1


@pytest.mark.parametrize("change", ["another size", "another time"])
def test_a_slide_whose_file_changed_is_looked_into_anew(
    entry: SlideEntry, cache: IndexCache, opened: list[Path], picture: Picture, change: str
) -> None:
    before = look(entry, cache)
    status = entry.path.stat()
    if change == "another size":
        write_slides(entry.path.parent, picture, {entry.slide: 768})
        os.utime(entry.path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert entry.path.stat().st_size != status.st_size
    else:
        os.utime(entry.path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert cache.find(entry, SMALL) is None
    after = look(entry, cache)
    assert opened == [entry.path] * 2
    assert len(after.cells) == ((768 // 32) ** 2 if change == "another size" else len(before.cells))
    assert_same(cache.find(entry, SMALL), after)
    entry_file(cache)  # the old one was replaced


def test_a_dicom_slide_that_was_completed_is_looked_into_anew(
    tmp_path: Path, cache: IndexCache, picture: Picture, schema: ClinicalSchema
) -> None:
    pixels = picture(1024, 1024, 0)
    opened = write_dicom(tmp_path / "dicom" / "1.dcm", pixels[::4, ::4], 1.0)
    entry, patches = cohort_of(tmp_path / "dicom", schema, ["1.dcm"]).entries[0], PatchSettings(size=32, mpp=1.0)
    assert look(entry, cache, patches).cells.extent == (32, 32)
    write_dicom(opened.with_name("2.dcm"), pixels, 0.25)
    assert look(entry, cache, patches).cells.extent == (128, 128)


def flipped(content: bytes) -> bytes:
    """One bit in the middle of the compressed positions of the cells."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        member = archive.getinfo("origins.npy")
    middle = member.header_offset + 30 + len(member.filename) + member.compress_size // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[: len(content) // 2],
    "text": lambda content: b"not an index",
    "a bit flipped": flipped,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_entry_is_made_anew(entry: SlideEntry, cache: IndexCache, opened: list[Path], kind: str) -> None:
    wanted = look(entry, cache)
    file = entry_file(cache)
    good = file.read_bytes()
    file.write_bytes(DAMAGE[kind](good))
    assert cache.find(entry, SMALL) is None
    assert_same(look(entry, cache), wanted)
    assert len(opened) == 2
    assert entry_file(cache) == file
    assert_same(cache.find(entry, SMALL), wanted)


def test_two_processes_may_fill_the_same_folder(
    tmp_path: Path, schema: ClinicalSchema, picture: Picture, cache: IndexCache
) -> None:
    names = [f"{i}.tif" for i in range(4)]
    write_slides(tmp_path / "slides", picture, dict.fromkeys(names, 512))
    data = cohort_of(tmp_path / "slides", schema, names)
    context = multiprocessing.get_context("fork")
    together = context.Barrier(2)

    def prepare() -> None:
        together.wait(60)
        BagDataset(data, RandomBags(2, 1), SlidePatches(SMALL, index_dir=cache.folder)).prepare()

    processes = [context.Process(target=prepare) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(file.suffix for file in cache.folder.iterdir()) == [".npz"] * 4
    wanted = index_slides(data.entries, SMALL)
    for entry, one in zip(data.entries, wanted, strict=True):
        assert isinstance(one, SlideIndex)
        assert_same(cache.find(entry, SMALL), one)


def test_where_nothing_can_be_kept_that_is_said_once_and_the_work_goes_on(
    tmp_path: Path, schema: ClinicalSchema, picture: Picture, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["a.tif", "b.tif", "c.tif"]
    write_slides(tmp_path / "slides", picture, dict.fromkeys(names, 512))
    (tmp_path / "file").write_text("mine")
    data = cohort_of(tmp_path / "slides", schema, names)
    with caplog.at_level(logging.WARNING):
        dataset = BagDataset(data, RandomBags(2, 1), SlidePatches(SMALL, index_dir=tmp_path / "file")).prepare()
    assert len(dataset) == 3
    (message,) = [record.getMessage() for record in caplog.records]
    assert str(tmp_path / "file") in message
    assert "not kept" in message
    assert (tmp_path / "file").read_text() == "mine"


def test_the_default_folder_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for unset in (None, ""):
        if unset is None:
            monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert index_home() == str(tmp_path / ".cache" / "persam_monai" / "index")
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch/cache")
    assert index_home() == "/scratch/cache/persam_monai/index"


def test_a_folder_in_the_home_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, entry: SlideEntry) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    look(entry, IndexCache("~/kept"))
    assert len(list((tmp_path / "kept").iterdir())) == 1
