# SPDX-License-Identifier: Apache-2.0
"""Who is in the study: the validated cohort table and its patient-grouped folds."""

from __future__ import annotations

from persam_monai.cohort.cohort import Cohort
from persam_monai.cohort.folds import Split, assign_folds, read_folds, split_by, write_folds
from persam_monai.cohort.problems import counted
from persam_monai.cohort.reading import SlideEntry
from persam_monai.cohort.tables import TABLE_NAMES, find_table, read_table

__all__ = [
    "TABLE_NAMES",
    "Cohort",
    "SlideEntry",
    "Split",
    "assign_folds",
    "counted",
    "find_table",
    "read_folds",
    "read_table",
    "split_by",
    "write_folds",
]
