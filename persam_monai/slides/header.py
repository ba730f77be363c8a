# SPDX-License-Identifier: Apache-2.0
"""What is known of a slide once it has been looked into, enough to open it again at no cost."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import openslide
from pydantic import ConfigDict, TypeAdapter

from persam_monai.errors import UserError
from persam_monai.settings import check_settings
from persam_monai.slides.regions import Backend, CuCIM, OpenSlideRegions
from persam_monai.slides.tables import DEFLATE, OWN, TileTable, Unsuitable, read_tables, read_tiff, unsupported
from persam_monai.slides.tiles import Tiles

logger = logging.getLogger(__name__)


def choose_backend(
    backend: str, path: Path, vendor: str, dimensions: Sequence[tuple[int, int]]
) -> tuple[str, tuple[TileTable, ...]]:
    """Settle how a slide is read.

    Where the tiles of a file can be decoded one by one, no way that was measured is faster (``benchmark_reading.py``:
    well ahead of OpenSlide, ahead of cuCIM on JPEG and level with it on JPEG 2000), and damage is noticed. The rest
    goes to OpenSlide, which knows every vendor's format and reports what it cannot decode; cuCIM does not.

    Args:
        backend: ``auto``, ``tiles``, ``cucim`` or ``openslide``.
        path: the slide.
        vendor: OpenSlide's ``openslide.vendor``.
        dimensions: width and height of each level.

    Returns:
        The backend's name, and the tiles' tables, empty unless the name is ``tiles``.
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


LARGEST_TILE = 2**28  # pixels; OpenSlide ends the process when it cannot have the memory for one
COARSEST_MPP = 50.0  # no scanner is coarser; image programs write 72 dpi, 353 µm/px, when they do not know
UM_PER_UNIT = {"m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "nm": 1e-3, "Å": 1e-4, "in": 25_400.0}  # OME's UnitsLength


class Level(NamedTuple):
    """One resolution of a slide."""

    dimensions: tuple[int, int]  # width, height in pixels of this level
    downsample: tuple[float, float]  # level-0 pixels per pixel of this level, x and y
    mpp: tuple[float, float]  # µm per pixel of this level, x and y
    tile: tuple[int, int]  # width and height of the file's tiles; (0, 0) when the level is not tiled


class SlideHeader(NamedTuple):
    """A slide's levels and how its pixels are read; plain values that can be pickled and kept as JSON."""

    path: Path
    mpp: tuple[float, float]  # µm per level-0 pixel, x and y
    levels: tuple[Level, ...]  # finest first
    backend: str  # tiles, cucim or openslide, never "auto"
    tables: tuple[TileTable, ...]  # of the levels, for the backend "tiles"; else empty


# bytes are not text
HEADER_JSON = TypeAdapter(SlideHeader, config=ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"))


def read_header(path: str | os.PathLike[str], mpp: float | None = None, backend: str = "auto") -> SlideHeader:
    """Look into a slide.

    OpenSlide reads the metadata: it knows every vendor's way to write the resolution.

    Args:
        path: the slide's file.
        mpp: µm per level-0 pixel, where the cohort table knows better than the file; ``None`` takes the file's own.
        backend: one of ``auto``, ``tiles``, ``cucim`` and ``openslide``.

    Raises:
        UserError: if the file is missing, cannot be opened as a slide or in the way asked for, or has no resolution and
            ``mpp`` is ``None``.
    """
    path = Path(path)
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise UserError(f"Slide {path} cannot be opened: {error.strerror}.") from error
    properties, dimensions, downsamples = _read_metadata(path)
    own = _resolution(path, properties, mpp)
    name, tables = choose_backend(backend, path, properties.get("openslide.vendor", "unknown"), dimensions)
    levels = tuple(
        Level(
            dimensions=size,
            downsample=(downsample, downsample),
            mpp=(own[0] * downsample, own[1] * downsample),
            tile=(
                int(properties.get(f"openslide.level[{index}].tile-width", 0)),
                int(properties.get(f"openslide.level[{index}].tile-height", 0)),
            ),
        )
        for index, (size, downsample) in enumerate(zip(dimensions, downsamples, strict=True))
    )
    if any(math.prod(level.tile) > LARGEST_TILE for level in levels):
        raise UserError(f"Slide {path} has tiles of impossible size; the file is damaged. Copy it again.")
    return SlideHeader(path, own, levels, name, tables)


def _read_metadata(path: Path) -> tuple[dict[str, str], tuple[tuple[int, int], ...], tuple[float, ...]]:
    """OpenSlide's properties, level dimensions and level downsamples; tifffile's where OpenSlide has none."""
    try:
        with openslide.OpenSlide(str(path)) as slide:
            return dict(slide.properties), slide.level_dimensions, slide.level_downsamples
    except openslide.OpenSlideUnsupportedFormatError as error:
        raise UserError(
            f"Slide {path} is not a whole-slide image that OpenSlide knows. Expected SVS, tiled TIFF or another "
            "vendor's format; check that the file is complete and that the table names the right one."
        ) from error
    except Exception as error:  # a property whose name is damaged is a KeyError
        try:
            properties, dimensions = read_tiff(path)
        except Unsuitable:
            raise UserError(
                f"Slide {path} cannot be opened: {error!r}. The file may be damaged or cut off; or its form is not "
                "supported, then convert it, for example with libvips."
            ) from error
    width, height = dimensions[0]
    return properties, dimensions, tuple((width / w + height / h) / 2 for w, h in dimensions)


def _resolution(path: Path, properties: dict[str, str], mpp: float | None) -> tuple[float, float]:
    """µm per level-0 pixel, x and y: the cohort's value if there is one, else the file's."""
    if mpp is not None:
        return mpp, mpp
    try:
        own = _ome_resolution(properties) or (
            float(properties["openslide.mpp-x"]),
            float(properties["openslide.mpp-y"]),
        )
    except (KeyError, ValueError):
        own = (0.0, 0.0)
    cure = (
        "Add a column mpp to the cohort table with the value for this slide, or give --slide_mpp for a single one (the "
        "scanner's manual or the vendor's viewer shows it; 40× is usually near 0.25, 20× near 0.5)."
    )
    if not all(math.isfinite(value) and value > 0 for value in own):
        raise UserError(f"Slide {path} does not say how many µm a pixel measures. {cure}")
    if max(own) > COARSEST_MPP:
        raise UserError(
            f"Slide {path} says that a pixel measures {max(own):.4g} µm, which no slide scanner makes (programs write "
            f"72 or 96 dpi when they do not know). {cure}"
        )
    return own


def _ome_resolution(properties: dict[str, str]) -> tuple[float, float] | None:
    """µm per pixel, x and y, by the OME-XML of the file's first picture; ``None`` if it does not say."""
    try:
        pixels, *_ = ElementTree.fromstring(properties["tiff.ImageDescription"]).findall("{*}Image/{*}Pixels")
        units = [pixels.get(f"PhysicalSize{axis}Unit", "µm").replace("μ", "µ") for axis in "XY"]  # Greek letter to sign
        x, y = (float(pixels.attrib[f"PhysicalSize{axis}"]) for axis in "XY")
        return x * UM_PER_UNIT[units[0]], y * UM_PER_UNIT[units[1]]
    except (ElementTree.ParseError, KeyError, ValueError):
        return None
