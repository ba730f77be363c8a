# SPDX-License-Identifier: Apache-2.0
"""Features of patches that were extracted before: written, found, looked into, read."""

from persam_monai.data.features.files import FeatureFiles, FeatureInstances
from persam_monai.data.features.head import read_info
from persam_monai.data.features.info import FeatureInfo, Made
from persam_monai.data.features.naming import feature_file, find_features
from persam_monai.data.features.writing import write_features

__all__ = [
    "FeatureFiles",
    "FeatureInfo",
    "FeatureInstances",
    "Made",
    "feature_file",
    "find_features",
    "read_info",
    "write_features",
]
