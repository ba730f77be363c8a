# SPDX-License-Identifier: Apache-2.0
"""Where patches may lie: cells over the tissue, each of which gives one patch at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from persam_monai.errors import UserError
from persam_monai.slides.packed import PackedMask
from persam_monai.slides.slide import Slide
from persam_monai.slides.tissue import TissueMask

SAMPLING = ("snapped", "uniform", "grid")
TRIES = 8  # places looked at for one with enough tissue; half of a cell's have it, so all but 1 in 256 succeed
PROBES = 4  # places along x and y at which a cell is judged


@dataclass(frozen=True)
class PatchCells:
    """The cells of one slide. A patch drawn from a cell begins at one of its places.

    Along each axis the places of a cell come in runs of ``run`` neighbouring pixels, ``step`` pixels apart.

    Attributes:
        origins: ``int32 [N, 2]`` the first place (x, y) of each cell, in pixels of the level that is read.
        choices: ``int32 [N, 2]`` number of places along x and y.
        run: neighbouring places, x and y.
        step: pixels from one run's begin to the next one's, x and y.
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
        return self.locations(self.origins, np.zeros_like(self.origins))

    def locations(self, origins: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Level-0 positions of places in cells.

        Args:
            origins: ``[N, 2]`` of the cells.
            places: ``[…, N, 2]`` numbers of places along x and y, below ``choices``.

        Returns:
            ``int64 […, N, 2]``.
        """
        pixels = origins + places // self.run * self.step + places % self.run
        return np.ceil(pixels * np.array(self.downsample)).astype(np.int64)

    def locate(self, chosen: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Places of one patch in each chosen cell.

        Every place of a cell is equally likely, among those with enough tissue. Where none of eight draws has it, the
        one with most is taken.

        Args:
            chosen: ``[n]`` indices of cells.
            generator: source of chance.

        Returns:
            ``int64 [n, 2]`` upper-left corners (x, y) in level-0 pixels.
        """
        draws = generator.integers(0, self.choices[chosen], size=(TRIES, len(chosen), 2))
        tries = self.locations(self.origins[chosen], draws)  # [TRIES, n, 2]
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
            ``uniform``. Drawn from all cells alike, every place is equally likely, but for those in cells that the
            slide's border or the tissue's cuts off.
        min_tissue: least share of tissue in a patch, 0..1; a cell is kept if half of its places have it.

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
    enough = _admissible(cells, tissue) >= 0.5
    return replace(cells, origins=cells.origins[enough], choices=cells.choices[enough])


def _admissible(cells: PatchCells, tissue: TissueMask) -> np.ndarray:
    """Share ``[N]`` of each cell's places at which a patch has enough tissue, estimated at 4 × 4 of them."""
    steps = (np.stack(np.meshgrid(*[np.arange(PROBES)] * 2), axis=-1).reshape(-1, 1, 2) + 0.5) / PROBES  # [16, 1, 2]
    locations = cells.locations(cells.origins, (steps * cells.choices).astype(np.int64))  # [16, N, 2]
    shares = tissue.fraction(locations.reshape(-1, 2), np.broadcast_to(cells.extent, (locations.size // 2, 2)))
    enough: np.ndarray = (shares >= cells.min_tissue).reshape(len(locations), -1).mean(axis=0)
    return enough


@dataclass(frozen=True)
class _Axis:
    """The cells along one axis, in pixels of the level."""

    pitch: int  # from one cell's origin to the next one's
    run: int
    step: int
    origins: np.ndarray
    choices: np.ndarray

    @classmethod
    def of(cls, sampling: str, side: int, tile: int, extent: int) -> _Axis:
        """Cells for patches of ``side`` pixels on an axis of ``extent`` pixels with tiles of ``tile``."""
        if sampling == "grid":
            pitch, run, step = side, 1, side
        elif sampling == "uniform" or not tile:
            pitch, run, step = side, side, side
        else:
            tiles = math.ceil(side / tile)
            pitch, run, step = tiles * tile, tiles * tile - side + 1, tile
        last = extent - side  # the last place at which a patch still lies in the slide
        origins = np.arange(0, last + 1, pitch)
        left = last - origins  # how far the last place is from each origin
        choices = left // step * run + np.minimum(left % step + 1, run)
        return cls(pitch, run, step, origins, np.minimum(choices, pitch // step * run))
