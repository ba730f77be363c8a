# SPDX-License-Identifier: Apache-2.0
"""What is said at the end of the slides that were left out."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from persam_monai.data import BadSlides, BagDataset
from persam_monai.handlers import MLflowRun

logger = logging.getLogger(__name__)


def report_skipped(datasets: Iterable[BagDataset], tracking: MLflowRun | None = None) -> None:
    """Log at the end how many slides were skipped, here and in MLflow, which gets no names."""
    for bad_slides in lists_of(datasets):
        if bad_slides.skip and tracking is not None:
            tracking.log_metrics({"skipped_slides": len(bad_slides.skipped)})
        if bad_slides.skipped:
            logger.warning("%d slides were skipped; %s lists them.", len(bad_slides.skipped), bad_slides.file)


def lists_of(datasets: Iterable[BagDataset]) -> list[BadSlides]:
    """The datasets' lists of bad slides, each once: parts may share one."""
    return list({id(dataset.bad_slides): dataset.bad_slides for dataset in datasets}.values())
