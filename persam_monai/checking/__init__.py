# SPDX-License-Identifier: Apache-2.0
"""A look at all slides before a training of days."""

from persam_monai.checking.check import CheckedSlide, Wanted, check_slides
from persam_monai.checking.report import lines, summary, write_table
from persam_monai.checking.sources import SUFFIXES, Source, find_slides

__all__ = [
    "SUFFIXES",
    "CheckedSlide",
    "Source",
    "Wanted",
    "check_slides",
    "find_slides",
    "lines",
    "summary",
    "write_table",
]
