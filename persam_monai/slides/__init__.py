# SPDX-License-Identifier: Apache-2.0
"""A path becomes an open slide: resolution, levels, tissue, places for patches, pixels."""

from persam_monai.slides.cells import PatchCells, patch_cells
from persam_monai.slides.handles import open_slide
from persam_monai.slides.slide import Slide
from persam_monai.slides.tissue import TissueMask, tissue_mask

__all__ = ["PatchCells", "Slide", "TissueMask", "open_slide", "patch_cells", "tissue_mask"]
