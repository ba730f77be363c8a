# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from persam_monai.data import prepare_bags, turn_patches


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
