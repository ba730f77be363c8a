# SPDX-License-Identifier: Apache-2.0
"""Where a tiled TIFF keeps the tiles of its levels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile

from persam_monai.errors import UserError

UNCOMPRESSED, LZW, JPEG = 1, 5, 7  # TIFF tag Compression
JPEG2000_YCBCR, JPEG2000_LOSSY = 33003, 33004  # the former where Aperio writes it; Bio-Formats writes RGB with both
JPEG2000 = (JPEG2000_YCBCR, JPEG2000_LOSSY, 33005, 34712)
DEFLATE = (8, 32946)
COMPRESSIONS = (UNCOMPRESSED, LZW, JPEG, *DEFLATE, *JPEG2000)
RGB, YCBCR, LAB = 2, 6, (8, 9, 10)  # TIFF tag PhotometricInterpretation
NO_PREDICTOR, HORIZONTAL = 1, 2  # TIFF tag Predictor; the latter: each sample is the difference from its left one
TRANSFORMS = {RGB: 0, YCBCR: 1}  # of JPEG's Adobe marker, by TIFF's photometric interpretation
# A start marker, then the one that says what libjpeg otherwise guesses. Adobe Technical Note 5116: APP14, version 100,
# two flags, the colour transform.
HEAD = b"\xff\xd8" + b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00%c"
YCBCR_HEAD = HEAD % TRANSFORMS[YCBCR]
OWN = "tiff"  # vendor of a file that OpenSlide does not open
VENDORS = ("generic-tiff", "aperio", OWN)  # others move, overlap or omit tiles in ways of their own


class Unsuitable(Exception):
    """The tiles of this file cannot be read one by one; says why."""


class TileTable(NamedTuple):
    """The tiles of one level. The lists of offsets and sizes stay in the file: a slide has 100,000 tiles."""

    dimensions: tuple[int, int]  # width, height of the level in pixels
    tile: tuple[int, int]  # width, height of a tile in pixels
    compression: int
    predictor: int
    photometric: int  # as in the TIFF
    head: bytes  # what a tile's JPEG stream begins with: start marker, colour transform, shared tables
    offsets: tuple[int, str]  # position in the file and NumPy type of the list of tiles' positions
    sizes: tuple[int, str]  # the same for the list of tiles' sizes in bytes

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return -(-self.dimensions[0] // self.tile[0])

    @property
    def number(self) -> int:
        """Tiles of the level."""
        return self.columns * -(-self.dimensions[1] // self.tile[1])


def unsupported(path: Path, why: str) -> UserError:
    """The error for a slide in a form that nobody here reads."""
    return UserError(
        f"Slide {path} is in a form that is not supported: {why}. Convert it, for example with libvips: "
        f'vips colourspace {path} "new.tif[tile,pyramid,bigtiff,compression=jpeg,Q=90]" srgb'
    )


def read_tables(path: Path, vendor: str, dimensions: Sequence[tuple[int, int]]) -> tuple[TileTable, ...]:
    """Find the tiles of every level (TIFF 6.0, sections 15 and 22).

    Args:
        path: a TIFF.
        vendor: OpenSlide's ``openslide.vendor``.
        dimensions: width and height of each level as OpenSlide has them.
    """
    if vendor not in VENDORS:
        raise Unsuitable(f"the format is {vendor}")
    try:
        with tifffile.TiffFile(path) as file:
            listed = [page for page in file.pages if isinstance(page, tifffile.TiffPage)]
            within = [page for parent in listed for page in parent.pages or ()]  # SubIFDs, where pyramids may be
            pages = [page for page in (*listed, *within) if isinstance(page, tifffile.TiffPage) and page.is_tiled]
            by_size = {(page.imagewidth, page.imagelength): page for page in pages}
            if len(by_size) < len(pages):
                raise Unsuitable("two pictures in it have the same size")
            if any(page.photometric in LAB for page in pages):
                raise unsupported(path, "its pixels are L*a*b*")
            return tuple(_table(by_size.get(size), size, file.byteorder, vendor) for size in dimensions)
    except (Unsuitable, UserError, MemoryError):
        raise
    except Exception as error:  # tifffile's are of many types
        raise Unsuitable(f"its TIFF tags cannot be read ({error})") from error


def read_tiff(path: Path) -> tuple[dict[str, str], tuple[tuple[int, int], ...]]:
    """Metadata of a TIFF of JPEG 2000 tiles that OpenSlide does not open, such as QuPath and Bio-Formats write.

    Args:
        path: the slide.

    Returns:
        Properties as OpenSlide names them, and width and height of each level, finest first.
    """
    try:
        with tifffile.TiffFile(path) as file:
            pages = [level.keyframe for level in file.series[0].levels]
            compression, description = pages[0].compression, pages[0].description
            per_um = pages[0].get_resolution("MICROMETER")
    except Exception as error:  # tifffile's are of many types
        raise Unsuitable(f"its TIFF tags cannot be read ({error})") from error
    if compression not in JPEG2000 or pages[0].is_svs:
        raise Unsuitable("OpenSlide opens what is so compressed")
    properties = {"openslide.vendor": OWN, "tiff.ImageDescription": description}
    properties |= {f"openslide.mpp-{axis}": str(1 / value) for axis, value in zip("xy", per_um, strict=True) if value}
    for index, page in enumerate(pages):
        properties[f"openslide.level[{index}].tile-width"] = str(page.tilewidth)
        properties[f"openslide.level[{index}].tile-height"] = str(page.tilelength)
    return properties, tuple((page.imagewidth, page.imagelength) for page in pages)


def _table(page: tifffile.TiffPage | None, size: tuple[int, int], byteorder: str, vendor: str) -> TileTable:
    if page is None:
        raise Unsuitable(f"it has no tiled picture of {size[0]} × {size[1]} pixels")
    photometric = int(page.photometric)
    if page.compression == JPEG2000_LOSSY and not page.parent.pages.first.software:
        photometric = YCBCR  # so libvips writes it, which says RGB there and names itself nowhere
    if page.compression not in COMPRESSIONS or (vendor, page.compression) == ("aperio", JPEG2000_YCBCR):
        raise Unsuitable(f"it is compressed by {getattr(page.compression, 'name', page.compression)}")
    plain = (page.samplesperpixel, page.bitspersample, int(page.planarconfig)) == (3, 8, 1)
    ycbcr = photometric == YCBCR and page.compression in (JPEG, *JPEG2000)
    if not plain or not (photometric == RGB or ycbcr):
        raise Unsuitable("its pixels are not 8-bit RGB")
    if int(page.predictor) not in (NO_PREDICTOR, HORIZONTAL):
        raise Unsuitable(f"its predictor is {int(page.predictor)}")
    if vendor == "aperio" and 0 in page.databytecounts:
        raise Unsuitable("a lower level leaves out tiles, which are to be taken from a finer one")
    tables = page.jpegtables or b""  # an abbreviated stream of its own, between start and end markers
    return TileTable(
        size,
        (page.tilewidth, page.tilelength),
        int(page.compression),
        int(page.predictor),
        photometric,
        HEAD % TRANSFORMS[photometric] + tables[2:-2] if page.compression == JPEG else b"",
        _list(page.tags["TileOffsets"], byteorder),
        _list(page.tags["TileByteCounts"], byteorder),
    )


def _list(tag: tifffile.TiffTag, byteorder: str) -> tuple[int, str]:
    """Position of a tag's values in the file, and their NumPy type."""
    kind = np.dtype(byteorder + {"H": "u2", "I": "u4", "Q": "u8"}[tag.dataformat[-1]])
    return int(tag.valueoffset), kind.str
