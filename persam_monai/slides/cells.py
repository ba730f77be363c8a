# SPDX-License-Identifier: Apache-2.0
"""Where patches may lie: cells over the tissue, each of which gives one patch at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from persam_monai.errors import UserError
from persam_monai.slides.slide import Slide
from persam_monai.slides.tissue import PackedMask, TissueMask

SAMPLING = ("snapped", "uniform", "grid")
TRIES = 16  # places looked at for one with enough tissue; where a quarter of a cell's have it, 1 in 100 cells fails
PROBES = 4  # places along x and y at which a cell is judged


@dataclass(frozen=True)
class PatchCells:
    """The cells of one slide. A patch drawn from a cell begins at one of its places.

    Along each axis the places of a slide come in runs of ``run`` neighbouring pixels, ``step`` pixels apart, and are
    numbered. Cells share no place, so patches of different cells are never the same.

    Attributes:
        origins: ``int32 [N, 2]`` number of the first place of each cell, along x and y.
        choices: ``int32 [N, 2]`` how many places follow from there, along x and y.
        run: neighbouring places, x and y.
        step: pixels, of the level that is read, from one run's begin to the next one's, x and y.
        downsample: level-0 pixels per pixel of that level, x and y.
        extent: width and height of a patch in level-0 pixels.
        tissue: the slide's mask.
        min_tissue: least share of tissue in a patch, 0..1.
    """

    origins: np.ndarray
    choices: np.ndarray
    run: tuple[int, int]
    step: tuple[int, int]
    downsample: tuple[float, float]
    extent: tuple[float, float]
    tissue: PackedMask
    min_tissue: float

    def __len__(self) -> int:
        return len(self.origins)

    @property
    def corners(self) -> np.ndarray:
        """Level-0 position ``int64 [N, 2]`` of each cell's first place, x and y."""
        return self.locations(self.origins)

    def pixels(self, places: np.ndarray) -> np.ndarray:
        """Pixels ``[…, 2]`` of the level that is read at which the places with these numbers lie."""
        return places // self.run * self.step + places % self.run

    def locations(self, places: np.ndarray) -> np.ndarray:
        """Level-0 positions ``int64 […, 2]`` of the places with these numbers."""
        return np.ceil(self.pixels(places) * np.array(self.downsample)).astype(np.int64)

    def locate(self, chosen: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Places of one patch in each chosen cell.

        Every place of a cell is equally likely, among those with enough tissue. Where none of sixteen draws has it,
        the one with most is taken.

        Args:
            chosen: ``[n]`` indices of cells.
            generator: source of chance.

        Returns:
            ``int64 [n, 2]`` upper-left corners (x, y) in level-0 pixels.
        """
        draws = generator.integers(0, self.choices[chosen], size=(TRIES, len(chosen), 2))
        tries = self.locations(self.origins[chosen] + draws)  # [TRIES, n, 2]
        locations = tries[0]
        if (self.choices == 1).all():
            return locations
        shares = self.tissue.share(locations, self.extent)
        for candidates in tries[1:]:
            lacking = np.flatnonzero(shares < self.min_tissue)
            if not len(lacking):
                break
            new = self.tissue.share(candidates[lacking], self.extent)
            better = new > shares[lacking]
            locations[lacking[better]], shares[lacking[better]] = candidates[lacking[better]], new[better]
        return locations


def patch_cells(
    slide: Slide, tissue: TissueMask, size: int, mpp: float, sampling: str = "snapped", min_tissue: float = 0.5
) -> PatchCells:
    """Lay cells over the slide and keep those that are tissue.

    Args:
        slide: an open slide.
        tissue: its tissue mask.
        size: side of a patch in pixels.
        mpp: µm per pixel of a patch.
        sampling: ``snapped``: of all places, those where a patch of s pixels touches only ceil(s / T) of the file's
            tiles of T pixels along each axis, so that it never costs the decoding of more tiles than it must;
            ``uniform``: all places; ``grid``: patch beside patch. Where a level has no tiles, ``snapped`` is
            ``uniform``. Each cell stands for the area of a patch, so drawn from all cells alike, places are spread
            evenly over the tissue, but for those in cells that the slide's border or the tissue's cuts off.
        min_tissue: least share of tissue in a patch, 0..1. Of ``grid``, every cell that has it is kept; else as many
            cells as patches fit into the area of the tissue, whatever the tiles of the file: those with most places
            that have it.

    Raises:
        UserError: if ``sampling`` is unknown, or the slide is coarser than ``mpp``.
    """
    if sampling not in SAMPLING:
        raise UserError(f"sampling is {sampling!r}; expected one of {', '.join(SAMPLING)}.")
    plan = slide.plan(size, mpp)
    level = slide.levels[plan.level]
    axes = [
        _Axis.of(sampling, side, tile, extent)
        for side, tile, extent in zip(plan.region, level.tile, level.dimensions, strict=True)
    ]
    origins = np.stack(np.meshgrid(*(axis.origins for axis in axes), indexing="xy"), axis=-1).reshape(-1, 2)
    choices = np.stack(np.meshgrid(*(axis.choices for axis in axes), indexing="xy"), axis=-1).reshape(-1, 2)
    cells = PatchCells(
        origins.astype(np.int32),
        choices.astype(np.int32),
        (axes[0].run, axes[1].run),
        (axes[0].step, axes[1].step),
        level.downsample,
        (plan.region[0] * level.downsample[0], plan.region[1] * level.downsample[1]),
        PackedMask.of(tissue),
        min_tissue,
    )
    shares = _shares(cells, tissue)
    admissible = (shares >= min_tissue).mean(axis=0)
    count = int(np.count_nonzero(admissible))
    if sampling != "grid":
        count = min(count, max(1, round(_area(tissue, slide.dimensions, cells.extent, min_tissue))))
    kept = np.sort(np.lexsort((-shares.mean(axis=0), -admissible))[:count])
    return replace(cells, origins=cells.origins[kept], choices=cells.choices[kept])


def _area(tissue: TissueMask, dimensions: tuple[int, int], extent: tuple[float, float], min_tissue: float) -> float:
    """How large the places are together around which a patch has enough tissue, in patches."""
    centres = []
    for whole, side in zip(dimensions, extent, strict=True):
        count = math.ceil(PROBES * whole / side)
        centres.append((np.arange(count) + 0.5) * whole / count)
    corners = np.stack(np.meshgrid(*centres), axis=-1).reshape(-1, 2) - np.array(extent) / 2
    shares = tissue.fraction(corners, np.broadcast_to(extent, corners.shape))
    return float((shares >= min_tissue).mean()) * math.prod(dimensions) / math.prod(extent)


def _shares(cells: PatchCells, tissue: TissueMask) -> np.ndarray:
    """How much of a patch ``[16, N]`` is tissue at 4 × 4 places of each cell."""
    steps = (np.stack(np.meshgrid(*[np.arange(PROBES)] * 2), axis=-1).reshape(-1, 1, 2) + 0.5) / PROBES  # [16, 1, 2]
    locations = cells.locations(cells.origins + (steps * cells.choices).astype(np.int64))  # [16, N, 2]
    corners = locations.reshape(-1, 2)
    return tissue.fraction(corners, np.broadcast_to(cells.extent, corners.shape)).reshape(len(steps), -1)


@dataclass(frozen=True)
class _Axis:
    """The places along one axis, and the cells that divide them."""

    run: int
    step: int
    origins: np.ndarray
    choices: np.ndarray

    @classmethod
    def of(cls, sampling: str, side: int, tile: int, extent: int) -> _Axis:
        """Cells for patches of ``side`` pixels on an axis of ``extent`` pixels with tiles of ``tile``."""
        run, step = 1, 1
        if sampling == "grid":
            step = side
        elif sampling == "snapped" and tile:
            run, step = math.ceil(side / tile) * tile - side + 1, tile
        cells, last = extent // side, extent - side  # the last pixel at which a patch still lies in the slide
        runs = np.arange(max(last, 0) // step + 2)
        places = np.minimum(runs * run, last // step * run + min(last % step + 1, run))  # before each run, and all
        # A run stands for the width of its tile, so that a narrow tile at the slide's end has its share.
        pixels = np.minimum(runs * step, extent)
        borders = np.arange(cells + 1) * side
        if step > 1:  # the first and the last cell share what is left over
            borders = borders + (pixels[-1] - borders[-1]) / 2
            borders[[0, -1]] = 0, pixels[-1]
        numbers = np.rint(np.interp(borders, pixels, places)).astype(np.int64)
        return cls(run, step, numbers[:-1], np.diff(numbers))
