# SPDX-License-Identifier: Apache-2.0
"""Ignite handlers for what MONAI's own do not do."""

from persam_monai.handlers.mlflow_run import MLflowRun, local_store
from persam_monai.handlers.running import EpochLine, Running, shared_handler
from persam_monai.handlers.saving import BestModelSaver, LastCheckpoint, PredictionSaver

__all__ = [
    "BestModelSaver",
    "EpochLine",
    "LastCheckpoint",
    "MLflowRun",
    "PredictionSaver",
    "Running",
    "local_store",
    "shared_handler",
]
