# SPDX-License-Identifier: Apache-2.0
"""A slide as large as the largest, of few distinct tiles, so that it fits on any disk."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import imagecodecs
import numpy as np

from persam_monai.files import replacing
from persam_monai.synthetic.paint import paint_slide
from persam_monai.synthetic.tissue import Kind

SHORT, LONG, RATIONAL, LONG8 = 3, 4, 5, 16  # types of TIFF tags
TISSUE_RADIUS = 0.35  # of the slide's side: the tissue is a disc


def write_sparse_slide(path: Path, side: int = 100_000, mpp: float = 0.25, factor: int = 4, levels: int = 4) -> None:
    """Write a tiled, JPEG-compressed BigTIFF of ``side`` × ``side`` pixels: a disc of tissue on glass.

    All tiles of tissue are one of 16 pictures, stored once; on every level the same, so a tile of a lower level shows
    tissue but not the tissue above it.

    Args:
        path: replaced whole.
        side: of level 0 in pixels.
        mpp: µm per pixel of level 0.
        factor: from one level to the next.
        levels: number of levels.
    """
    tile = 256
    painted = paint_slide(np.random.default_rng(0), 4096, list(Kind)).image
    tiles = painted.reshape(16, tile, 16, tile, 3).swapaxes(1, 2).reshape(-1, tile, tile, 3)
    darkest = np.argsort(tiles.mean(axis=(1, 2, 3)))[:16]  # tissue all over
    pictures = [np.full((tile, tile, 3), 243, np.uint8), *tiles[darkest]]
    encoded = [imagecodecs.jpeg8_encode(picture, level=80) for picture in pictures]
    starts = 16 + np.cumsum([0, *map(len, encoded)])  # behind the file's header
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(bytes(16))
        for data in encoded:
            file.write(data)
        link = 8  # where the position of the next directory goes
        for level in range(levels):
            extent = side // factor**level
            chosen = _disc(-(-extent // tile)) * (1 + np.arange((-(-extent // tile)) ** 2) % 16)
            offsets = _append(file, starts[chosen].astype("<u8"))
            sizes = _append(file, np.array([len(data) for data in encoded])[chosen].astype("<u4"))
            per_cm = round(10_000 / (mpp * factor**level) * 1000)
            tags = [
                (254, LONG, 1, int(level > 0)),  # NewSubfileType: reduced image
                (256, LONG, 1, extent),
                (257, LONG, 1, extent),
                (258, SHORT, 3, struct.unpack("<Q", struct.pack("<4H", 8, 8, 8, 0))[0]),
                (259, SHORT, 1, 7),  # Compression: JPEG
                (262, SHORT, 1, 6),  # PhotometricInterpretation: YCbCr
                (277, SHORT, 1, 3),
                (282, RATIONAL, 1, per_cm | 1000 << 32),
                (283, RATIONAL, 1, per_cm | 1000 << 32),
                (284, SHORT, 1, 1),
                (296, SHORT, 1, 3),  # ResolutionUnit: centimetre
                (322, LONG, 1, tile),
                (323, LONG, 1, tile),
                (324, LONG8, len(chosen), offsets),
                (325, LONG, len(chosen), sizes),
                (530, SHORT, 2, 2 | 2 << 16),  # YCbCrSubSampling
            ]
            directory = file.seek(0, 2)
            file.write(struct.pack("<Q", len(tags)))
            for tag in tags:
                file.write(struct.pack("<HHQQ", *tag))
            file.write(bytes(8))
            file.seek(link)
            file.write(struct.pack("<Q", directory))
            link = directory + 8 + 20 * len(tags)
        file.seek(0)
        file.write(struct.pack("<2sHHH", b"II", 43, 8, 0))  # BigTIFF: 8-byte offsets


def _append(file: BinaryIO, array: np.ndarray) -> int:
    """Write an array at the end and return where it begins; what fits into a tag's eight bytes stands there itself."""
    if array.nbytes <= 8:
        return int.from_bytes(array.tobytes(), "little")
    place = file.seek(0, 2)
    file.write(array.tobytes())
    return place


def _disc(tiles: int) -> np.ndarray:
    """Which of ``tiles`` × ``tiles`` tiles, row by row, are tissue."""
    places = (np.arange(tiles) + 0.5) / tiles - 0.5
    return np.hypot(places[:, None], places).ravel() < TISSUE_RADIUS
