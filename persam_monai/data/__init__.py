# SPDX-License-Identifier: Apache-2.0
"""Slides become bags of patches: chosen, read, collated with a mask, turned on the device."""

from persam_monai.data.bad_slides import BadSlides
from persam_monai.data.batches import prepare_bags
from persam_monai.data.dataset import BagDataset, Instances, Source
from persam_monai.data.draws import InOrder, PartitionBags, RandomBags, generator_for
from persam_monai.data.feature_finding import feature_file
from persam_monai.data.feature_made import Made
from persam_monai.data.feature_source import FeatureFiles, FeatureInstances, bag_source
from persam_monai.data.index import (
    IndexCache,
    PatchSettings,
    SlideIndex,
    SlideInstances,
    SlidePatches,
    index_home,
    index_slide,
    index_slides,
)
from persam_monai.data.loader import BagLoader
from persam_monai.data.stored_features import read_info, write_features

__all__ = [
    "BadSlides",
    "BagDataset",
    "BagLoader",
    "FeatureFiles",
    "FeatureInstances",
    "InOrder",
    "IndexCache",
    "Instances",
    "Made",
    "PartitionBags",
    "PatchSettings",
    "RandomBags",
    "SlideIndex",
    "SlideInstances",
    "SlidePatches",
    "Source",
    "bag_source",
    "feature_file",
    "generator_for",
    "index_home",
    "index_slide",
    "index_slides",
    "prepare_bags",
    "read_info",
    "write_features",
]
