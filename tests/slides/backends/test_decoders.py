# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from persam_monai.slides.tables import TileTable, read_tables
from persam_monai.slides.tiles import DamagedTile, decode_tile
from tests.slides.writing import FORMS, decoded_levels, noise, smooth, tile_span, write_slide

WIDTH, HEIGHT = 256, 240  # one tile


def one_tile(folder: Path, form: str, pixels: np.ndarray) -> tuple[bytes, TileTable, np.ndarray]:
    """A tile's bytes, its table, and its pixels as tifffile decodes them."""
    path = write_slide(folder / "slide.tif", [pixels], form, (WIDTH, HEIGHT))
    begin, size = tile_span(path, 0)
    vendor = "aperio" if form == "jpeg2000" else "generic-tiff"
    (table,) = read_tables(path, vendor, [(pixels.shape[1], pixels.shape[0])])
    return path.read_bytes()[begin : begin + size], table, decoded_levels(path)[0]


def scratch() -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), 7, np.uint8)


@pytest.mark.parametrize("form", FORMS)
def test_a_tile_decodes_to_its_pixels(tmp_path: Path, form: str) -> None:
    data, table, wanted = one_tile(tmp_path, form, noise(HEIGHT, WIDTH))
    np.testing.assert_array_equal(decode_tile(data, table, scratch()), wanted)


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("form", ["jpeg 420", "jpeg 444", "jpeg rgb shared tables"])
def test_jpeg_shrinks_to_the_mean_of_blocks(tmp_path: Path, form: str, factor: int) -> None:
    data, table, wanted = one_tile(tmp_path, form, smooth(HEIGHT, WIDTH))
    small = decode_tile(data, table, scratch(), factor)
    blocks = wanted.reshape(HEIGHT // factor, factor, WIDTH // factor, factor, 3).mean(axis=(1, 3))
    assert np.ptp(blocks) > 80
    assert np.abs(small - blocks).max() <= 2


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(240, 240), (256, 256), (480, 256)])
def test_a_tile_of_another_size_is_damaged(tmp_path: Path, form: str, shape: tuple[int, int]) -> None:
    if form.startswith("lzw") and shape != (240, 240):
        pytest.skip("LZW says how much it holds only by its end; libtiff too reads as much as it needs")
    path = write_slide(tmp_path / "other.tif", [noise(*shape)], form, (shape[1], shape[0]))
    begin, size = tile_span(path, 0)
    _, table, _ = one_tile(tmp_path, form, noise(HEIGHT, WIDTH))
    with pytest.raises(DamagedTile, match=r"expected|bytes|buffer|size|(?i:error)"):
        decode_tile(path.read_bytes()[begin : begin + size], table, scratch())


def test_a_grey_tile_among_colours_is_damaged(tmp_path: Path) -> None:
    _, table, _ = one_tile(tmp_path, "jpeg2000", noise(HEIGHT, WIDTH))
    grey = bytes(imagecodecs.jpeg2k_encode(noise(HEIGHT, WIDTH)[..., 0], codecformat="j2k"))
    with pytest.raises(DamagedTile, match=r"\(240, 256\)"):
        decode_tile(grey, table, scratch())


@pytest.mark.parametrize("form", [form for form in FORMS if form != "uncompressed"])
@pytest.mark.parametrize("kept", [0, 1, 2, 3, 10, 0.5, 0.95])
def test_a_tile_that_breaks_off_is_damaged(tmp_path: Path, form: str, kept: float) -> None:
    """Never grey or black pixels: a library that fills in what is missing must not be believed."""
    data, table, _ = one_tile(tmp_path, form, noise(HEIGHT, WIDTH))
    part = data[: kept if isinstance(kept, int) else int(len(data) * kept)]
    with pytest.raises(DamagedTile):
        decode_tile(part, table, scratch())


@pytest.mark.parametrize("form", FORMS)
def test_too_few_bytes_of_uncompressed_or_garbled_ones_are_damaged(tmp_path: Path, form: str) -> None:
    data, table, _ = one_tile(tmp_path, form, noise(HEIGHT, WIDTH))
    with pytest.raises(DamagedTile):
        decode_tile(data[:-1] if form == "uncompressed" else bytes(len(data)), table, scratch())


def test_tifffile_decodes_the_same_from_the_tables_it_was_given(tmp_path: Path) -> None:
    """The head of a stream carries what tiles share: without it the tile could not be decoded at all."""
    data, table, wanted = one_tile(tmp_path, "jpeg 420 shared tables", noise(HEIGHT, WIDTH))
    assert b"\xff\xdb" not in data[:100]  # no quantisation table of its own
    with pytest.raises(DamagedTile):
        decode_tile(data, table._replace(head=b"\xff\xd8"), scratch())
    with tifffile.TiffFile(tmp_path / "slide.tif") as file:
        assert file.pages[0].jpegtables
    np.testing.assert_array_equal(decode_tile(data, table, scratch()), wanted)
