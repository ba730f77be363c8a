# SPDX-License-Identifier: Apache-2.0
"""How good the predictions are, per slide and per patient."""

from persam_monai.metrics.engine import SlideLoss, VoteScore, loss_of
from persam_monai.metrics.scores import accuracy, always, auroc, balanced_accuracy, report
from persam_monai.metrics.votes import Predictions, Votes

__all__ = [
    "Predictions",
    "SlideLoss",
    "VoteScore",
    "Votes",
    "accuracy",
    "always",
    "auroc",
    "balanced_accuracy",
    "loss_of",
    "report",
]
