# SPDX-License-Identifier: Apache-2.0
"""Slides become bags of patches: chosen, read, collated with a mask, turned on the device."""

from persam_monai.data.dataset import BagDataset, BagKey
from persam_monai.data.draws import PartitionBags, RandomBags
from persam_monai.data.index import PatchSettings
from persam_monai.data.loader import BagLoader, EpochSampler, collate_bags
from persam_monai.data.prepare import prepare_bags, turn_patches
from persam_monai.data.randomness import generator_for

__all__ = [
    "BagDataset",
    "BagKey",
    "BagLoader",
    "EpochSampler",
    "PartitionBags",
    "PatchSettings",
    "RandomBags",
    "collate_bags",
    "generator_for",
    "prepare_bags",
    "turn_patches",
]
