# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort
from persam_monai.cohort.reading import SlideEntry
from persam_monai.data import BagDataset, BagLoader, PartitionBags, PatchSettings, RandomBags, SlidePatches
from persam_monai.data.batches import collate_bags
from persam_monai.data.dataset import BagKey
from persam_monai.data.loader import EpochSampler
from persam_monai.errors import UserError
from persam_monai.synthetic import write_pyramid

PATCHES = PatchSettings()


@pytest.fixture(scope="module")
def dataset(cohort: Cohort) -> BagDataset:
    """16, 16 and 4 cells in bags of 6: two, two and one bag."""
    return BagDataset(cohort, RandomBags(6, 30, seed=5), SlidePatches(PATCHES), augment=True, seed=5).prepare()


def batches(dataset: BagDataset, epoch: int = 1, **settings: Any) -> list[dict[str, torch.Tensor]]:
    loader = BagLoader(dataset, **settings)
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return list(loader)


def by_bag(loaded: list[dict[str, torch.Tensor]]) -> dict[tuple[int, bytes], dict[str, bytes]]:
    """Single bags by slide and locations, whatever their order."""
    assert all(len(batch["slide"]) == 1 for batch in loaded)
    return {
        (int(batch["slide"]), batch["locations"].numpy().tobytes()): {
            name: value.contiguous().numpy().tobytes() for name, value in batch.items()
        }
        for batch in loaded
    }


def test_a_bag_holds_its_slides_pixels_record_and_label(dataset: BagDataset) -> None:
    for key in dataset.keys(epoch=3):
        item, entry = dataset[key], dataset.entries[key.slide]
        slide = tifffile.imread(entry.path, key=0)
        wanted = [slide[y : y + PATCHES.size, x : x + PATCHES.size] for x, y in item["locations"]]
        np.testing.assert_array_equal(item["image"], np.stack(wanted))
        np.testing.assert_array_equal(item["clinical"], entry.clinical)
        assert item["label"] == entry.label
        assert item["slide"] == key.slide
        assert len(item["image"]) == len(item["orientation"]) == dataset.size(key)


def test_the_bags_of_an_epoch_are_known_after_looking_for_tissue(cohort: Cohort, dataset: BagDataset) -> None:
    assert [(key.slide, key.bag) for key in dataset.keys(0)] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    assert len(dataset) == 5
    with pytest.raises(TypeError, match=r"prepare\(\)"):
        len(BagDataset(cohort, RandomBags(6, 30), SlidePatches(PATCHES)))


def test_an_unlabelled_slide_has_label_minus_one(cohort: Cohort) -> None:
    unlabelled = cohort.subset([replace(cohort.entries[2], label=None)])
    assert BagDataset(unlabelled, RandomBags(2, 1), SlidePatches(PATCHES)).prepare()[BagKey(0, 0, 0)]["label"] == -1


def test_orientations_are_random_in_training_only(cohort: Cohort, dataset: BagDataset) -> None:
    drawn = np.concatenate([dataset[key]["orientation"] for epoch in range(8) for key in dataset.keys(epoch)])
    assert set(drawn.tolist()) == set(range(8))
    plain = BagDataset(cohort, RandomBags(6, 30), SlidePatches(PATCHES)).prepare()
    assert not any(plain[key]["orientation"].any() for key in plain.keys(1))


def test_places_and_cells_are_drawn_anew_in_every_epoch(dataset: BagDataset) -> None:
    first, again, second = (dataset[BagKey(0, epoch, 0)] for epoch in (1, 1, 2))
    np.testing.assert_array_equal(first["locations"], again["locations"])
    np.testing.assert_array_equal(first["orientation"], again["orientation"])
    assert not np.array_equal(first["locations"] % 256, second["locations"] % 256)


def test_every_number_of_workers_gives_identical_batches(dataset: BagDataset) -> None:
    alone = batches(dataset, batch_size=2, shuffle=True, seed=1)
    helped = batches(dataset, batch_size=2, shuffle=True, seed=1, num_workers=2)
    assert len(alone) == len(helped) == 3
    for ours, theirs in zip(alone, helped, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])  # NaN equals NaN


def test_a_bag_does_not_depend_on_when_it_is_read(dataset: BagDataset) -> None:
    ordered, shuffled = batches(dataset), batches(dataset, shuffle=True, seed=3)
    assert [int(b["slide"]) for b in ordered] != [int(b["slide"]) for b in shuffled]
    assert by_bag(ordered) == by_bag(shuffled)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_reading_leaves_the_global_random_state_alone(dataset: BagDataset, num_workers: int) -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"]
    assert len(batches(dataset, shuffle=True, num_workers=num_workers)) == 5
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state(legacy=False)["state"]["key"], numpy_before)


def test_the_order_depends_on_seed_and_epoch_alone(dataset: BagDataset) -> None:
    def order(seed: int, epoch: int, shuffle: bool = True) -> list[BagKey]:
        sampler = EpochSampler(dataset, shuffle, seed)
        sampler.set_epoch(epoch)
        assert len(sampler) == 5
        return list(sampler)

    assert order(0, 1) == order(0, 1)
    assert sorted(order(0, 1)) == sorted(order(1, 1)) == dataset.keys(1)
    plain = {tuple((key.slide, key.bag) for key in order(seed, epoch)) for seed in (0, 1) for epoch in range(4)}
    assert len(plain) > 4
    assert order(0, 2, shuffle=False) == dataset.keys(2)


