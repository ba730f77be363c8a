# SPDX-License-Identifier: Apache-2.0
"""Who is in the study: the validated cohort table and its patient-grouped folds."""

from __future__ import annotations

from persam_monai.cohort.cohort import Cohort
from persam_monai.cohort.entry import SlideEntry
from persam_monai.cohort.folds import Split, assign_folds, split, write_folds

__all__ = ["Cohort", "SlideEntry", "Split", "assign_folds", "split", "write_folds"]
