# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from persam_monai.slides.tables import TileTable, Unsuitable, read_tables
from tests.slides.writing import APERIO, noise, overwrite_tags, write_slide

SIZES = [(700, 520), (175, 130)]  # width, height
PICTURES = [noise(height, width) for width, height in SIZES]


def listed(path: Path, place: tuple[int, str], count: int) -> list[int]:
    """A list of numbers as a table says it lies in the file."""
    return [int(value) for value in np.fromfile(path, place[1], count, offset=place[0])]


@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("bigtiff", [True, False])
def test_the_lists_of_tiles_are_found_where_they_are(tmp_path: Path, byteorder: str, bigtiff: bool) -> None:
    path = write_slide(tmp_path / "slide.tif", PICTURES, "lzw", (256, 240), byteorder=byteorder, bigtiff=bigtiff)
    tables = read_tables(path, "generic-tiff", SIZES)
    with tifffile.TiffFile(path) as file:
        for table, size, page, count in zip(tables, SIZES, file.pages, (3 * 3, 1), strict=True):
            assert (table.dimensions, table.tile, table.compression) == (size, (256, 240), 5)
            assert table.columns == -(-size[0] // 256)
            assert listed(path, table.offsets, count) == list(page.dataoffsets)
            assert listed(path, table.sizes, count) == list(page.databytecounts)


def test_levels_are_matched_by_size_whatever_their_order_in_the_file(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.tif", PICTURES[::-1], "lzw")
    with tifffile.TiffFile(path) as file:
        small, large = (page.dataoffsets[0] for page in file.pages)
    tables = read_tables(path, "generic-tiff", SIZES)
    assert [listed(path, table.offsets, 1) for table in tables] == [[large], [small]]


@pytest.mark.skipif(not APERIO.exists(), reason="needs the slide CMU-1-Small-Region.svs")
def test_the_label_and_the_thumbnail_of_a_real_slide_are_no_levels() -> None:
    (table,) = read_tables(APERIO, "aperio", [(2220, 2967)])
    assert (table.tile, table.compression, table.columns) == ((240, 240), 7, 10)


def _refused(path: Path, vendor: str = "generic-tiff", sizes: list[tuple[int, int]] | None = None) -> str:
    with pytest.raises(Unsuitable) as caught:
        read_tables(path, vendor, [(700, 520)] if sizes is None else sizes)
    return str(caught.value)


@pytest.mark.parametrize("vendor", ["hamamatsu", "philips-tiff", "ventana", "leica", "trestle", "unknown"])
def test_vendors_whose_tiles_overlap_or_move_are_left_to_openslide(tmp_path: Path, vendor: str) -> None:
    path = write_slide(tmp_path / "slide.tif", PICTURES)
    assert vendor in _refused(path, vendor)


def test_two_pictures_of_one_size_cannot_be_told_apart(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.tif", [PICTURES[0], PICTURES[0]])
    assert "same size" in _refused(path)


def test_a_level_that_the_file_does_not_hold_in_tiles_is_named(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.tif", PICTURES)
    assert "701 × 520" in _refused(path, sizes=[(701, 520)])
    tifffile.imwrite(path, PICTURES[0], photometric="rgb")  # in strips
    assert "no tiled picture of 700 × 520" in _refused(path)


WRITERS: dict[str, Callable[[Path], None]] = {
    "grey": lambda path: tifffile.imwrite(path, PICTURES[0][..., 0], tile=(256, 256)),
    "with alpha": lambda path: tifffile.imwrite(
        path,
        np.dstack([PICTURES[0], PICTURES[0][..., :1]]),
        tile=(256, 256),
        photometric="rgb",
        extrasamples=["unassalpha"],
    ),
    "16 bits": lambda path: tifffile.imwrite(
        path, PICTURES[0].astype(np.uint16), tile=(256, 256), photometric="rgb", planarconfig="contig"
    ),
    "a plane per colour": lambda path: tifffile.imwrite(
        path, PICTURES[0].transpose(2, 0, 1), tile=(256, 256), photometric="rgb", planarconfig="separate"
    ),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_not_8_bit_rgb_is_left_to_openslide(tmp_path: Path, kind: str) -> None:
    WRITERS[kind](tmp_path / "slide.tif")
    assert "not 8-bit RGB" in _refused(tmp_path / "slide.tif")


def test_ycbcr_without_jpeg_and_inverted_colours_are_left_to_openslide(tmp_path: Path) -> None:
    for photometric in (6, 5, 1):  # YCbCr, CMYK, grey
        path = write_slide(tmp_path / "slide.tif", PICTURES, "lzw")
        overwrite_tags(path, "PhotometricInterpretation", photometric)
        assert "not 8-bit RGB" in _refused(path)


def test_other_compressions_are_named(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, PICTURES[0], tile=(256, 256), photometric="rgb", compression="zstd")
    assert "ZSTD" in _refused(path)
    path = write_slide(path, PICTURES, "lzw")
    overwrite_tags(path, "Compression", 33003)  # JPEG 2000, which Aperio alone writes as YCbCr and calls RGB
    assert "APERIO_JP2000_YCBC" in _refused(path, "aperio")


def test_the_floating_point_predictor_is_no_predictor_of_bytes(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.tif", PICTURES, "lzw predictor")
    overwrite_tags(path, "Predictor", 3)
    assert "predictor" in _refused(path).lower()


@pytest.mark.parametrize("content", [b"", b"a text", b"II\x2a\x00", bytes(range(256)) * 16])
def test_what_is_no_tiff_is_unsuitable(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "slide.svs").write_bytes(content)
    assert "TIFF tags cannot be read" in _refused(tmp_path / "slide.svs")


def test_a_table_does_not_grow_with_the_slide(tmp_path: Path) -> None:
    """It is kept for every slide of a cohort; the lists of 100,000 tiles stay in the file."""
    path = write_slide(tmp_path / "slide.tif", [noise(640, 640)], "jpeg 420", (16, 16))
    (table,) = read_tables(path, "generic-tiff", [(640, 640)])
    assert isinstance(table, TileTable)
    assert len(repr(table)) < 1000
    assert listed(path, table.sizes, 1600)[-1] > 0
