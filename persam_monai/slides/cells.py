# SPDX-License-Identifier: Apache-2.0
"""Where patches may lie: a grid of cells over the tissue, each large enough for one patch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from persam_monai.errors import UserError
from persam_monai.slides.slide import Slide
from persam_monai.slides.tissue import TissueMask

SAMPLING = ("snapped", "grid")


@dataclass(frozen=True)
class PatchCells:
    """The cells of one slide; a patch drawn from a cell lies inside it.

    Attributes:
        corners: ``int64 [N, 2]`` upper-left corners (x, y) of the cells in level-0 pixels.
        slack: ``int64 [N, 2]`` how far a patch may move inside its cell, x and y, in pixels of the level that is read.
        downsample: level-0 pixels per pixel of that level, x and y.
    """

    corners: np.ndarray
    slack: np.ndarray
    downsample: tuple[float, float]

    def __len__(self) -> int:
        return len(self.corners)

    def locate(self, chosen: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Level-0 locations ``[n, 2]`` of one patch in each ``chosen`` cell ``[n]``, at a random place inside it."""
        moves = generator.integers(0, self.slack[chosen] + 1)  # [n, 2]
        return self.corners[chosen] + np.ceil(moves * np.array(self.downsample)).astype(np.int64)


def patch_cells(
    slide: Slide, tissue: TissueMask, size: int, mpp: float, sampling: str = "snapped", min_tissue: float = 0.5
) -> PatchCells:
    """Lay a grid over the slide and keep the cells that are tissue.

    Args:
        slide: an open slide.
        tissue: its tissue mask.
        size: side of a patch in pixels.
        mpp: µm per pixel of a patch.
        sampling: ``snapped``: a cell is the smallest block of the file's own tiles that holds a patch, so that a patch
            never costs the decoding of more tiles than it must; ``grid``: a cell is exactly one patch.
        min_tissue: least share of tissue in a cell, 0..1.

    Raises:
        UserError: if ``sampling`` is unknown, or the slide is coarser than ``mpp``.
    """
    if sampling not in SAMPLING:
        raise UserError(f"sampling is {sampling!r}; expected one of {', '.join(SAMPLING)}.")
    plan = slide.plan(size, mpp)
    level = slide.levels[plan.level]
    cell = list(plan.region)
    if sampling == "snapped":
        cell = [
            math.ceil(side / tile) * tile if tile else side for side, tile in zip(plan.region, level.tile, strict=True)
        ]
    starts = [
        np.arange(0, extent - side + 1, step)
        for extent, side, step in zip(level.dimensions, plan.region, cell, strict=True)
    ]
    places = np.stack(np.meshgrid(*starts, indexing="xy"), axis=-1).reshape(-1, 2)  # [n, 2], row by row
    room = np.minimum(cell, np.array(level.dimensions) - places)  # [n, 2]; the last cells are cut off by the border
    corners = np.ceil(places * np.array(level.downsample)).astype(np.int64)
    enough = tissue.fraction(corners, room * np.array(level.downsample)) >= min_tissue
    return PatchCells(corners[enough], (room - np.array(plan.region))[enough], level.downsample)
