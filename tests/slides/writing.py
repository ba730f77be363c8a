# SPDX-License-Identifier: Apache-2.0
"""Small slides in every way that scanners and converters store them, written without the package's help."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from scipy.ndimage import gaussian_filter

from tests.bundle.running import ROOT

APERIO = ROOT.parent / "shared" / "slides" / "CMU-1-Small-Region.svs"  # a real one: 2220 × 2967, JPEG in tiles of 240
APERIO_JPEG2000 = 33005  # TIFF compression
DESCRIPTION = "Aperio Image Library v11.2.1 \r\n{w}x{h} [0,0 {w}x{h}] (256x256) {codec} Q=70|AppMag = 40|MPP = 0.2500"
FORMS = (
    "jpeg 420",
    "jpeg 422",
    "jpeg 444",
    "jpeg 420 shared tables",
    "jpeg rgb",
    "jpeg rgb shared tables",
    "jpeg2000",
    "lzw",
    "lzw predictor",
    "deflate",
    "deflate predictor",
    "uncompressed",
)


def write_slide(
    path: Path,
    levels: Sequence[np.ndarray],
    form: str = "jpeg 420",
    tile: tuple[int, int] = (256, 256),
    mpp: tuple[float, float] = (0.25, 0.25),
    byteorder: str = "<",
    bigtiff: bool = True,
) -> Path:
    """Write ``levels``, finest first, uint8 [H, W, 3] each, in one of :data:`FORMS`; Aperio's where JPEG 2000.

    Args:
        path: the file.
        levels: the pictures.
        form: of :data:`FORMS`.
        tile: width and height of a tile.
        mpp: µm per level-0 pixel, x and y; JPEG 2000 always says 0.25.
        byteorder: ``<`` or ``>``.
        bigtiff: whether 64-bit.
    """
    kind, *details = form.split()
    with tifffile.TiffWriter(path, bigtiff=bigtiff, byteorder=byteorder) as file:
        for level, pixels in enumerate(levels):
            pieces = _tiles(pixels, tile)
            tags: dict[str, object] = {}
            if kind == "jpeg":
                tables, encode = _jpeg(details[0], "tables" in details)
                data: Iterator[np.ndarray] | Iterator[bytes] = map(encode, pieces)
                tags = {"compression": "jpeg", "jpegtables": tables}
                if details[0] != "rgb":
                    factors = {"420": (2, 2), "422": (2, 1), "444": (1, 1)}[details[0]]
                    tags["subsampling"] = factors
            elif kind == "jpeg2000":
                data = (bytes(imagecodecs.jpeg2k_encode(piece, level=40, codecformat="j2k")) for piece in pieces)
                height, width = levels[0].shape[:2]
                description = DESCRIPTION.format(w=width, h=height, codec="J2K/YUV16")
                tags = {"compression": APERIO_JPEG2000, "description": description}
            else:
                data = pieces
                tags = {"compression": {"deflate": "adobe_deflate", "uncompressed": None}.get(kind, kind)}
                tags["predictor"] = "predictor" in details
            if kind != "jpeg2000":
                scale = levels[0].shape[1] / pixels.shape[1], levels[0].shape[0] / pixels.shape[0]
                tags["resolution"] = tuple(10_000 / (own * by) for own, by in zip(mpp, scale, strict=True))
                tags["resolutionunit"] = "CENTIMETER"
            file.write(
                data,
                shape=pixels.shape,
                dtype=pixels.dtype,
                tile=tile[::-1],
                photometric="rgb",
                subfiletype=int(level > 0),
                metadata=None,
                software=False,
                maxworkers=1,
                **tags,
            )
    if details[:1] == ["rgb"]:
        overwrite_tags(path, "PhotometricInterpretation", 2)  # the writer says YCbCr whenever it is JPEG
    return path


def write_jpeg2000(
    path: Path, levels: Sequence[np.ndarray], compression: int, photometric: str, software: str | bool, subifds: bool
) -> Path:
    """Write ``levels``, of 0.25 µm per pixel, as lossless JPEG 2000 in tiles of 256 without Aperio's description."""
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level, pixels in enumerate(levels):
            file.write(
                (
                    bytes(imagecodecs.jpeg2k_encode(tile, level=0, codecformat="j2k"))
                    for tile in _tiles(pixels, (256, 256))
                ),
                shape=pixels.shape,
                dtype=pixels.dtype,
                tile=(256, 256),
                compression=compression,
                photometric=photometric,
                software=software,
                subfiletype=int(level > 0),
                subifds=len(levels) - 1 if subifds and level == 0 else None,
                resolution=(40_000, 40_000),
                resolutionunit="CENTIMETER",
                metadata=None,
            )
    return path


