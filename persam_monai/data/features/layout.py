# SPDX-License-Identifier: Apache-2.0
"""Where the rows lie among a file's bytes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple

import h5py
import numpy as np

MOST_BUFFERS = 1024  # that one preadv takes (IOV_MAX of Linux)


class Identity(NamedTuple):
    """Another one when the file has changed."""

    size: int  # bytes
    changed: int  # ns

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        """From what the file system says."""
        return cls(status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Rows:
    """The rows of a dataset ``[n, width]`` of HDF5.

    Attributes:
        name: of the dataset.
        count: n.
        width: values in a row.
        dtype: of the values, with their byte order, as numpy writes it.
        offset: where the first row lies, if all lie one after the other.
        chunk: rows in a chunk, if chunks hold whole rows as they are (neither compressed nor otherwise changed).
    """

    name: str
    count: int
    width: int
    dtype: str
    offset: int | None
    chunk: int | None

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return np.dtype(self.dtype).itemsize * self.width

    @property
    def found(self) -> bool:
        """Whether the bytes of a row can be told without HDF5, once the chunks' places are known."""
        return self.offset is not None or self.chunk is not None


def rows_of(dataset: h5py.Dataset) -> Rows:
    """How a dataset ``[n, width]`` or ``[1, n, width]`` lies in its file."""
    count, width = dataset.shape[-2:]
    plain = not dataset.id.get_create_plist().get_nfilters() and not dataset.external and not dataset.is_virtual
    plain = plain and not dataset.file.userblock_size  # from which places might be counted, or not
    offset = chunk = None
    if plain and dataset.chunks is None:
        offset = dataset.id.get_offset()
    elif plain and dataset.chunks[-1] == width:
        chunk = dataset.chunks[-2]
    return Rows(dataset.name.lstrip("/"), count, width, dataset.dtype.str, offset, chunk)


def chunk_places(dataset: h5py.Dataset) -> np.ndarray:
    """Where the chunks of rows lie: ``int64 [chunks]``, −1 for one that was never written."""
    places = np.full(-(-dataset.shape[-2] // dataset.chunks[-2]), -1, np.int64)

    def note(chunk: h5py.h5d.StoreInfo) -> None:
        places[chunk.chunk_offset[-2] // dataset.chunks[-2]] = chunk.byte_offset

    dataset.id.chunk_iter(note)
    return places


def row_places(rows: Rows, chosen: np.ndarray, chunks: np.ndarray | None) -> np.ndarray:
    """Where chosen rows lie: ``int64 [n]``, negative for one that was never written.

    Args:
        rows: of a dataset.
        chosen: ``[n]`` indices.
        chunks: of :func:`chunk_places`, if there are chunks.
    """
    if rows.offset is not None:
        return rows.offset + chosen * rows.row_bytes
    assert chunks is not None
    assert rows.chunk is not None
    chunk, within = np.divmod(chosen, rows.chunk)
    return np.where(chunks[chunk] < 0, -1, chunks[chunk] + within * rows.row_bytes)


def read_at(descriptor: int, places: np.ndarray, out: np.ndarray) -> None:
    """Read rows that lie anywhere, in the order of the file; neighbours in one go.

    Args:
        descriptor: of the open file.
        places: ``[n]`` bytes from its begin.
        out: ``[n, width]``, one after the other in memory.

    Raises:
        EOFError: if the file ends before.
    """
    size = out[0].nbytes
    targets = out.view(np.uint8).reshape(len(out), size)
    order = np.argsort(places, kind="stable")
    starts = np.flatnonzero(np.diff(places[order], prepend=places[order[0]] - size - 1) != size)
    ends = [*starts[1:].tolist(), len(order)]
    for begin, end in zip(starts.tolist(), ends, strict=True):
        for first in range(begin, end, MOST_BUFFERS):
            part = order[first : min(end, first + MOST_BUFFERS)]
            got = os.preadv(descriptor, [targets[i] for i in part], int(places[part[0]]))
            if got != size * len(part):  # network shares may give less at a time
                for i in part:
                    read_all(descriptor, int(places[i]), targets[i])


def read_all(descriptor: int, place: int, out: np.ndarray) -> None:
    """Read an array that lies in one piece.

    Args:
        descriptor: of the open file.
        place: of its first byte.
        out: the array, one value after the other in memory.

    Raises:
        EOFError: if the file ends before.
    """
    rest = memoryview(out.view(np.uint8).reshape(-1).data)
    while rest:
        got = os.preadv(descriptor, [rest], place)  # not more than 2 GiB at a time
        if not got:
            raise EOFError(f"{len(rest)} bytes are missing at its end")
        rest, place = rest[got:], place + got
