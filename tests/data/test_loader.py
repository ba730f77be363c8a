# SPDX-License-Identifier: Apache-2.0
"""Slides that go bad in the middle of an epoch."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from persam_monai.clinical import ClinicalSchema
from persam_monai.data import BadSlides, BagDataset, BagLoader, PartitionBags, PatchSettings, RandomBags, SlidePatches
from persam_monai.data.dataset import BagKey
from persam_monai.errors import UserError
from tests.data.making import Picture, cohort_of, garble, write_slides

PATCHES = PatchSettings(size=256)  # each cell is a tile
SIDES = {"a.tif": 1024, "bad.tif": 1024, "small.tif": 512, "c.tif": 1024}  # 16, 16, 4 and 16 cells
BAD = 1
BAGS = 3 + 3 + 1 + 3  # of at most 6 cells: 6, 5 and 5 of 16, and 4

Batch = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory, picture: Picture) -> Path:
    folder = tmp_path_factory.mktemp("loaded")
    write_slides(folder, picture, SIDES)
    return folder


@pytest.fixture
def copied(slides: Path, tmp_path: Path) -> Path:
    """Slides to damage."""
    return Path(shutil.copytree(slides, tmp_path / "slides"))


def bags_of(folder: Path, schema: ClinicalSchema, bad_slides: BadSlides | None = None) -> BagDataset:
    data = cohort_of(folder, schema, list(SIDES))
    return BagDataset(
        data,
        PartitionBags(6, "all", 1),
        SlidePatches(PATCHES),
        augment=True,
        seed=3,
        label="training",
        bad_slides=bad_slides,
    ).prepare()


def damage(dataset: BagDataset, bag: int = 1) -> None:
    """Garble a tile that belongs to one bag of the bad slide. The cells are its tiles, row by row."""
    entry, instances = dataset.entries[BAD], dataset.instances[BAD]
    assert instances is not None
    assert len(instances) == 16
    garble(entry.path, int(dataset.draw.choose(16, entry.slide, 1, bag)[2]))


def epoch(dataset: BagDataset, number: int = 1, **settings: Any) -> list[Batch]:
    loader = BagLoader(dataset, **settings)
    loader.sampler.set_epoch(number)  # type: ignore[attr-defined]
    return list(loader)


def names_of(batches: list[Batch]) -> Counter[tuple[int, bytes]]:
    """How often each bag came: its slide and its patches' places."""
    found: Counter[tuple[int, bytes]] = Counter()
    for batch in batches:
        for slide, places, mask in zip(batch["slide"], batch["locations"], batch["mask"], strict=True):
            found[int(slide), places[mask].numpy().tobytes()] += 1
    return found


def wanted_names(dataset: BagDataset, number: int, slides: set[int]) -> Counter[tuple[int, bytes]]:
    """The same of bags that are read one by one."""
    keys = [BagKey(s, number, bag) for s in slides for bag in range(dataset.draw.count([16, 16, 4, 16][s]))]
    return Counter((key.slide, dataset[key]["locations"].tobytes()) for key in keys)


def assert_equal(ours: list[Batch], theirs: list[Batch]) -> None:
    assert [batch["slide"].tolist() for batch in ours] == [batch["slide"].tolist() for batch in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)  # NaN equals NaN
        assert one["image"].permute(0, 2, 3, 4, 1).is_contiguous()
        assert (
            one["image"].shape[2] == one["mask"].shape[1] == one["locations"].shape[1] == int(one["mask"].sum(1).max())
        )


def of_good(batches: list[Batch]) -> Counter[tuple[int, bytes]]:
    return Counter({name: count for name, count in names_of(batches).items() if name[0] != BAD})


