# SPDX-License-Identifier: Apache-2.0
"""Reading the tiles of a TIFF one by one, each exactly once per call."""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import simplejpeg

from persam_monai.errors import UserError
from persam_monai.slides.regions import Backend
from persam_monai.slides.tables import HORIZONTAL, JPEG, JPEG2000, LZW, UNCOMPRESSED, YCBCR, YCBCR_HEAD, TileTable

_local = threading.local()  # a scratch tile per thread


class DamagedTile(Exception):
    """A tile's bytes do not decode to what its level says."""


class Tiles(Backend):
    """Decodes a slide's tiles straight from the file."""

    name = "tiles"

    def __init__(self, path: Path, tables: Sequence[TileTable]) -> None:
        self.path = path
        self.tables = tables
        self.dimensions = [table.dimensions for table in tables]
        self._lists: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise UserError(f"Slide {path} cannot be opened: {error.strerror}.") from error
        self._close = weakref.finalize(self, os.close, self._file)  # at the latest when nobody refers to it any more

    def read(self, starts: np.ndarray, level: int, out: np.ndarray, threads: int = 1) -> None:
        """See :meth:`Backend.read`."""
        table = self.tables[level]
        (columns, rows), (width, height) = table.dimensions, table.tile
        region = out.shape[2], out.shape[1]
        wanted: dict[tuple[int, int], list[tuple[int, int, int]]] = defaultdict(list)  # tile: the regions it is in
        for i, (x, y) in enumerate(starts.tolist()):
            for top in range(max(y, 0) // height, -(-min(y + region[1], rows) // height)):
                for left in range(max(x, 0) // width, -(-min(x + region[0], columns) // width)):
                    wanted[top, left].append((i, x - left * width, y - top * height))
        for (top, left), places in wanted.items():
            pixels = self._tile(level, top, left)
            for i, x, y in places:  # the region's corner, in pixels of the tile
                inside = pixels[max(y, 0) : y + region[1], max(x, 0) : x + region[0]]
                row, column = max(-y, 0), max(-x, 0)
                out[i, row : row + inside.shape[0], column : column + inside.shape[1]] = inside

    def reducible(self, level: int) -> int:
        """See :meth:`Backend.reducible`."""
        table = self.tables[level]
        if table.compression != JPEG:
            return 1
        return max(factor for factor in (1, 2, 4, 8) if all(side % factor == 0 for side in table.tile))

    def read_reduced(self, top: int, height: int, level: int, factor: int) -> np.ndarray:
        """See :meth:`Backend.read_reduced`."""
        table = self.tables[level]
        tile_width, tile_height = (side // factor for side in table.tile)
        first, last = top // table.tile[1], -(-min(top + height, table.dimensions[1]) // table.tile[1])
        strip = np.empty(((last - first) * tile_height, table.columns * tile_width, 3), np.uint8)
        for row in range(first, last):
            for column in range(table.columns):
                y, x = (row - first) * tile_height, column * tile_width
                strip[y : y + tile_height, x : x + tile_width] = self._tile(level, row, column, factor)
        begin = top // factor - first * tile_height
        rows = -(-(min(top + height, table.dimensions[1]) - top) // factor)
        return strip[begin : begin + rows, : -(-table.dimensions[0] // factor)]

    def close(self) -> None:
        """See :meth:`Backend.close`."""
        self._close()

    def _tile(self, level: int, row: int, column: int, factor: int = 1) -> np.ndarray:
        """One tile's pixels, valid until the next call in the same thread; white where the file leaves it out."""
        table = self.tables[level]
        number = row * table.columns + column
        try:
            offsets, sizes = self._lists_of(level)
            size, scratch = int(sizes[number]), _scratch(table)
            if size == 0:
                scratch[:] = 255
                return scratch[::factor, ::factor]
            data = os.pread(self._file, size, int(offsets[number]))
            if len(data) < size:
                raise DamagedTile(f"the file ends {size - len(data)} bytes too early; it is cut off")
            return decode_tile(data, table, scratch, factor)
        except (DamagedTile, OSError, OverflowError) as error:
            raise UserError(
                f"Slide {self.path} cannot be decoded: tile {column} from the left, {row} from the top (counted from "
                f"0) of level {level} is damaged: {error}. Copy the slide anew from where it came from, or take it out "
                "of the table."
            ) from error

    def _lists_of(self, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions and sizes of a level's tiles; read when they are first needed."""
        if level not in self._lists:
            table = self.tables[level]
            self._lists[level] = (self._list(*table.offsets, table.number), self._list(*table.sizes, table.number))
        return self._lists[level]

    def _list(self, begin: int, kind: str, count: int) -> np.ndarray:
        length = count * np.dtype(kind).itemsize
        data = os.pread(self._file, length, begin)
        if len(data) < length:
            raise DamagedTile("the file ends before its list of tiles does; it is cut off")
        return np.frombuffer(data, kind)


def decode_tile(data: bytes, table: TileTable, scratch: np.ndarray, factor: int = 1) -> np.ndarray:
    """Decode one tile; anything that is not right with it is an error, never grey pixels."""
    width, height = table.tile
    try:
        if table.compression == JPEG:
            pixels = _jpeg(data, table, scratch, factor)
        elif table.compression in JPEG2000:
            pixels = _jpeg2000(data, table)
        else:
            pixels = _lossless(data, table)
    except MemoryError:
        raise
    except Exception as error:  # of several libraries
        raise DamagedTile(str(error)) from error
    if pixels.shape != (height // factor, width // factor, 3):
        raise DamagedTile(f"it holds pixels of shape {pixels.shape}; expected {(height // factor, width // factor, 3)}")
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


def _jpeg2000(data: bytes, table: TileTable) -> np.ndarray:
    pixels = np.asarray(imagecodecs.jpeg2k_decode(data))
    start = data.index(b"\xff\x4f\xff\x51")  # of the codestream, after a JP2 file's boxes
    steps = data[start + 46 : start + 48]  # ISO/IEC 15444-1, A.5.1: pixels per sample of the second component, x and y
    if table.photometric == YCBCR and steps == b"\1\1":  # what is subsampled, the decoder has converted itself
        pixels = cv2.cvtColor(pixels[..., [0, 2, 1]], cv2.COLOR_YCrCb2RGB)
    return pixels


def _lossless(data: bytes, table: TileTable) -> np.ndarray:
    width, height = table.tile
    unpacked: bytes | bytearray = data
    if table.compression == LZW:
        unpacked = imagecodecs.lzw_decode(data, out=width * height * 3)
    elif table.compression != UNCOMPRESSED:
        unpacked = imagecodecs.zlib_decode(data, out=width * height * 3)
    pixels = np.frombuffer(unpacked, np.uint8).reshape(height, width, 3)
    return np.cumsum(pixels, axis=1, dtype=np.uint8) if table.predictor == HORIZONTAL else pixels


def _scratch(table: TileTable) -> np.ndarray:
    """This thread's scratch tile [h, w, 3]."""
    shape = (table.tile[1], table.tile[0], 3)
    tile: np.ndarray | None = getattr(_local, "tile", None)
    if tile is None or tile.shape != shape:
        tile = _local.tile = off_boundary(shape)
    return tile


def off_boundary(shape: tuple[int, int, int]) -> np.ndarray:
    """New memory ``uint8`` whose rows do not begin at multiples of 32 bytes.

    libjpeg-turbo writes rows that do with stores that go past the processor's cache (``vmovntdq`` in its colour
    conversion), from where they have to be fetched again. Measured: 199 instead of 218 to 236 µs a tile.
    """
    memory = np.empty(math.prod(shape) + 64, np.uint8)
    begin = (16 - memory.ctypes.data) % 32
    return memory[begin : begin + math.prod(shape)].reshape(shape)
