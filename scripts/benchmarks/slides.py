# SPDX-License-Identifier: Apache-2.0
"""The slides that are read: painted once, then written in the two compressions that scanners use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from persam_monai.files import replacing
from persam_monai.synthetic import write_pyramid
from persam_monai.synthetic.paint import paint_slide
from persam_monai.synthetic.pyramid import shrink
from persam_monai.synthetic.tissue import Kind

logger = logging.getLogger(__name__)

SIDES = (1024, 2048, 4096, 8192, 16384)  # px; any of them consists of whole pictures
PICTURE = 4096  # px; larger slides repeat it: painting all of one would take a minute and be no other work to decode
TILE = 256  # px
MPP = 0.25
FACTOR = 4  # from level to level
JPEG_QUALITY = 80
JPEG2000_LEVEL = 30  # dB, the peak signal-to-noise ratio asked of the encoder
APERIO_RGB = 33005  # TIFF compression "Aperio JPEG 2000, RGB"
DESCRIPTION = (
    "Aperio Image Library v11.2.1 \r\n{side}x{side} [0,0 {side}x{side}] (256x256) J2K/YUV16 Q=70"
    "|AppMag = 40|MPP = 0.2500"
)
HUGE = 100_000  # px, side of the largest slide
TISSUE_RADIUS = 0.35  # of its side: the tissue is a disc
DISTINCT = 16  # its different tiles of tissue
GLASS = 243  # grey level
POINTERS = ("TileOffsets", "TileByteCounts")  # TIFF tags


def jpeg_slide(folder: Path, side: int = SIDES[-1]) -> Path:
    """A pyramidal TIFF in JPEG: a painted picture of tissue and its mirror images.

    Args:
        folder: where it is kept; one that is there already is taken as it is.
        side: in pixels of level 0, one of :data:`SIDES`.

    Returns:
        Its path.

    Raises:
        UserError: if it cannot be written.
    """

    def write(path: Path) -> None:
        picture = _picture(side)
        more = side - len(picture)
        mirrored = np.pad(picture, ((0, more), (0, more), (0, 0)), mode="symmetric")
        write_pyramid(path, mirrored, MPP, tile=TILE, factor=FACTOR, quality=JPEG_QUALITY)

    return _kept(folder / f"jpeg_{side}.tiff", write)


def jpeg2000_slide(folder: Path, side: int = SIDES[-1]) -> Path:
    """An Aperio SVS in JPEG 2000: the same picture again and again, each of its tiles encoded once.

    It is as large as the other slide, since readers that keep what they decoded would answer from memory on a small
    one; and it has lower levels, as Aperio's have, since the tissue is looked for in them.

    Args:
        folder: where it is kept; one that is there already is taken as it is.
        side: in pixels of level 0, one of :data:`SIDES`.

    Returns:
        Its path.

    Raises:
        UserError: if it cannot be written.
    """

    def encode(tile: np.ndarray) -> bytes:
        return bytes(imagecodecs.jpeg2k_encode(tile, level=JPEG2000_LEVEL, codecformat="j2k"))

    def write(path: Path) -> None:
        picture, extent = _picture(side), side
        with tifffile.TiffWriter(path, bigtiff=True) as file:
            while len(picture) >= TILE:
                rows = [[encode(tile) for tile in row] for row in _tiles(picture)]
                times = extent // len(picture)
                tiles = (tile for row in rows * times for tile in row * times)
                _write_level(
                    file,
                    extent,
                    tiles,
                    photometric="rgb",
                    compression=APERIO_RGB,
                    description=DESCRIPTION.format(side=side),
                )
                picture, extent = shrink(picture, FACTOR), extent // FACTOR

    return _kept(folder / f"jpeg2000_{side}.svs", write)


def sparse_slide(folder: Path, side: int = HUGE, levels: int = 4) -> Path:
    """A slide as large as the largest that fits on any disk: a disc of tissue on glass, in JPEG.

    All tiles are one of 17 pictures, stored once, on every level the same: a tile of a lower level shows tissue but not
    the tissue above it.

    Args:
        folder: where it is kept; one that is there already is taken as it is.
        side: of level 0 in pixels.
        levels: number of levels.

    Returns:
        Its path.

    Raises:
        UserError: if it cannot be written.
    """

    def write(path: Path) -> None:
        painted = np.concatenate(_tiles(_picture(min(side, PICTURE))))
        darkest = painted[np.argsort(painted.mean(axis=(1, 2, 3)))[:DISTINCT]]  # tissue all over
        glass = np.full((1, TILE, TILE, 3), GLASS, np.uint8)
        encoded = [imagecodecs.jpeg8_encode(tile, level=JPEG_QUALITY) for tile in np.concatenate([glass, darkest])]
        extents = [side // FACTOR**level for level in range(levels)]
        with tifffile.TiffWriter(path, bigtiff=True) as file:
            for level, extent in enumerate(extents):
                count = (-(-extent // TILE)) ** 2
                stored = encoded if level == 0 else []
                tiles = (stored[number] if number < len(stored) else b"" for number in range(count))
                _write_level(
                    file,
                    extent,
                    tiles,
                    photometric="ycbcr",
                    compression="jpeg",
                    subsampling=(2, 2),
                    subfiletype=int(level > 0),
                    resolution=(1e4 / (MPP * FACTOR**level),) * 2,
                    resolutionunit="CENTIMETER",
                )
        with tifffile.TiffFile(path, mode="r+b") as file:  # now every tile points to one of those that are stored
            offsets, sizes = (np.array(file.pages[0].tags[name].value[: len(encoded)]) for name in POINTERS)
            for page, extent in zip(file.pages, extents, strict=True):
                chosen = _disc(-(-extent // TILE))
                for name, values in zip(POINTERS, (offsets, sizes), strict=True):
                    page.tags[name].overwrite(values[chosen].tolist())

    return _kept(folder / f"sparse_{side}_{levels}.tiff", write)


def _kept(path: Path, write: Callable[[Path], None]) -> Path:
    """``path``, written unless it is there; what is there is complete."""
    if not path.exists():
        logger.info("Making %s.", path)
        with replacing(path) as partial:
            write(partial)
    return path


def _write_level(file: tifffile.TiffWriter, extent: int, tiles: Iterable[bytes | bytearray], **tags: object) -> None:
    """A level of ``extent`` × ``extent`` pixels from encoded tiles in reading order."""
    file.write(
        iter(tiles),
        shape=(extent, extent, 3),
        dtype=np.uint8,
        tile=(TILE, TILE),
        metadata=None,
        software=False,
        **tags,
    )


def _picture(side: int) -> np.ndarray:
    """A square of at most :data:`PICTURE` pixels, nearly all of it tissue: the middle of a painted slide."""
    size = min(side, PICTURE)
    painted = paint_slide(np.random.default_rng(0), 2 * size, (Kind.DLBCL, Kind.FL, Kind.REACTIVE)).image
    return painted[size // 2 : size // 2 + size, size // 2 : size // 2 + size].copy()


def _tiles(picture: np.ndarray) -> np.ndarray:
    """The tiles of a square picture: uint8 ``[row, column, TILE, TILE, 3]``."""
    count = len(picture) // TILE
    return np.ascontiguousarray(picture.reshape(count, TILE, count, TILE, 3).swapaxes(1, 2))


def _disc(tiles: int) -> np.ndarray:
    """Which of the stored tiles stands at each of ``tiles`` × ``tiles`` positions, row by row; 0 is glass."""
    axis = (np.arange(tiles) + 0.5) / tiles - 0.5
    tissue = np.hypot(axis[:, None], axis).ravel() < TISSUE_RADIUS
    return np.where(tissue, 1 + np.arange(tiles**2) % DISTINCT, 0)
