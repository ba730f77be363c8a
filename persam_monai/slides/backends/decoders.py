# SPDX-License-Identifier: Apache-2.0
"""One compressed tile becomes pixels."""

from __future__ import annotations

import imagecodecs
import numpy as np
import simplejpeg

from persam_monai.slides.backends.tables import (
    APERIO_JPEG2000_RGB,
    HORIZONTAL,
    JPEG,
    LZW,
    UNCOMPRESSED,
    YCBCR_HEAD,
    TileTable,
)


class DamagedTile(Exception):
    """A tile's bytes do not decode to what its level says."""


def decode_tile(data: bytes, table: TileTable, scratch: np.ndarray, factor: int = 1) -> np.ndarray:
    """Decode one tile; anything that is not right with it is an error, never grey pixels.

    Args:
        data: the tile's bytes in the file.
        table: of its level.
        scratch: ``uint8 [h, w, 3]`` of a tile's size, overwritten.
        factor: 1, 2, 4 or 8: for JPEG, pixels of the picture per pixel of the result, shrunk inside the inverse DCT.

    Returns:
        ``uint8 [h / factor, w / factor, 3]``, perhaps a view of ``scratch``.

    Raises:
        DamagedTile: says what is wrong.
    """
    width, height = table.tile
    expected = (height // factor, width // factor, 3)
    try:
        pixels = _jpeg(data, table, scratch, factor) if table.compression == JPEG else _other(data, table)
    except (ValueError, RuntimeError, OSError) as error:
        raise DamagedTile(str(error)) from error
    if pixels.shape != expected:
        found = " × ".join(str(side) for side in pixels.shape)
        raise DamagedTile(f"it holds {found} pixels where {expected[0]} × {expected[1]} × 3 are expected")
    return pixels


def _jpeg(data: bytes, table: TileTable, scratch: np.ndarray, factor: int) -> np.ndarray:
    has_jfif = data[2:4] == b"\xff\xe0"  # a marker that says YCbCr, whatever the level's head states
    if has_jfif and table.head == YCBCR_HEAD:
        stream = data
    else:
        begin = 4 + int.from_bytes(data[4:6], "big") if has_jfif else 2
        stream = table.head + data[begin:]
    if factor == 1:
        return simplejpeg.decode_jpeg(stream, buffer=scratch)
    height, width = scratch.shape[0] // factor, scratch.shape[1] // factor
    return simplejpeg.decode_jpeg(stream, min_height=height, min_width=width, min_factor=factor)


def _other(data: bytes, table: TileTable) -> np.ndarray:
    if table.compression == APERIO_JPEG2000_RGB:
        return np.asarray(imagecodecs.jpeg2k_decode(data))
    width, height = table.tile
    unpacked: bytes | bytearray = data
    if table.compression == LZW:
        unpacked = imagecodecs.lzw_decode(data, out=width * height * 3)
    elif table.compression != UNCOMPRESSED:
        unpacked = imagecodecs.zlib_decode(data, out=width * height * 3)
    if len(unpacked) != width * height * 3:
        raise DamagedTile(f"it holds {len(unpacked)} bytes of pixels where {width * height * 3} are expected")
    pixels = np.frombuffer(unpacked, np.uint8).reshape(height, width, 3)
    return np.cumsum(pixels, axis=1, dtype=np.uint8) if table.predictor == HORIZONTAL else pixels
