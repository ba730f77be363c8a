# SPDX-License-Identifier: Apache-2.0
"""Which way a file is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from persam_monai.errors import UserError, did_you_mean
from persam_monai.slides.backends.backend import Backend
from persam_monai.slides.backends.regions import CuCIM, OpenSlideRegions
from persam_monai.slides.backends.tables import (
    COMPRESSIONS,
    DEFLATE,
    OWN,
    TileTable,
    Unsuitable,
    Unsupported,
    read_tables,
)
from persam_monai.slides.backends.tiles import Tiles

BACKENDS = ("auto", "tiles", "cucim", "openslide")


def choose_backend(
    backend: str, path: Path, vendor: str, dimensions: Sequence[tuple[int, int]]
) -> tuple[str, str, tuple[TileTable, ...]]:
    """Settle how a slide is read.

    Where the tiles of a file can be decoded one by one, no way that was measured is faster
    (``scripts/benchmark_reading.py``: well ahead of OpenSlide, ahead of cuCIM on JPEG and level with it on JPEG 2000),
    and damage is noticed. The rest goes to OpenSlide, which knows every vendor's format and reports what it cannot
    decode; cuCIM does not.

    Args:
        backend: one of :data:`BACKENDS`.
        path: the slide.
        vendor: OpenSlide's ``openslide.vendor``.
        dimensions: width and height of each level.

    Returns:
        The backend's name, the reason, and the tiles' tables, empty unless the name is ``tiles``.

    Raises:
        Unsupported: if no backend reads the file's pixels.
        UserError: if ``backend`` is unknown or not suited to the file, or the file says of itself what cannot be.
    """
    if backend not in BACKENDS:
        raise UserError(
            f"backend is {backend!r}; expected one of {', '.join(BACKENDS)}.{did_you_mean(backend, BACKENDS)}"
        )
    if backend == "openslide":
        return backend, "it was asked for", ()
    try:
        tables = read_tables(path, vendor, dimensions)
    except Unsuitable as reason:
        if vendor == OWN:
            raise Unsupported(str(reason)) from reason
        if backend == "cucim":
            return backend, "it was asked for", ()
        if backend == "tiles":
            raise UserError(f"Slide {path} cannot be read tile by tile: {reason}. Choose --backend auto.") from reason
        return "openslide", f"its tiles cannot be read one by one: {reason}", ()
    if backend == "tiles":
        return backend, "it was asked for", tables
    compressions = ", ".join(sorted({COMPRESSIONS[table.compression] for table in tables}))
    if backend == "cucim":
        if DEFLATE in compressions:
            raise UserError(f"Slide {path} is compressed by deflate, at which cuCIM can crash. Choose --backend auto.")
        return backend, "it was asked for", ()
    return "tiles", f"{compressions} tiles are read fastest one by one", tables


def open_backend(
    backend: str,
    path: Path,
    dimensions: Sequence[tuple[int, int]],
    downsamples: Sequence[float],
    tables: Sequence[TileTable],
) -> Backend:
    """Open a file in the way that :func:`choose_backend` settled.

    Raises:
        UserError: if it cannot be opened.
    """
    if backend == "tiles":
        return Tiles(path, tables)
    if backend == "cucim":
        return CuCIM(path, dimensions, downsamples)
    return OpenSlideRegions(path, downsamples)
