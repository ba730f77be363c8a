# SPDX-License-Identifier: Apache-2.0
"""Who is in the study: the validated cohort table and its patient-grouped folds."""

from __future__ import annotations

from persam_monai.cohort.cohort import Cohort
from persam_monai.cohort.entry import SlideEntry
from persam_monai.cohort.folds import Split, assign_folds, split, split_by
from persam_monai.cohort.saved_folds import SavedFold, read_folds, write_folds
from persam_monai.cohort.slides_alone import load_slides
from persam_monai.cohort.tables import find_table, read_table

__all__ = [
    "Cohort",
    "SavedFold",
    "SlideEntry",
    "Split",
    "assign_folds",
    "find_table",
    "load_slides",
    "read_folds",
    "read_table",
    "split",
    "split_by",
    "write_folds",
]