def test_a_batch_keeps_the_decoders_memory_layout_and_masks_its_padding(dataset: BagDataset) -> None:
    items = [dataset[BagKey(0, 0, 0)], dataset[BagKey(2, 0, 0)]]  # 6 and 4 patches
    batch = collate_bags(items)
    image = batch["image"]
    assert image.shape == (2, 3, 6, 224, 224)
    assert image.dtype == torch.uint8
    assert image.permute(0, 2, 3, 4, 1).is_contiguous()
    assert batch["mask"].tolist() == [[True] * 6, [True] * 4 + [False] * 2]
    for row, item in zip(image.permute(0, 2, 3, 4, 1).numpy(), items, strict=True):
        np.testing.assert_array_equal(row[: len(item["image"])], item["image"])
        assert not row[len(item["image"]) :].any()
    for name in ("locations", "orientation"):
        np.testing.assert_array_equal(batch[name][1, :4], items[1][name])
        assert not batch[name][1, 4:].any()
    assert batch["label"].tolist() == [1, 0]
    assert batch["slide"].tolist() == [0, 2]
    assert batch["clinical"].dtype == torch.float32


def test_a_single_bag_is_not_copied(dataset: BagDataset) -> None:
    item = dataset[BagKey(0, 0, 0)]
    batch = collate_bags([item])
    assert batch["image"].permute(0, 2, 3, 4, 1).is_contiguous()
    item["image"][0, 0, 0] = [1, 2, 3]
    assert batch["image"][0, :, 0, 0, 0].tolist() == [1, 2, 3]


def test_partitions_look_at_every_cell_of_a_slide(cohort: Cohort) -> None:
    patches = PatchSettings(size=200, sampling="grid")
    dataset = BagDataset(cohort, PartitionBags(7, "all", 2), SlidePatches(patches)).prepare()
    for slide, side in enumerate([1024, 1024, 512]):
        places = np.concatenate([dataset[key]["locations"] for key in dataset.keys(0) if key.slide == slide])
        grid = [(x, y) for y in range(0, side - 199, 200) for x in range(0, side - 199, 200)]
        assert sorted(map(tuple, places.tolist())) == sorted(grid * 2)


def entry(path: Path, schema: ClinicalSchema) -> SlideEntry:
    return SlideEntry(path.name, path, path.stem, 0, schema.encode({}, path.name), None, None, 2)


def test_all_slides_that_cannot_be_used_are_reported_together(
    tmp_path: Path, schema: ClinicalSchema, cohort: Cohort, picture: Callable[..., np.ndarray]
) -> None:
    (tmp_path / "text.svs").write_text("not a slide")
    write_pyramid(tmp_path / "glass.tif", np.full((600, 600, 3), 243, np.uint8), mpp=0.25)
    write_pyramid(tmp_path / "unknown.tif", picture(300, 300), mpp=None)
    write_pyramid(tmp_path / "coarse.tif", picture(300, 300), mpp=0.5)
    names = ["text.svs", "glass.tif", "unknown.tif", "coarse.tif", "missing.svs"]
    bad = Cohort((*cohort.entries, *(entry(tmp_path / name, schema) for name in names)), schema)
    with pytest.raises(UserError) as caught:
        BagDataset(bad, RandomBags(2, 1), SlidePatches(PATCHES)).prepare()
    lines = str(caught.value).splitlines()[1:]
    assert len(lines) == len(names)
    for line, name, cure in zip(
        lines, names, ["complete", "--min_tissue", "column mpp", "--mpp 0.5", "No such file"], strict=True
    ):
        assert str(tmp_path / name) in line
        assert cure in line
    assert "no tissue found" in lines[1]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_slide_that_goes_bad_later_ends_with_its_own_message(
    tmp_path: Path, schema: ClinicalSchema, picture: Callable[..., np.ndarray], num_workers: int
) -> None:
    path = tmp_path / "slide.tif"
    write_pyramid(path, picture(512, 512), mpp=0.25)
    dataset = BagDataset(Cohort((entry(path, schema),), schema), RandomBags(2, 1), SlidePatches(PATCHES)).prepare()
    path.write_bytes(b"gone")
    with pytest.raises(UserError) as caught:
        batches(dataset, num_workers=num_workers)
    assert str(caught.value).startswith(f"Slide {path} cannot be decoded")
    assert "cut off" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "patch_size is 0"),
        ({"size": 22.4}, "patch_size is 22.4"),
        ({"mpp": 0}, "mpp is 0"),
        ({"mpp": "fine"}, "mpp is 'fine'"),
        ({"mpp": float("nan")}, "mpp is nan"),
        ({"min_tissue": 1.5}, "min_tissue is 1.5"),
        ({"sampling": "random"}, "sampling is 'random'"),
        ({"backend": "pillow"}, "backend is 'pillow'"),
    ],
)
def test_impossible_patches_are_refused_by_name(cohort: Cohort, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        BagDataset(cohort, RandomBags(2, 1), SlidePatches(PatchSettings(**settings))).prepare()
