# SPDX-License-Identifier: Apache-2.0
"""Write an RGB image as the pyramidal TIFF that slide readers expect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

SMALLEST_LEVEL = 256  # px: one tile; a level below that saves nobody any reading
REDUCED_IMAGE = 1  # bit 0 of TIFF tag NewSubfileType: how readers tell a lower level from another picture
MICRONS_PER_CM = 10_000


def write_pyramid(
    path: Path, image: np.ndarray, mpp: float | None, tile: int = 256, factor: int = 4, quality: int = 80
) -> None:
    """Write ``image`` as a tiled, JPEG-compressed, pyramidal BigTIFF.

    Level k is level 0 averaged over blocks of ``factor**k`` pixels; levels follow as long as their smaller side has at
    least 256 pixels. OpenSlide opens the file as ``generic-tiff``, cuCIM as a generic TIFF. The bytes depend on the
    arguments alone: no date, no software tag.

    Args:
        path: the file to write; an existing one is replaced.
        image: level 0, uint8 ``[H, W, 3]``; H and W need not be multiples of the tile.
        mpp: microns per pixel of level 0, written as pixels per centimetre; ``None`` writes no resolution.
        tile: side of a tile in pixels, a multiple of 16.
        factor: downsampling from one level to the next, at least 2.
        quality: JPEG quality, 1 to 100.

    Raises:
        ValueError: if the image is not uint8 ``[H, W, 3]``, or ``mpp`` or ``factor`` is out of range.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"expected a uint8 image [H, W, 3], got {image.dtype} {list(image.shape)}")
    if mpp is not None and not mpp > 0:
        raise ValueError(f"expected mpp > 0 µm/px or None, got {mpp}")
    if factor < 2:
        raise ValueError(f"expected a factor of at least 2 between levels, got {factor}")
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level, pixels in enumerate(_levels(image, factor)):
            file.write(
                _tiles(pixels, tile),
                shape=pixels.shape,
                dtype=pixels.dtype,
                tile=(tile, tile),
                photometric="rgb",  # what we hand over; JPEG stores it as YCbCr, chroma halved
                compression="jpeg",
                compressionargs={"level": quality},
                subfiletype=REDUCED_IMAGE if level else 0,
                metadata=None,
                software=False,
                maxworkers=1,  # callers write several slides side by side
                **_resolution(mpp, factor**level),
            )


def _levels(image: np.ndarray, factor: int) -> Iterator[np.ndarray]:
    yield image
    while min(image.shape[:2]) // factor >= SMALLEST_LEVEL:
        image = shrink(image, factor)
        yield image


def shrink(image: np.ndarray, factor: int) -> np.ndarray:
    """Average blocks of ``factor`` × ``factor`` pixels; what is left over at the right and lower edge is dropped.

    Returns:
        uint8 ``[H // factor, W // factor, 3]``, rounded to the nearest.
    """
    height, width = image.shape[0] // factor, image.shape[1] // factor
    area = factor * factor
    small = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, 64):  # in strips: the sums of a 16384² slide would take 100 MB each
        rows = min(64, height - top)
        strip = image[top * factor : (top + rows) * factor, : width * factor]
        total = np.full((rows, width, 3), area // 2, np.uint32)
        for y in range(factor):
            for x in range(factor):
                total += strip[y::factor, x::factor]
        small[top : top + rows] = total // area
    return small


def _tiles(image: np.ndarray, tile: int) -> Iterator[np.ndarray]:
    """The tiles in reading order; edge tiles repeat the last pixel, so that JPEG does not ring into the picture."""
    height, width = image.shape[:2]
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            piece = image[top : top + tile, left : left + tile]
            missing = (tile - piece.shape[0], tile - piece.shape[1])
            if any(missing):
                piece = np.pad(piece, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
            yield np.ascontiguousarray(piece)


def _resolution(mpp: float | None, downsample: int) -> dict[str, object]:
    """Arguments for tifffile that put the pixel size into tags XResolution, YResolution and ResolutionUnit."""
    if mpp is None:
        return {"resolutionunit": "NONE"}
    per_cm = MICRONS_PER_CM / (mpp * downsample)
    return {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}
