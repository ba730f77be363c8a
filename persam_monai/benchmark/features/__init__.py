# SPDX-License-Identifier: Apache-2.0
"""How fast features are extracted, and how fast a network learns from files of features."""

from persam_monai.benchmark.features.extraction import ExtractionEffort, measure_extraction
from persam_monai.benchmark.features.folder import Sizes
from persam_monai.benchmark.features.report import PARTS, TrainingEffort, measure, table, verdicts
from persam_monai.benchmark.features.training import Run, measure_training

__all__ = [
    "PARTS",
    "ExtractionEffort",
    "Run",
    "Sizes",
    "TrainingEffort",
    "measure",
    "measure_extraction",
    "measure_training",
    "table",
    "verdicts",
]
