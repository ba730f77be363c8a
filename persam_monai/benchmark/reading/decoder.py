# SPDX-License-Identifier: Apache-2.0
"""The compressed tiles of a slide, and how fast a decoder alone goes through them."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import tifffile

CODECS = {7: "jpeg", 33003: "jpeg2000", 33005: "jpeg2000", 34712: "jpeg2000"}  # by TIFF tag Compression
DECODERS: dict[str, Callable[[bytes], Any]] = {
    "jpeg": imagecodecs.jpeg8_decode,
    "jpeg2000": imagecodecs.jpeg2k_decode,
}
RGB = 2  # TIFF tag PhotometricInterpretation
SOI = b"\xff\xd8"  # start of a JPEG stream
# Adobe's APP14 segment with transform 0: decoders that find neither it nor JFIF's take three components for YCbCr.
ADOBE_RGB = b"\xff\xee" + struct.pack(">H5sHHHB", 14, b"Adobe", 100, 0, 0, 0)


class Tiles(NamedTuple):
    """Where the tiles of a slide's finest level lie in its file.

    Attributes:
        path: the slide's file.
        codec: ``jpeg`` or ``jpeg2000``.
        size: width and height of a tile in pixels.
        across: tiles in a row.
        spans: offset and length of each tile in bytes, row by row.
        head: what stands before a tile's bytes, less their first marker, in a stream of its own.
    """

    path: Path
    codec: str
    size: tuple[int, int]
    across: int
    spans: list[tuple[int, int]]
    head: bytes

    def touched(self, places: np.ndarray, width: int) -> list[int]:
        """Indices of the tiles under squares of ``width`` pixels at ``places`` ``[N, 2]``, square after square."""
        first, last = places // self.size, (places + width - 1) // self.size  # [N, 2] each
        return [
            row * self.across + column
            for (left, top), (right, bottom) in zip(first.tolist(), last.tolist(), strict=True)
            for row in range(top, bottom + 1)
            for column in range(left, right + 1)
        ]

    def read(self, indices: Sequence[int]) -> list[bytes]:
        """The tiles' bytes, each a stream that decoders read without knowing the file."""
        kept: dict[int, bytes] = {}
        with self.path.open("rb") as file:
            for index in sorted(set(indices)):
                offset, length = self.spans[index]
                file.seek(offset)
                kept[index] = file.read(length)
        if self.head:
            kept = {index: SOI + self.head + tile[len(SOI) :] for index, tile in kept.items()}
        return [kept[index] for index in indices]


def find_tiles(path: Path) -> Tiles | None:
    """The tiles of ``path``, or ``None`` if it is no tiled TIFF in JPEG or JPEG 2000."""
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            codec = CODECS.get(int(page.compression))
            if codec is None or not page.is_tiled or 0 in page.databytecounts:  # 0: a tile that is not stored
                return None
            across = -(-page.imagewidth // page.tilewidth)
            spans = list(zip(page.dataoffsets, page.databytecounts, strict=True))
            head = _head(page) if codec == "jpeg" else b""
            return Tiles(path, codec, (page.tilewidth, page.tilelength), across, spans, head)
    except tifffile.TiffFileError:
        return None


def _head(page: Any) -> bytes:
    """The tables that the tiles of a page share, and the word that they are RGB where they are."""
    tables = page.jpegtables or b""
    tables = tables[len(SOI) : -2]  # without the markers that start and end a stream
    return (ADOBE_RGB if int(page.photometric) == RGB else b"") + tables


def decoding_rate(decode: Callable[[bytes], Any], tiles: Sequence[bytes], threads: int = 2) -> float:
    """Tiles per second of a decoder on Python threads, which share the tiles.

    Args:
        decode: takes a tile's bytes; should let go of Python's lock.
        tiles: compressed.
        threads: how many.
    """

    def work(part: Sequence[bytes]) -> None:
        for tile in part:
            decode(tile)

    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        for done in [pool.submit(work, tiles[first::threads]) for first in range(threads)]:
            done.result()
        return len(tiles) / (time.perf_counter() - start)