def overwrite_tags(path: Path, name: str, value: object) -> None:
    """Give a tag of every page of a TIFF another value."""
    with tifffile.TiffFile(path, mode="r+b") as file:
        for page in file.pages:
            page.tags[name].overwrite(value)


def overwrite_list(path: Path, name: str, index: int, value: int, page: int = 0) -> None:
    """Change one element of a tag that is a list (``TileOffsets``, ``TileByteCounts``), as bytes in the file."""
    with tifffile.TiffFile(path) as file:
        tag, order = file.pages[page].tags[name], file.byteorder
        kind = np.dtype(order + {"H": "u2", "I": "u4", "Q": "u8"}[tag.dataformat[-1]])
        place = tag.valueoffset + index * kind.itemsize
    overwrite_bytes(path, place, np.array(value, kind).tobytes())


def overwrite_bytes(path: Path, place: int, content: bytes) -> None:
    """Change bytes of a file."""
    with path.open("r+b") as file:
        file.seek(place)
        file.write(content)


def tile_span(path: Path, index: int, page: int = 0) -> tuple[int, int]:
    """Position and size in bytes of a tile in the file."""
    with tifffile.TiffFile(path) as file:
        found = file.pages[page]
        return found.dataoffsets[index], found.databytecounts[index]


def decoded_levels(path: Path) -> list[np.ndarray]:
    """The tiled pictures of a TIFF as tifffile decodes them, [H, W, 3] each."""
    with tifffile.TiffFile(path) as file:
        return [page.asarray() for page in file.pages if page.is_tiled]


def cut(level: np.ndarray, x: int, y: int, width: int, height: int) -> np.ndarray:
    """A region [height, width, 3] of a picture, white beyond it."""
    white = np.full((height, width, 3), 255, np.uint8)
    inside = level[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)]
    top, left = max(-y, 0), max(-x, 0)
    white[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return white


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture in which every pixel is a number of its own, so that no shift goes unseen."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@functools.cache
def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture like tissue out of focus: brightness changes over some ten pixels, colour more slowly."""
    rng = np.random.default_rng(seed)
    brightness = gaussian_filter(rng.normal(size=(height, width, 1)), (12, 12, 0)) * 800
    colour = gaussian_filter(rng.normal(size=(height, width, 3)), (30, 30, 0)) * 600
    return np.clip(brightness + colour + (150, 120, 145), 0, 255).astype(np.uint8)


def _tiles(image: np.ndarray, tile: tuple[int, int]) -> Iterator[np.ndarray]:
    """The tiles in reading order; those at the edge repeat the last pixel."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % tile[1]), (0, -width % tile[0]), (0, 0)), mode="edge")
    for top in range(0, height, tile[1]):
        for left in range(0, width, tile[0]):
            yield np.ascontiguousarray(padded[top : top + tile[1], left : left + tile[0]])


def _jpeg(colour: str, shared: bool) -> tuple[bytes | None, Callable[[np.ndarray], bytes]]:
    """The tables that all tiles share, if they do, and what encodes a tile."""
    options: dict[str, Any] = (
        {"colorspace": "RGB", "outcolorspace": "RGB"} if colour == "rgb" else {"subsampling": colour}
    )

    def whole(pixels: np.ndarray) -> bytes:
        return bytes(imagecodecs.jpeg8_encode(pixels, level=85, **options))

    if not shared:
        return None, whole
    tables, _ = _split(whole(np.zeros((16, 16, 3), np.uint8)))
    return tables, lambda pixels: _split(whole(pixels))[1]


def _split(stream: bytes) -> tuple[bytes, bytes]:
    """A JPEG stream as two: its quantisation and Huffman tables (DQT, DHT), and the rest without an Adobe marker."""
    tables, rest, at = b"\xff\xd8", b"\xff\xd8", 2
    while stream[at + 1] != 0xDA:  # start of scan
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        if stream[at + 1] in (0xDB, 0xC4):
            tables += stream[at:end]
        elif stream[at + 1] not in (0xEE, 0xE0):
            rest += stream[at:end]
        at = end
    return tables + b"\xff\xd9", rest + stream[at:]