@pytest.mark.parametrize("num_workers", [0, 1, 2])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_are_the_bags_of_the_files_whoever_reads_them(
    slides: Path, schema: ClinicalSchema, num_workers: int, batch_size: int
) -> None:
    dataset = bags_of(slides, schema)
    batches = epoch(dataset, batch_size=batch_size, num_workers=num_workers, shuffle=True)
    assert names_of(batches) == wanted_names(dataset, 1, {0, 1, 2, 3})
    for batch in batches:
        image = batch["image"].permute(0, 2, 3, 4, 1).numpy()  # [B, N, H, W, 3]
        for row, mask, slide, places in zip(image, batch["mask"], batch["slide"], batch["locations"], strict=True):
            picture = tifffile.imread(dataset.entries[int(slide)].path, key=0)
            for patch, real, (x, y) in zip(row, mask, places.tolist(), strict=True):
                expected = picture[y : y + PATCHES.size, x : x + PATCHES.size] if real else np.zeros_like(patch)
                np.testing.assert_array_equal(patch, expected)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_by_default_a_damaged_tile_is_an_error_that_names_the_slide_and_the_tile(
    copied: Path, schema: ClinicalSchema, num_workers: int
) -> None:
    dataset = bags_of(copied, schema)
    damage(dataset)
    loader = BagLoader(dataset, num_workers=num_workers)
    received = []
    with pytest.raises(UserError, match=r"cannot be decoded: tile .* of level 0") as caught:
        received += list(loader)
    assert str(dataset.entries[BAD].path) in str(caught.value)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_a_damaged_tile_takes_its_slide_out_and_nothing_else(
    copied: Path,
    tmp_path: Path,
    schema: ClinicalSchema,
    caplog: pytest.LogCaptureFixture,
    batch_size: int,
    shuffle: bool,
) -> None:
    ways = []
    for num_workers in (0, 1, 2):
        folder = Path(shutil.copytree(copied, tmp_path / str(num_workers)))
        bad_slides = BadSlides("skip", folder)
        dataset = bags_of(folder, schema, bad_slides)
        damage(dataset)
        bad_slides.begin()
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            loader = BagLoader(dataset, batch_size, shuffle, seed=1, num_workers=num_workers)
            assert len(loader) == -(-BAGS // batch_size)
            loader.sampler.set_epoch(1)  # type: ignore[attr-defined]
            order = [key for key in loader.sampler if key.slide == BAD]
            first = list(loader)
            assert len(loader) == -(-(BAGS - 3) // batch_size)
            loader.sampler.set_epoch(2)  # type: ignore[attr-defined]
            second = list(loader)
        assert of_good(first) == wanted_names(dataset, 1, {0, 2, 3})
        assert names_of(second) == wanted_names(dataset, 2, {0, 2, 3})
        assert len(second) == len(loader)
        came = {name for name in names_of(first) if name[0] == BAD}
        before = {(BAD, dataset[key]["locations"].tobytes()) for key in order[: [key.bag for key in order].index(1)]}
        assert came <= before, "a bag came after the damage was known"
        assert dataset.skipped == {BAD}
        (line,) = bad_slides.skipped
        assert line[:2] == ("training", "bad.tif")
        assert "level 0 is damaged" in line.problem
        assert len((folder / "skipped_slides.csv").read_text().splitlines()) == 2
        assert [record.getMessage().split(" (")[0] for record in caplog.records] == ["Skipped slide bad.tif"]
        ways.append((first, second))
    for first, second in ways[1:]:
        assert_equal(first, ways[0][0])
        assert_equal(second, ways[0][1])


def test_a_batch_that_loses_its_longest_bag_is_cut_to_those_that_stay(
    copied: Path, schema: ClinicalSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In the first batch the longer bag cannot be read; in the second it can, by a worker that knows nothing of it.
    keys = [BagKey(BAD, 1, 0), BagKey(2, 1, 0), BagKey(BAD, 1, 2), BagKey(2, 2, 0)]
    ways = []
    for num_workers in (0, 2):
        folder = Path(shutil.copytree(copied, copied.parent / str(num_workers)))
        dataset = bags_of(folder, schema, BadSlides("skip"))
        damage(dataset, bag=0)
        loader = BagLoader(dataset, 2, num_workers=num_workers)
        monkeypatch.setattr(loader.sampler, "order", lambda: keys)
        ways.append(list(loader))
        assert [batch["image"].shape[2] for batch in ways[-1]] == [4, 4]
    assert_equal(*ways)


def dies(dataset: BagDataset, slide: int = BAD, number: int = signal.SIGSEGV, bag: int = 1) -> None:
    """Make one bag of a slide end the process that reads it."""
    read = dataset.read

    def deadly(key: BagKey, threads: int = 1, out: np.ndarray | None = None) -> dict[str, Any]:
        if key.slide == slide and key.bag == bag:
            time.sleep(0.1)  # until the parent waits for this bag
            os.kill(os.getpid(), number)
        return read(key, threads, out)

    dataset.read = deadly  # type: ignore[method-assign]


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_slide_that_ends_its_worker_is_taken_out_and_nothing_else(
    slides: Path,
    tmp_path: Path,
    schema: ClinicalSchema,
    caplog: pytest.LogCaptureFixture,
    num_workers: int,
    batch_size: int,
    shuffle: bool,
) -> None:
    bad_slides = BadSlides("skip", tmp_path)
    dataset = bags_of(slides, schema, bad_slides)
    bad_slides.begin()
    wanted = wanted_names(dataset, 1, {0, 2, 3})
    dies(dataset)
    with caplog.at_level(logging.WARNING):
        loader = BagLoader(dataset, batch_size, shuffle, seed=2, num_workers=num_workers)
        loader.sampler.set_epoch(1)  # type: ignore[attr-defined]
        first = list(loader)
        second = list(loader)
    assert of_good(first) == wanted
    assert names_of(second) == wanted
    assert max(names_of(first).values()) == 1
    assert dataset.skipped == {BAD}
    assert len(loader) == -(-(BAGS - 3) // batch_size)
    (line,) = bad_slides.skipped
    assert str(dataset.entries[BAD].path) in line.problem
    assert "SIGSEGV" in line.problem
    assert len((tmp_path / "skipped_slides.csv").read_text().splitlines()) == 2
    assert len([record for record in caplog.records if record.name.startswith("persam_monai")]) == 1


def test_several_slides_may_end_their_workers(slides: Path, schema: ClinicalSchema) -> None:
    dataset = bags_of(slides, schema, BadSlides("skip"))
    wanted = wanted_names(dataset, 1, {2, 3})
    dies(dataset, 0, bag=0)
    dies(dataset, BAD, bag=0)
    batches = epoch(dataset, num_workers=2)
    assert names_of(batches) == wanted
    assert dataset.skipped == {0, BAD}


def test_if_every_slide_ends_its_worker_that_is_an_error(slides: Path, schema: ClinicalSchema) -> None:
    dataset = bags_of(slides, schema, BadSlides("skip"))
    for slide in range(4):
        dies(dataset, slide, bag=0)
    with pytest.raises(UserError, match=r"Not one of the 4 slides for training can be used.*SIGSEGV"):
        epoch(dataset, num_workers=2)


@pytest.mark.parametrize(
    ("number", "cause"), [(signal.SIGSEGV, "SIGSEGV.*crashed"), (signal.SIGKILL, "SIGKILL.*memory")]
)
def test_by_default_a_slide_that_ends_its_worker_is_an_error_that_names_both(
    slides: Path, schema: ClinicalSchema, number: int, cause: str
) -> None:
    dataset = bags_of(slides, schema)
    dies(dataset, number=number)
    with pytest.raises(UserError, match=cause) as caught:
        epoch(dataset, num_workers=2)
    assert str(dataset.entries[BAD].path) in str(caught.value)


def test_a_slide_is_not_skipped_because_memory_ran_out(slides: Path, schema: ClinicalSchema) -> None:
    dataset = bags_of(slides, schema, BadSlides("skip"))
    dies(dataset, number=signal.SIGKILL)
    with pytest.raises(UserError, match=r"SIGKILL.*memory.*Lower --num_workers"):
        epoch(dataset, num_workers=2)
    assert dataset.skipped == set()


def test_a_worker_may_die_while_the_training_computes(slides: Path, schema: ClinicalSchema) -> None:
    dataset = bags_of(slides, schema, BadSlides("skip"))
    wanted = wanted_names(dataset, 0, {0, 2, 3})
    dies(dataset, bag=0)
    received = []
    for batch in BagLoader(dataset, num_workers=2):
        received.append(batch)
        time.sleep(0.15)
    assert of_good(received) == wanted


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_chosen_bags_go_on_where_a_worker_died(
    slides: Path, schema: ClinicalSchema, num_workers: int, batch_size: int
) -> None:
    dataset = bags_of(slides, schema, BadSlides("skip"))
    wanted = wanted_names(dataset, 0, {0, 2, 3})
    dies(dataset)
    loader = BagLoader(dataset, batch_size, num_workers=num_workers)
    received = list(loader.batches(dataset.keys(0)))
    assert of_good(received) == wanted
    assert max(names_of(received).values()) == 1
    assert dataset.skipped == {BAD}


def test_an_epoch_that_is_left_early_can_be_followed_by_a_whole_one(slides: Path, schema: ClinicalSchema) -> None:
    dataset = bags_of(slides, schema)
    loader = BagLoader(dataset, num_workers=2)
    for _ in range(3):
        next(iter(loader))
    assert names_of(list(loader)) == wanted_names(dataset, 0, {0, 1, 2, 3})


def test_workers_memory_and_files_are_given_back(slides: Path, schema: ClinicalSchema) -> None:
    data = cohort_of(slides, schema, list(SIDES))
    dataset = BagDataset(data, RandomBags(16, 1), SlidePatches(PatchSettings(size=128))).prepare()  # 3.1 MB a batch
    loader = BagLoader(dataset, batch_size=4, num_workers=2)

    def used() -> tuple[int, int]:
        """Open files, and resident memory in MB, after two more epochs."""
        for number in range(2):
            loader.sampler.set_epoch(number)  # type: ignore[attr-defined]
            for batch in loader:
                assert batch["image"].any()
        del batch
        gc.collect()
        resident = Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]
        return len(os.listdir("/proc/self/fd")), int(resident) // 1024

    first = used()
    for _ in range(5):
        last = used()
    assert last[0] <= first[0]
    assert last[1] <= first[1] + 10  # five times two epochs of 3 MB would be 30
