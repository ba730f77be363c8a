# SPDX-License-Identifier: Apache-2.0
"""The slides that are read: painted once, then written in the two compressions that scanners use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
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

SIDES = (1024, 2048, 4096, 8192, 16384)  # px; any of them is made of whole pictures
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

    def write(path: Path) -> None:
        picture, extent = _picture(side), side
        with tifffile.TiffWriter(path, bigtiff=True) as file:
            while len(picture) >= TILE:
                file.write(
                    _repeated_tiles(picture, extent // len(picture)),
                    shape=(extent, extent, 3),
                    dtype=np.uint8,
                    tile=(TILE, TILE),
                    photometric="rgb",
                    compression=APERIO_RGB,
                    description=DESCRIPTION.format(side=side),
                    metadata=None,
                    software=False,
                )
                picture, extent = shrink(picture, FACTOR), extent // FACTOR

    return _kept(folder / f"jpeg2000_{side}.svs", write)


def _kept(path: Path, write: Callable[[Path], None]) -> Path:
    """``path``, written unless it is there; what is there is complete."""
    if not path.exists():
        logger.info("Making %s.", path)
        with replacing(path) as partial:
            write(partial)
    return path


def _picture(side: int) -> np.ndarray:
    """A square of at most :data:`PICTURE` pixels, nearly all of it tissue: the middle of a painted slide."""
    size = min(side, PICTURE)
    painted = paint_slide(np.random.default_rng(0), 2 * size, (Kind.DLBCL, Kind.FL, Kind.REACTIVE)).image
    return painted[size // 2 : size // 2 + size, size // 2 : size // 2 + size].copy()


def _repeated_tiles(picture: np.ndarray, times: int) -> Iterator[bytes | bytearray]:
    """The encoded tiles, in reading order, of ``picture`` repeated ``times`` × ``times``."""
    count = len(picture) // TILE
    rows = picture.reshape(count, TILE, count, TILE, 3).swapaxes(1, 2)  # [row, column, TILE, TILE, 3]
    encoded = [
        [imagecodecs.jpeg2k_encode(np.ascontiguousarray(tile), level=JPEG2000_LEVEL, codecformat="j2k") for tile in row]
        for row in rows
    ]
    for row in encoded * times:
        yield from row * times
