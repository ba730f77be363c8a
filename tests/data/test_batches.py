# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from persam_monai.cohort import Cohort
from persam_monai.data import BagDataset, PatchSettings, RandomBags, SlidePatches, prepare_bags
from persam_monai.data.batches import collate_bags, turn_patches, without
from persam_monai.data.dataset import BagKey

PATCHES = PatchSettings()
Batch = dict[str, Any]


@pytest.fixture(scope="module")
def dataset(cohort: Cohort) -> BagDataset:
    """16, 16 and 4 cells in bags of 6: two, two and one bag."""
    return BagDataset(cohort, RandomBags(6, 30, seed=5), SlidePatches(PATCHES), augment=True, seed=5).prepare()


@pytest.fixture
def items(dataset: BagDataset) -> list[dict[str, Any]]:
    """Bags of slides 0, 2, 1, 2 and 0 with 6, 4, 6, 4 and 6 patches."""
    keys = [BagKey(0, 1, 0), BagKey(2, 1, 0), BagKey(1, 1, 1), BagKey(2, 2, 0), BagKey(0, 1, 1)]
    return [dataset[key] for key in keys]


def assert_equal(ours: Batch, theirs: Batch) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype
        assert ours[name].shape == theirs[name].shape, name
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    assert ours["image"].permute(0, 2, 3, 4, 1).is_contiguous()


@pytest.mark.parametrize(
    ("slides", "stay"), [({2}, [0, 2, 4]), ({0}, [1, 2, 3]), ({1}, [0, 1, 3, 4]), ({0, 1}, [1, 3]), ({1, 2}, [0, 4])]
)
def test_what_stays_is_the_batch_of_the_other_bags(
    items: list[dict[str, Any]], slides: set[int], stay: list[int]
) -> None:
    batch = collate_bags(items)
    found = without(batch, slides)
    assert found is not None
    assert_equal(found, collate_bags([items[i] for i in stay]))


def test_a_batch_of_none_of_the_slides_stays_as_it_is(items: list[dict[str, Any]]) -> None:
    batch = collate_bags(items)
    assert without(batch, {7}) is batch
    assert without(batch, set()) is batch
    assert without(batch, {0, 1, 2}) is None


@pytest.fixture
def image() -> torch.Tensor:
    """Two bags of eight patches, seen as [B, 3, N, H, W] and laid out as [B, N, H, W, 3]."""
    torch.manual_seed(0)
    return torch.randint(0, 256, (2, 8, 6, 6, 3), dtype=torch.uint8).permute(0, 4, 1, 2, 3)


def test_every_patch_is_turned_by_its_own_code(image: torch.Tensor) -> None:
    orientation = torch.stack([torch.arange(8), torch.tensor([3, 3, 0, 7, 5, 1, 2, 4])]).to(torch.uint8)
    turned = turn_patches(image, orientation)
    for bag in range(2):
        for place in range(8):
            code = int(orientation[bag, place])
            patch = image[bag, :, place].permute(1, 2, 0).numpy()  # [H, W, 3]
            wanted = np.rot90(patch, code % 4)
            wanted = np.fliplr(wanted) if code >= 4 else wanted
            np.testing.assert_array_equal(turned[bag, :, place].permute(1, 2, 0), wanted)


def test_the_eight_orientations_are_all_different(image: torch.Tensor) -> None:
    same = image[:1, :, :1].expand(1, 3, 8, 6, 6)
    turned = turn_patches(same, torch.arange(8, dtype=torch.uint8)[None])
    assert len({turned[0, :, code].contiguous().numpy().tobytes() for code in range(8)}) == 8


@pytest.mark.parametrize("codes", [torch.zeros(2, 8), torch.arange(16).reshape(2, 8) % 8])
def test_turning_keeps_the_memory_layout_and_the_input(image: torch.Tensor, codes: torch.Tensor) -> None:
    before = image.clone()
    turned = turn_patches(image, codes.to(torch.uint8))
    assert turned.permute(0, 2, 3, 4, 1).is_contiguous()
    assert turned.dtype == torch.uint8
    assert torch.equal(image, before)


def test_a_batch_becomes_the_networks_arguments(image: torch.Tensor) -> None:
    batch = {
        "image": image,
        "orientation": torch.full((2, 8), 2, dtype=torch.uint8),
        "label": torch.tensor([0, 1]),
        "clinical": torch.randn(2, 5),
        "mask": torch.arange(8) < torch.tensor([[8], [5]]),
    }
    inputs, label, positional, named = prepare_bags(batch, "cpu")
    assert torch.equal(inputs, image.flip(3).flip(4))  # half a turn
    assert label.tolist() == [0, 1]
    assert positional == ()
    assert named.keys() == {"clinical", "mask"}
    assert torch.equal(named["mask"], batch["mask"])
    full = {**batch, "mask": torch.ones(2, 8, dtype=torch.bool)}
    assert prepare_bags(full, "cpu")[3].keys() == {"clinical"}, "without padding no mask travels"
    assert torch.equal(named["clinical"], batch["clinical"])
