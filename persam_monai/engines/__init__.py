# SPDX-License-Identifier: Apache-2.0
"""What the configs run: extraction, training, evaluating, inference."""

from persam_monai.engines.evaluation import Evaluation, Prediction
from persam_monai.engines.extraction import Extraction
from persam_monai.engines.outputs import folds_of, folds_to_go_on_with
from persam_monai.engines.slides import new_slides, part_dir, slides_to_extract
from persam_monai.engines.training import Training, describe, provenance

__all__ = [
    "Evaluation",
    "Extraction",
    "Prediction",
    "Training",
    "describe",
    "folds_of",
    "folds_to_go_on_with",
    "new_slides",
    "part_dir",
    "provenance",
    "slides_to_extract",
]
