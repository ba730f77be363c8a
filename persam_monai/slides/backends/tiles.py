# SPDX-License-Identifier: Apache-2.0
"""Reading the tiles of a TIFF one by one, each exactly once per call."""

from __future__ import annotations

import math
import os
import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from persam_monai.errors import UserError
from persam_monai.slides.backends.decoders import DamagedTile, decode_tile
from persam_monai.slides.backends.tables import JPEG, TileTable

_local = threading.local()  # a scratch tile per thread


class Tiles:
    """Decodes a slide's tiles straight from the file.

    Args:
        path: the slide.
        tables: of its levels.

    Raises:
        UserError: if the file cannot be opened.
    """

    name = "tiles"
    own_threads = False

    def __init__(self, path: Path, tables: Sequence[TileTable]) -> None:
        self.path = path
        self.tables = tables
        self._found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        try:
            self._file = os.open(path, os.O_RDONLY)
            self._length = os.fstat(self._file).st_size
        except OSError as error:
            raise UserError(f"Slide {path} cannot be opened: {error.strerror}.") from error

    def read(self, starts: np.ndarray, level: int, out: np.ndarray, threads: int = 1) -> None:
        """See :class:`~persam_monai.slides.backends.backend.Backend`."""
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
        """See :class:`~persam_monai.slides.backends.backend.Backend`."""
        table = self.tables[level]
        if table.compression != JPEG:
            return 1
        return max(factor for factor in (1, 2, 4, 8) if all(side % factor == 0 for side in table.tile))

    def read_reduced(self, top: int, height: int, level: int, factor: int) -> np.ndarray:
        """See :class:`~persam_monai.slides.backends.backend.Backend`."""
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
        """Close the file; reading afterwards fails."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _tile(self, level: int, row: int, column: int, factor: int = 1) -> np.ndarray:
        """One tile's pixels, valid until the next call in the same thread; white where the file leaves it out."""
        table = self.tables[level]
        number = row * table.columns + column
        try:
            offsets, sizes = self._lists(level)
            size, scratch = int(sizes[number]), _scratch(table)
            if size == 0:
                scratch[:] = 255
                return scratch[::factor, ::factor]
            if size > self._length:  # or as much memory would be asked for
                raise DamagedTile(f"it claims {size} bytes, more than the whole file has; it is cut off")
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

    def _lists(self, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions and sizes of a level's tiles; read when they are first needed."""
        if level not in self._found:
            table = self.tables[level]
            self._found[level] = (self._list(table.offsets, table.number), self._list(table.sizes, table.number))
        return self._found[level]

    def _list(self, place: tuple[int, str], count: int) -> np.ndarray:
        begin, kind = place
        length = count * np.dtype(kind).itemsize
        data = os.pread(self._file, length, begin) if length <= self._length else b""
        if len(data) < length:
            raise DamagedTile("the file ends before its list of tiles does; it is cut off")
        return np.frombuffer(data, kind)


def _scratch(table: TileTable) -> np.ndarray:
    """This thread's scratch tile [h, w, 3]."""
    shape = (table.tile[1], table.tile[0], 3)
    found: np.ndarray | None = getattr(_local, "tile", None)
    if found is None or found.shape != shape:
        found = _local.tile = off_boundary(shape)
    return found


def off_boundary(shape: tuple[int, int, int]) -> np.ndarray:
    """New memory ``uint8`` whose rows do not begin at multiples of 32 bytes.

    libjpeg-turbo writes rows that do with stores that go past the processor's cache (``vmovntdq`` in its colour
    conversion), from where they have to be fetched again. Measured: 199 instead of 218 to 236 µs a tile.
    """
    memory = np.empty(math.prod(shape) + 64, np.uint8)
    begin = (16 - memory.ctypes.data) % 32
    return memory[begin : begin + math.prod(shape)].reshape(shape)
