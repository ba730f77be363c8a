# SPDX-License-Identifier: Apache-2.0
"""Every tile that a patch can touch, decoded once."""

from __future__ import annotations

import numpy as np

from persam_monai.data import SlideIndex
from persam_monai.errors import UserError
from persam_monai.slides import PatchCells, Slide
from persam_monai.slides.backends import Backend, open_backend

UNTILED = 512  # px: side of the pieces in which a level without tiles is read
AT_ONCE = 16  # tiles per call, so that a backend can decode them side by side
SHOWN = 3  # damaged tiles after which a slide is given up: it must be copied anew in any case


def read_all_tiles(index: SlideIndex, size: int, mpp: float) -> None:
    """Decode all tiles of the level in use that a patch may touch.

    Args:
        index: what is known of the slide.
        size: side of a patch in pixels.
        mpp: µm per pixel of a patch.

    Raises:
        UserError: names the first damaged tiles.
    """
    header, cells = index
    with Slide(header.path, header=header) as slide:
        plan = slide.plan(size, mpp)
    level = header.levels[plan.level]
    tile = (level.tile[0] or UNTILED, level.tile[1] or UNTILED)
    wanted = touched_tiles(cells, plan.region, tile, level.dimensions)
    room = np.empty((AT_ONCE, tile[1], tile[0], 3), np.uint8)
    damaged: list[tuple[np.ndarray, UserError]] = []
    backend = _open(index)
    try:
        for first in range(0, len(wanted), AT_ONCE):
            some = wanted[first : first + AT_ONCE]
            try:
                backend.read(some * tile, plan.level, room[: len(some)])
            except UserError:
                for one in some:
                    backend.close()  # OpenSlide reads nothing more through a handle that has met damage
                    backend = _open(index)
                    try:
                        backend.read(one[None] * tile, plan.level, room[:1])
                    except UserError as error:
                        damaged.append((one, error))
            if len(damaged) >= SHOWN:
                break
    finally:
        backend.close()
    if damaged:
        raise UserError(_message(damaged, complete=len(damaged) < SHOWN))


def touched_tiles(
    cells: PatchCells, region: tuple[int, int], tile: tuple[int, int], dimensions: tuple[int, int]
) -> np.ndarray:
    """The tiles that patches from the cells can touch.

    Args:
        cells: of the slide.
        region: width and height of what is read for a patch, in pixels of the level.
        tile: width and height of a tile.
        dimensions: width and height of the level.

    Returns:
        ``int64 [n, 2]`` column and row of each tile, row by row.
    """
    first = cells.pixels(cells.origins) // tile
    last = np.minimum(cells.pixels(cells.origins + cells.choices - 1) + region, dimensions) - 1  # [N, 2]
    span = last // tile - first + 1  # [N, 2]
    columns, rows = (-(-side // step) for side, step in zip(dimensions, tile, strict=True))
    touched = np.zeros((rows, columns), bool)
    for down in range(int(span[:, 1].max(initial=0))):
        for right in range(int(span[:, 0].max(initial=0))):
            reached = first[(span > (right, down)).all(axis=1)] + (right, down)
            touched[reached[:, 1], reached[:, 0]] = True
    return np.argwhere(touched)[:, ::-1]


def _open(index: SlideIndex) -> Backend:
    header = index.header
    dimensions = [level.dimensions for level in header.levels]
    downsamples = [level.downsample[0] for level in header.levels]
    # cuCIM gives the pixels of another tile for one that it cannot decode, and no error.
    name = "openslide" if header.backend == "cucim" else header.backend
    return open_backend(name, header.path, dimensions, downsamples, header.tables)


def _message(damaged: list[tuple[np.ndarray, UserError]], complete: bool) -> str:
    (_, error), *others = damaged
    if not others:
        return str(error)
    places = "; ".join(f"{column} from the left, {row} from the top" for (column, row), _ in others)
    return f"{error} Damaged as well: tile {places}{'.' if complete else '; perhaps more, the rest was not read.'}"
