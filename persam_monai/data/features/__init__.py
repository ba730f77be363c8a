# SPDX-License-Identifier: Apache-2.0
"""Features of patches that were extracted before: written, found, looked into, read."""

from persam_monai.data.features.file import read_info, write_features
from persam_monai.data.features.finding import feature_file, find_features
from persam_monai.data.features.made import FeatureInfo, Made
from persam_monai.data.features.source import FeatureFiles, FeatureInstances, bag_source

__all__ = [
    "FeatureFiles",
    "FeatureInfo",
    "FeatureInstances",
    "Made",
    "bag_source",
    "feature_file",
    "find_features",
    "read_info",
    "write_features",
]
