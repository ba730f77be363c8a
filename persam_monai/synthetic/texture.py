# SPDX-License-Identifier: Apache-2.0
"""Textures and random fields: the grain of a tissue, its fibres, and smooth noise."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from scipy.ndimage import gaussian_filter

GRAIN_PERIOD = 768  # px; grain and fibres repeat at different lengths, their product only every 3072 px
FIBRE_PERIOD = 1024
FIBRE_WAVES = (9, 17)  # bundles of collagen per period, along x and y; whole numbers, so that there is no seam
FIBRE_ANGLE = -math.atan2(*FIBRE_WAVES)  # radians from the x axis towards +y: the fibres' own direction
FULL = 255  # amounts of stain are uint8 while a slide is painted; this one stands for the most there is
TEXTURE_SEED = 20090628  # textures and cells are paint, the same in every cohort; slides differ in how it is applied


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], scale: float, mode: str = "reflect") -> np.ndarray:
    """Gaussian noise of mean 0 and standard deviation 1, smooth over ``scale`` pixels; float32 ``shape``."""
    noise = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), scale, mode=mode)
    return (noise - noise.mean()) / max(float(noise.std()), 1e-6)


@cache
def grain() -> np.ndarray:
    """Fine grain of cytoplasm and camera, periodic: float32 ``[768, 768]``, mean 0, standard deviation 1."""
    rng = np.random.Generator(np.random.Philox(TEXTURE_SEED))
    shape = (GRAIN_PERIOD, GRAIN_PERIOD)
    scales = {1.2: 0.75, 5.0: 0.5, 14.0: 0.45}  # px: camera and granules; cytoplasm; cell-size unevenness
    mixed = sum(weight * smooth_noise(rng, shape, scale, mode="wrap") for scale, weight in scales.items())
    return np.asarray(mixed, np.float32)


@cache
def fibres() -> np.ndarray:
    """Wavy collagen, periodic: float32 ``[1024, 1024]``, 0 in the clefts between the bundles and 1 on their crests."""
    rng = np.random.Generator(np.random.Philox(TEXTURE_SEED + 1))
    shape = (FIBRE_PERIOD, FIBRE_PERIOD)
    y, x = np.meshgrid(*(np.arange(FIBRE_PERIOD, dtype=np.float32) / FIBRE_PERIOD for _ in shape), indexing="ij")
    wave = 1.1 * smooth_noise(rng, shape, 70, mode="wrap") + 0.25 * smooth_noise(rng, shape, 18, mode="wrap")
    bundles = np.sin(2 * np.pi * (FIBRE_WAVES[0] * x + FIBRE_WAVES[1] * y) + 3.0 * wave)
    threads = np.sin(2 * np.pi * (31 * x + 62 * y) + 7.0 * wave)
    crest = 0.5 + 0.34 * bundles + 0.16 * threads
    return np.asarray(np.clip(crest, 0, 1) ** 0.6, np.float32)  # the root: broad bundles, narrow clefts


class Wallpaper:
    """A periodic texture, shifted, of which any part up to ``largest`` pixels a side can be had without a copy.

    Args:
        texture: float32 ``[period, period]``.
        shift: (y, x) of the texture that comes to lie at the slide's corner.
        largest: longest side that will be asked for.
    """

    def __init__(self, texture: np.ndarray, shift: tuple[int, int], largest: int) -> None:
        self.period = len(texture)
        rows, columns = (np.arange(start, start + self.period + largest) % self.period for start in shift)
        self.repeated = texture[rows][:, columns]

    def part(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """The texture at this place of the slide; float32 ``[height, width]``."""
        top, left = top % self.period, left % self.period
        return self.repeated[top : top + height, left : left + width]


def enlarge(field: np.ndarray, factor: int, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Part of a coarse field at full resolution, interpolated linearly between the centres of its cells.

    Args:
        field: float32 ``[h, w]``, one value per ``factor`` × ``factor`` pixels.
        factor: pixels per cell.
        top: first pixel row wanted.
        left: first pixel column wanted.
        height: rows wanted.
        width: columns wanted.

    Returns:
        float32 ``[height, width]``.
    """
    row, down = _positions(top, height, factor, field.shape[0])
    column, right = _positions(left, width, factor, field.shape[1])
    field, row = field[row[0] : row[-1] + 2], row - row[0]
    before, after = field[:, column], field[:, np.minimum(column + 1, field.shape[1] - 1)]  # (h, width)
    wide = before + (after - before) * right  # (h, width): along the rows first, while there are few
    upper, lower = wide[row], wide[np.minimum(row + 1, field.shape[0] - 1)]  # (height, width)
    lower -= upper
    lower *= down[:, None]
    lower += upper
    return np.asarray(lower, np.float32)


def _positions(first: int, count: int, factor: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel the cell whose centre lies before it, and how far (0 to 1) it is towards the next."""
    place = np.clip((np.arange(first, first + count) + 0.5) / factor - 0.5, 0, cells - 1).astype(np.float32)
    cell = place.astype(np.intp)
    return cell, place - cell
