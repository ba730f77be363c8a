# SPDX-License-Identifier: Apache-2.0
"""Three ways to read pixels: the file's own tiles, cuCIM and OpenSlide. They give the same pixels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from persam_monai.errors import UserError
from persam_monai.settings import check_settings
from persam_monai.slides.regions import Backend, CuCIM, OpenSlideRegions
from persam_monai.slides.tables import DEFLATE, OWN, TileTable, Unsuitable, read_tables, unsupported
from persam_monai.slides.tiles import Tiles

__all__ = ["BACKENDS", "Backend", "choose_backend", "open_backend"]

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "tiles", "cucim", "openslide")


def choose_backend(
    backend: str, path: Path, vendor: str, dimensions: Sequence[tuple[int, int]]
) -> tuple[str, tuple[TileTable, ...]]:
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
        The backend's name, and the tiles' tables, empty unless the name is ``tiles``.

    Raises:
        UserError: if ``backend`` is unknown or not suited to the file, or no backend reads the file's pixels.
    """
    check_settings({"backend": backend})
    if backend == "openslide":
        return backend, ()
    try:
        tables = read_tables(path, vendor, dimensions)
    except Unsuitable as reason:
        if vendor == OWN:
            raise unsupported(path, str(reason)) from reason
        if backend == "tiles":
            raise UserError(f"Slide {path} cannot be read tile by tile: {reason}. Choose --backend auto.") from reason
        if backend == "auto":
            logger.debug("Slide %s is read by OpenSlide: its tiles cannot be read one by one: %s.", path, reason)
        return "cucim" if backend == "cucim" else "openslide", ()
    if backend != "cucim":
        return "tiles", tables
    if any(table.compression in DEFLATE for table in tables):
        raise UserError(f"Slide {path} is compressed by deflate, at which cuCIM can crash. Choose --backend auto.")
    return backend, ()


def open_backend(
    backend: str,
    path: Path,
    dimensions: Sequence[tuple[int, int]],
    downsamples: Sequence[float],
    tables: Sequence[TileTable],
) -> Backend:
    """Open a file in the way that :func:`choose_backend` settled."""
    if backend == "tiles":
        return Tiles(path, tables)
    return (CuCIM if backend == "cucim" else OpenSlideRegions)(path, dimensions, downsamples)
