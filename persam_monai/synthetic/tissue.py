# SPDX-License-Identifier: Apache-2.0
"""The architecture of a slide: where there is glass, stroma and disease, and how the diseased parts are built.

Everything here is at thumbnail resolution, one value per 16 × 16 pixels (4 µm, less than a nucleus). First the slide is
divided into *kinds* (what the ground truth keeps), then each kind into *zones* (what the painter needs): a reactive
region has follicles with a centre and a mantle, and tissue between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from scipy.ndimage import distance_transform_edt

from persam_monai.synthetic.cells import smooth_noise

CELL = 16  # px of level 0 per value of a map
FULL_SCALE = 2048  # px; follicles of slides smaller than this shrink with the slide, so that some fit


class Kind(IntEnum):
    """What a place on a slide is; the values of the ground-truth maps."""

    GLASS = 0
    STROMA = 1
    DLBCL = 2
    FL = 3
    REACTIVE = 4


class Zone(IntEnum):
    """What the painter distinguishes."""

    GLASS = 0
    STROMA = 1
    SHEET = 2
    FL_FOLLICLE = 3
    FL_BETWEEN = 4
    REACTIVE_CENTRE = 5
    REACTIVE_MANTLE = 6
    REACTIVE_BETWEEN = 7


def draw_kinds(rng: np.random.Generator, size: int, kinds: Sequence[Kind]) -> np.ndarray:
    """Lay a piece of tissue on the glass and divide it among ``kinds``.

    The kinds get similar areas (each a factor between 0.85 and 1.15 of the mean), in bands of random direction with
    stroma between them and a capsule of stroma around the whole.

    Returns:
        uint8 ``[ceil(size / 16), ceil(size / 16)]`` of :class:`Kind`.
    """
    cells = -(-size // CELL)
    tissue = _piece_of_tissue(rng, cells)
    result = np.where(tissue, Kind.STROMA, Kind.GLASS).astype(np.uint8)
    capsule = min(3.0, cells / 40)
    inner = distance_transform_edt(tissue) > capsule
    if not kinds:
        return result
    angle = rng.uniform(0, 2 * np.pi)
    y, x = _axes(cells)
    ramp = x * np.cos(angle) + y * np.sin(angle) + 0.16 * smooth_noise(rng, (cells, cells), cells / 14)
    shares = rng.uniform(0.85, 1.15, len(kinds))
    septum = 0.14 if len(kinds) == 1 else 0.1  # stroma after each band, as a share of the mean band
    bounds = np.cumsum([part for share in shares for part in (share, septum)])
    bounds = np.quantile(ramp[inner], bounds / bounds[-1])
    start = -np.inf
    for kind, stop, following in zip(kinds, bounds[0::2], bounds[1::2], strict=True):
        result[inner & (ramp > start) & (ramp <= stop)] = kind
        start = following
    return result


def _piece_of_tissue(rng: np.random.Generator, cells: int) -> np.ndarray:
    """A ragged ellipse that covers 45 to 58 % of the slide and stays off its edge."""
    y, x = _axes(cells)
    angle, squeeze = rng.uniform(0, np.pi), rng.uniform(0.82, 1.0)
    y, x = y - rng.uniform(-0.05, 0.05), x - rng.uniform(-0.05, 0.05)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    height = -np.hypot(along * squeeze, across / squeeze)
    for amplitude, waves in ((0.11, 11), (0.02, 50)):  # the outline's bays, and its fine raggedness
        height += amplitude * smooth_noise(rng, (cells, cells), cells / waves)
    height -= 4 * np.clip(np.maximum(np.abs(y), np.abs(x)) - 0.9, 0, None)
    return np.asarray(height > np.quantile(height, 1 - rng.uniform(0.45, 0.58)))


def _axes(cells: int) -> tuple[np.ndarray, np.ndarray]:
    axis = np.linspace(-1, 1, cells, dtype=np.float32)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return y, x


def draw_zones(rng: np.random.Generator, kinds: np.ndarray) -> np.ndarray:
    """Build follicles into the follicular regions.

    Follicular lymphoma has follicles of one size, back to back, without mantle; a reactive node has follicles of any
    size, apart, each with a pale centre and a dark mantle; DLBCL has none. Real follicles are some 1000 px across;
    these have 300 to 600, so that a region of a small slide shows several.
    """
    scale = float(np.clip(len(kinds) * CELL / FULL_SCALE, 0.4, 1)) / CELL  # cells per px of a full-size follicle
    zones = np.select(
        [kinds == kind for kind in Kind], [Zone.GLASS, Zone.STROMA, Zone.SHEET, Zone.FL_BETWEEN, Zone.REACTIVE_BETWEEN]
    ).astype(np.uint8)
    follicular, reactive = kinds == Kind.FL, kinds == Kind.REACTIVE
    depth = _follicles(rng, follicular, spacing=370 * scale, radius=(155 * scale, 176 * scale))
    zones[follicular & (depth > 0)] = Zone.FL_FOLLICLE
    depth = _follicles(rng, reactive, spacing=520 * scale, radius=(140 * scale, 290 * scale))
    zones[reactive & (depth > 0)] = Zone.REACTIVE_MANTLE
    zones[reactive & (depth > 0.38)] = Zone.REACTIVE_CENTRE
    return zones


def _follicles(rng: np.random.Generator, mask: np.ndarray, spacing: float, radius: tuple[float, float]) -> np.ndarray:
    """How deep each cell lies in a follicle: 1 in its centre, 0 at its border, negative between; float32 ``[h, w]``."""
    depth = np.full(mask.shape, -1, np.float32)
    wobble = 0.07 * smooth_noise(rng, mask.shape, spacing / 7)
    for y, x in jittered_grid(rng, mask.shape, spacing, 0.07):
        reach = rng.uniform(*radius)
        if not mask[int(y), int(x)]:
            continue
        top, left, border = max(int(y - 1.4 * reach), 0), max(int(x - 1.4 * reach), 0), int(2.8 * reach) + 2
        box = np.s_[top : top + border, left : left + border]
        rows, columns = np.arange(len(depth[box])) + top + 0.5, np.arange(depth[box].shape[1]) + left + 0.5
        distance = np.hypot(rows[:, None] - y, columns[None, :] - x) / reach
        depth[box] = np.maximum(depth[box], 1 - distance + wobble[box])
    return depth


def jittered_grid(rng: np.random.Generator, shape: tuple[int, ...], spacing: float, jitter: float) -> np.ndarray:
    """Points on a triangular grid, each moved by up to ``jitter`` × ``spacing``.

    Returns:
        float64 ``[n, 2]`` of (y, x), all inside ``shape``.
    """
    rise = spacing * np.sqrt(3) / 2
    rows, columns = np.arange(0.0, shape[0] + rise, rise), np.arange(0.0, shape[1] + spacing, spacing)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    x[1::2] += spacing / 2
    points = np.stack([y.ravel(), x.ravel()], axis=1) + rng.uniform(-0.5, 0.5, 2) * spacing  # (n, 2)
    points += rng.uniform(-jitter, jitter, points.shape) * spacing
    return points[np.all((points >= 0) & (points < np.array(shape[:2])), axis=1)]
