# SPDX-License-Identifier: Apache-2.0
"""What the configs run: extraction, training, evaluating, inference."""

from persam_monai.engines.evaluation import evaluate, predict
from persam_monai.engines.extraction import extract
from persam_monai.engines.outputs import folds_of, folds_to_go_on_with
from persam_monai.engines.provenance import describe, provenance
from persam_monai.engines.slides import new_slides, part_dir, patches_at_once, slides_to_extract
from persam_monai.engines.training import train
from persam_monai.engines.wrapper import AttendingNetwork

__all__ = [
    "AttendingNetwork",
    "describe",
    "evaluate",
    "extract",
    "folds_of",
    "folds_to_go_on_with",
    "new_slides",
    "part_dir",
    "patches_at_once",
    "predict",
    "provenance",
    "slides_to_extract",
    "train",
]
