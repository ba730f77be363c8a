# SPDX-License-Identifier: Apache-2.0
"""One compressed tile becomes pixels."""

from __future__ import annotations

import struct

import cv2
import imagecodecs
import numpy as np
import simplejpeg

from persam_monai.slides.backends.tables import (
    HORIZONTAL,
    JPEG,
    JPEG2000,
    LZW,
    UNCOMPRESSED,
    YCBCR,
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
    try:
        pixels = _jpeg(data, table, scratch, factor) if table.compression == JPEG else _other(data, table)
    except (DamagedTile, MemoryError):
        raise
    except Exception as error:  # of several libraries
        raise DamagedTile(str(error)) from error
    _check_size(pixels.shape, (height // factor, width // factor, 3))
    return pixels


def _check_size(found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        sizes = [" × ".join(map(str, size)) for size in (found, expected)]
        raise DamagedTile(f"it holds {sizes[0]} pixels where {sizes[1]} are expected")


def _jpeg(data: bytes, table: TileTable, scratch: np.ndarray, factor: int) -> np.ndarray:
    has_jfif = data[2:4] == b"\xff\xe0"  # a marker that says YCbCr, whatever the level's head states
    if has_jfif and table.head == YCBCR_HEAD:
        stream = data
    else:
        begin = 4 + int.from_bytes(data[4:6], "big") if has_jfif else 2
        stream = table.head + data[begin:]
    if factor == 1:
        return simplejpeg.decode_jpeg(stream, buffer=scratch)
    # Without a buffer, memory is taken for whatever the stream says of its size.
    _check_size(simplejpeg.decode_jpeg_header(stream)[:2], scratch.shape[:2])
    height, width = scratch.shape[0] // factor, scratch.shape[1] // factor
    return simplejpeg.decode_jpeg(stream, min_height=height, min_width=width, min_factor=factor)


def _other(data: bytes, table: TileTable) -> np.ndarray:
    if table.compression in JPEG2000:
        return _jpeg2000(data, table)
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


def _jpeg2000(data: bytes, table: TileTable) -> np.ndarray:
    start = data.find(b"\xff\x4f\xff\x51")  # of the codestream, after a JP2 file's boxes
    if start < 0:
        raise DamagedTile("it holds no JPEG 2000 codestream")
    right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)  # ISO/IEC 15444-1, A.5.1
    _check_size((bottom - top, right - left), table.tile[::-1])  # for what it says, memory would be taken
    pixels = np.asarray(imagecodecs.jpeg2k_decode(data))
    steps = data[start + 46 : start + 48]  # pixels per sample of the second component, x and y
    if table.photometric == YCBCR and steps == b"\1\1":  # what is subsampled, the decoder has converted itself
        pixels = cv2.cvtColor(pixels[..., [0, 2, 1]], cv2.COLOR_YCrCb2RGB)
    return pixels
