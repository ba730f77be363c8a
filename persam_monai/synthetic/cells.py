# SPDX-License-Identifier: Apache-2.0
"""Textures, and nuclei that are drawn once and stamped many times.

Sizes are those of a lymph node at 0.25 µm/px: a small lymphocyte's nucleus is 7 µm (28 px), a large blast's 12 to
15 µm (50 to 60 px).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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


SPRITES = 96  # variants of each cell: more than a viewer can recognise again


@dataclass(frozen=True)
class Cell:
    """How one kind of cell looks. Amounts of stain are fractions of full; lengths are pixels at 0.25 µm/px.

    Attributes:
        diameter: of the nucleus, smallest and largest.
        elongation: long over short axis, smallest and largest.
        irregularity: amplitude of the outline's dents, as a fraction of the radius.
        chromatin: haematoxylin inside the nucleus.
        clumps: amplitude of the chromatin's unevenness.
        clump_size: its length.
        membrane: additional haematoxylin at the rim.
        nucleoli: largest number of nucleoli (0: none).
        cytoplasm: radius of the cell body over that of the nucleus (1: no visible body).
        body: haematoxylin and eosin of the cell body; eosin is the most that stays visible there.
    """

    diameter: tuple[float, float]
    elongation: tuple[float, float] = (1.0, 1.15)
    irregularity: float = 0.03
    chromatin: float = 0.6
    clumps: float = 0.08
    clump_size: float = 2.0
    membrane: float = 0.1
    nucleoli: int = 0
    cytoplasm: float = 1.0
    body: tuple[float, float] = (0.0, 1.0)


CELLS = {
    "lymphocyte": Cell((25, 30), chromatin=0.76, clumps=0.10, clump_size=2.6, membrane=0.06),
    "centrocyte": Cell((33, 40), (1.1, 1.5), 0.10, chromatin=0.58, clumps=0.07, clump_size=1.6, membrane=0.10),
    "blast": Cell((50, 62), (1.0, 1.3), 0.06, 0.36, 0.10, 3.2, 0.30, 3, 1.3, (0.19, 0.5)),
    "centroblast": Cell((42, 50), (1.0, 1.2), 0.03, 0.40, 0.08, 2.6, 0.26, 3, 1.18, (0.14, 0.5)),
    "mitosis": Cell((26, 34), (1.5, 2.6), 0.22, 0.88, 0.04, 1.5, 0.0, 0, 1.7, (0.08, 0.42)),
    "macrophage": Cell((32, 38), (1.1, 1.5), 0.06, 0.26, 0.04, 2.0, 0.16, 1, 2.3, (0.03, 0.16)),
    "fibroblast": Cell((20, 26), (3.2, 5.2), 0.05, chromatin=0.56, clumps=0.05, clump_size=1.8, membrane=0.06),
    "plasma": Cell((25, 30), (1.0, 1.2), 0.03, 0.66, 0.16, 3.0, 0.08, 0, 1.55, (0.2, 0.6)),
}


@cache
def sprites(name: str) -> tuple[np.ndarray, ...]:
    """The drawn variants of a cell of :data:`CELLS`.

    Returns:
        Images uint8 ``[2, side, side]``: haematoxylin (0 outside the cell; laid on by maximum) and the most eosin that
        may remain (255 outside; laid on by minimum).
    """
    number = list(CELLS).index(name)
    rng = np.random.Generator(np.random.Philox(TEXTURE_SEED + 100 + number))
    return tuple(_draw(rng, CELLS[name]) for _ in range(SPRITES))


def _draw(rng: np.random.Generator, cell: Cell) -> np.ndarray:
    radius = rng.uniform(*cell.diameter) / 2
    elongation = rng.uniform(*cell.elongation)
    side = 2 * int(np.ceil(radius * max(np.sqrt(elongation), 1) * 1.12 * cell.cytoplasm + 2)) + 1
    inside, depth, offset = _outline(rng, cell, radius, elongation, side)
    texture = cell.clumps * smooth_noise(rng, (side, side), cell.clump_size)
    rim = cell.membrane * np.exp(-((depth / 1.8) ** 2))
    nucleus = cell.chromatin + texture + rim + _nucleoli(rng, cell, radius, offset)
    body = np.clip((radius * cell.cytoplasm - np.hypot(*offset)) / 3 + 0.5, 0, 1) if cell.cytoplasm > 1 else 0 * inside
    amount = np.maximum(inside * np.clip(nucleus, 0.1, 1), body * cell.body[0])
    if cell.cytoplasm > 2:
        amount = np.maximum(amount, _debris(rng, radius * cell.cytoplasm, offset))
    eosin = np.minimum(1 - body * (1 - cell.body[1]), 1 - inside * 0.72)
    return np.rint(np.stack([amount, eosin]) * FULL).astype(np.uint8)


def _outline(
    rng: np.random.Generator, cell: Cell, radius: float, elongation: float, side: int
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """A dented ellipse: its soft mask, the depth below its outline in pixels, and pixel offsets along its axes."""
    axis = np.arange(side, dtype=np.float32) - side // 2
    spindle = elongation > 3
    angle = FIBRE_ANGLE + rng.normal(0, 0.35) if spindle else rng.uniform(0, np.pi)
    along = axis[None, :] * np.cos(angle) + axis[:, None] * np.sin(angle)
    across = axis[:, None] * np.cos(angle) - axis[None, :] * np.sin(angle)
    if spindle:  # these lie along the fibres and bend with them
        across = across + rng.uniform(-0.006, 0.006) * along**2
    stretched = (along / np.sqrt(elongation), across * np.sqrt(elongation))
    direction = np.arctan2(stretched[1], stretched[0])
    dents = sum(
        rng.normal(0, cell.irregularity / wave**0.5) * np.cos(wave * direction + rng.uniform(0, 2 * np.pi))
        for wave in (2, 3, 4, 5)
    )
    depth = radius * (1 + dents) - np.hypot(*stretched)
    return np.clip(depth / 2 + 0.5, 0, 1), depth, (along, across)  # an edge of 2 px: the objective's blur


def _nucleoli(rng: np.random.Generator, cell: Cell, radius: float, offset: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    spots = np.zeros_like(offset[0])
    for _ in range(int(rng.integers(1, cell.nucleoli + 1)) if cell.nucleoli else 0):
        distance, angle = radius * 0.65 * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
        along, across = offset[0] - distance * np.cos(angle), offset[1] - distance * np.sin(angle)
        spots = np.maximum(spots, 0.42 * np.exp(-(along**2 + across**2) / (2 * rng.uniform(2.0, 3.2) ** 2)))
    return spots


def _debris(rng: np.random.Generator, reach: float, offset: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Tingible bodies: dark crumbs of dead cells inside a macrophage."""
    crumbs = np.zeros_like(offset[0])
    for _ in range(int(rng.integers(1, 5))):
        distance, angle = reach * rng.uniform(0.35, 0.75), rng.uniform(0, 2 * np.pi)
        along, across = offset[0] - distance * np.cos(angle), offset[1] - distance * np.sin(angle)
        crumb = np.clip((rng.uniform(2.5, 5.5) - np.hypot(along, across)) / 2 + 0.5, 0, 1)
        crumbs = np.maximum(crumbs, 0.8 * crumb)
    return crumbs
