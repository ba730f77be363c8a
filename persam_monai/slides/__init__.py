# SPDX-License-Identifier: Apache-2.0
"""A path becomes an open slide: resolution, levels, tissue, locations of patches, pixels."""

from persam_monai.slides.cells import PatchCells, patch_cells
from persam_monai.slides.header import SlideHeader
from persam_monai.slides.slide import Slide, open_slide
from persam_monai.slides.tissue import PackedMask, TissueMask, tissue_mask

__all__ = [
    "PackedMask",
    "PatchCells",
    "Slide",
    "SlideHeader",
    "TissueMask",
    "open_slide",
    "patch_cells",
    "tissue_mask",
]
