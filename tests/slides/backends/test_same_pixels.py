# SPDX-License-Identifier: Apache-2.0
"""The three backends and tifffile decode the same pixels, to the last bit."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from persam_monai.errors import UserError
from persam_monai.slides import Slide
from tests.slides.writing import (
    APERIO,
    FORMS,
    cut,
    decoded_levels,
    noise,
    overwrite_tags,
    smooth,
    write_jpeg2000,
    write_slide,
)

READERS = ("tiles", "cucim", "openslide")
WIDTH, HEIGHT = 1003, 999  # four tiles a side, none of them whole at the edge
COARSE = (251, 301)  # the second level is 1003 / 301 = 3.33 and 999 / 251 = 3.98 times coarser: none is an integer
# Corners of tiles, across one and two of their borders, the same tile for several patches, and out of the slide.
PLACES = np.array([[0, 0], [200, 240], [256, 240], [211, 100], [7, 3], [600, 700], [900, 20], [-30, 990], [990, -11]])
# cuCIM's libtiff has no deflate: with a predictor, opening the file crashes the interpreter; a damaged tile always.
REFUSED = {("cucim", "deflate"), ("cucim", "deflate predictor")}


def readers(form: str) -> list[str]:
    return [reader for reader in READERS if (reader, form) not in REFUSED]


def wanted(level: np.ndarray, places: np.ndarray, side: int) -> np.ndarray:
    return np.stack([cut(level, x, y, side, side) for x, y in places.tolist()])


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A slide in every form; tiles are not square, so that axes cannot be mixed up."""
    folder = tmp_path_factory.mktemp("forms")
    pictures = [noise(HEIGHT, WIDTH), noise(*COARSE, seed=1)]
    return {form: write_slide(folder / f"{form}.tif", pictures, form, tile=(256, 240)) for form in FORMS}


@pytest.mark.parametrize("form", FORMS)
def test_every_reader_gives_the_pixels_of_the_file(slides: dict[str, Path], form: str) -> None:
    level = decoded_levels(slides[form])[0]
    for reader in readers(form):
        with Slide(slides[form], backend=reader) as slide:
            for side in (1, 91, 300):
                patches = slide.read_patches(PLACES, side, 0.25)
                pixels = wanted(level, PLACES, side)
                if (reader, form) == ("cucim", "jpeg2000"):  # another release of OpenJPEG, which rounds otherwise
                    difference = np.abs(patches.astype(int) - pixels)
                    assert difference.max() <= 1
                    assert difference.mean() < 1e-4
                else:
                    np.testing.assert_array_equal(patches, pixels, reader)


@pytest.mark.parametrize("form", ["deflate", "deflate predictor"])
def test_cucim_is_kept_from_what_ends_the_process(slides: dict[str, Path], form: str) -> None:
    with pytest.raises(UserError, match="deflate, at which cuCIM can crash") as caught:
        Slide(slides[form], backend="cucim")
    assert str(slides[form]) in str(caught.value)


@pytest.mark.parametrize("tile", [(256, 256), (240, 240)])
@pytest.mark.parametrize("layout", ["<big", "<classic", ">big"])  # OpenSlide 4.0.1 opens no classic one with ">"
@pytest.mark.parametrize("form", ["jpeg 420", "jpeg rgb shared tables", "lzw predictor", "uncompressed"])
def test_byte_order_and_offset_size_change_nothing(
    tmp_path: Path, form: str, layout: str, tile: tuple[int, int]
) -> None:
    path = tmp_path / "slide.tif"
    write_slide(path, [noise(500, 600)], form, tile, byteorder=layout[0], bigtiff=layout[1:] == "big")
    pixels = wanted(decoded_levels(path)[0], PLACES[:5], 130)
    # libtiff 4.7 in OpenSlide takes uncompressed tiles only in whole kilobytes, which 240 · 240 · 3 are not.
    for reader in READERS[: 2 if (form, tile) == ("uncompressed", (240, 240)) else 3]:
        with Slide(path, backend=reader) as slide:
            assert slide.levels[0].tile == tile
            np.testing.assert_array_equal(slide.read_patches(PLACES[:5], 130, 0.25), pixels, reader)


@pytest.mark.parametrize("form", FORMS)
def test_a_level_of_uneven_downsample_is_read_pixel_by_pixel(slides: dict[str, Path], form: str) -> None:
    level = decoded_levels(slides[form])[1]
    with Slide(slides[form], backend="tiles") as slide:
        downsample = slide.levels[1].downsample
        pixels = np.array([[0, 0], [1, 2], [100, 31], [201, 151], [170, 120], [0, 151]])
        places = np.ceil(pixels * downsample).astype(int)
        mpp = slide.levels[1].mpp[0]
        assert slide.plan(100, mpp).level == 1
        np.testing.assert_array_equal(slide.read_patches(places, 100, mpp), wanted(level, pixels, 100))


def test_no_rounding_leads_to_the_neighbouring_pixel(tmp_path: Path) -> None:
    """With 621 / 230 = 2.7, pixel 30 begins at 81, and 81 / 2.7 is 29.999…"""
    path = write_slide(tmp_path / "slide.tif", [noise(621, 621), noise(230, 230, seed=1)], "uncompressed", (64, 64))
    with Slide(path) as slide:
        pixels = np.arange(210)[:, None].repeat(2, axis=1)
        places = np.ceil(pixels * slide.levels[1].downsample).astype(int)
        assert (np.floor(places / slide.levels[1].downsample) != pixels).any()
        patches = slide.read_patches(places, 20, slide.levels[1].mpp[0])
    np.testing.assert_array_equal(patches, wanted(decoded_levels(path)[1], pixels, 20))


@pytest.mark.parametrize("reader", READERS)
def test_a_level_of_even_downsample_is_the_same_for_all(tmp_path: Path, reader: str) -> None:
    level = noise(300, 310, seed=1)
    write_slide(tmp_path / "slide.tif", [noise(1200, 1240), level], "uncompressed")
    pixels = np.array([[0, 0], [3, 5], [210, 200], [200, 121]])
    with Slide(tmp_path / "slide.tif", backend=reader) as slide:
        for position in (pixels * 4, pixels * 4 + 3):  # anywhere in the level's pixel
            np.testing.assert_array_equal(slide.read_patches(position, 100, 1.0), wanted(level, pixels, 100))


def test_openslide_interpolates_where_a_pixel_begins_between_those_of_level_0(slides: dict[str, Path]) -> None:
    """OpenSlide takes whole level-0 positions alone, and moves the level by what is left: never by a pixel."""
    level = decoded_levels(slides["uncompressed"])[1].astype(float)
    with Slide(slides["uncompressed"], backend="openslide") as slide:
        downsample = slide.levels[1].downsample[0]
        for x, y in [(0, 0), (100, 31), (170, 120)]:
            left, down = (math.ceil(v * downsample) / downsample - v for v in (x, y))
            region = level[y : y + 61, x : x + 61]
            rows = region[:-1] * (1 - down) + region[1:] * down
            moved = rows[:, :-1] * (1 - left) + rows[:, 1:] * left
            place = np.ceil(np.array([[x, y]]) * downsample).astype(int)
            assert np.abs(slide.read_patches(place, 60, slide.levels[1].mpp[0])[0] - moved).max() <= 1.5


@pytest.mark.parametrize("reader", READERS)
def test_threads_views_and_single_regions_change_nothing(slides: dict[str, Path], reader: str) -> None:
    places = np.random.default_rng(0).integers(-50, 1000, (40, 2))
    pixels = wanted(decoded_levels(slides["jpeg 420"])[0], places, 150)
    with Slide(slides["jpeg 420"], backend=reader) as slide:
        for threads in (1, 2, 5):
            np.testing.assert_array_equal(slide.read_patches(places, 150, 0.25, threads), pixels)
        one_by_one = np.concatenate([slide.read_patches(place[None], 150, 0.25) for place in places])
        np.testing.assert_array_equal(one_by_one, pixels)

        block = np.full((90, 160, 170, 3), 7, np.uint8)  # every other patch of a larger block, off its corner
        view = block[5:85:2, 4:154, 9:159]
        assert slide.read_patches(places, 150, 0.25, threads=3, out=view) is view
        np.testing.assert_array_equal(view, pixels)
        view[:] = 7
        assert (block == 7).all()  # nothing else was touched

        turned = np.zeros((150, 150, 3, 40), np.uint8).transpose(3, 1, 0, 2)  # x and y swapped in memory
        slide.read_patches(places, 150, 0.25, out=turned)
        np.testing.assert_array_equal(turned, pixels)


@pytest.mark.parametrize("reader", READERS)
def test_resampled_patches_go_into_views_too(slides: dict[str, Path], reader: str) -> None:
    places = PLACES[:7]
    with Slide(slides["jpeg 420"], backend=reader) as slide:
        alone = slide.read_patches(places, 64, 0.6)
        for threads in (1, 2, 3):
            view = np.zeros((16, 70, 80, 3), np.uint8)[1:15:2, 3:67, 8:72]
            slide.read_patches(places, 64, 0.6, threads, view)
            np.testing.assert_array_equal(view, alone)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("width", "height"), [(400, 90), (70, 300), (1, 500)])
def test_regions_need_not_be_square(slides: dict[str, Path], reader: str, width: int, height: int) -> None:
    """As they are where the slide's pixels are not: the patch that is made of them is."""
    level = decoded_levels(slides["lzw"])[0]
    out = np.empty((4, height, width, 3), np.uint8)
    with Slide(slides["lzw"], backend=reader) as slide:
        slide._backend.read(PLACES[:4], 0, out)
    np.testing.assert_array_equal(out, np.stack([cut(level, x, y, width, height) for x, y in PLACES[:4].tolist()]))


@pytest.mark.skipif(not APERIO.exists(), reason="needs the slide CMU-1-Small-Region.svs")
@pytest.mark.parametrize("reader", READERS)
def test_a_real_slide_of_aperio_reads_the_same(reader: str) -> None:
    places = np.random.default_rng(0).integers((-100, -100), (2200, 2900), (30, 2))
    with Slide(APERIO, backend=reader) as slide:
        patches = slide.read_patches(places, 224, slide.mpp[0], threads=2)
    np.testing.assert_array_equal(patches, wanted(decoded_levels(APERIO)[0], places, 224))


def test_a_jfif_marker_does_not_overrule_the_colours_of_the_tiff(tmp_path: Path) -> None:
    """Some converters leave a JFIF marker, which means YCbCr, in tiles that the TIFF says are RGB."""
    path = write_slide(tmp_path / "slide.tif", [noise(300, 300)], "jpeg 444")
    with Slide(path, backend="openslide") as slide:
        converted = slide.read_patches(PLACES[:1], 256, 0.25)
    overwrite_tags(path, "PhotometricInterpretation", 2)
    with Slide(path, backend="openslide") as one, Slide(path, backend="tiles") as other:
        as_it_is = one.read_patches(PLACES[:1], 256, 0.25)
        np.testing.assert_array_equal(other.read_patches(PLACES[:1], 256, 0.25), as_it_is)
    assert np.abs(as_it_is.astype(int) - converted).mean() > 20  # the tag matters


@pytest.mark.parametrize("subifds", [False, True])
@pytest.mark.parametrize(
    ("compression", "photometric", "software", "stored"),
    [
        (34712, "rgb", False, "RGB"),
        (34712, "ycbcr", False, "YCbCr"),
        (33003, "rgb", "OME Bio-Formats 7.3.0", "RGB"),
        (33004, "rgb", "OME Bio-Formats 7.3.0", "RGB"),
        (33004, "rgb", False, "YCbCr"),  # libvips
    ],
)
def test_jpeg2000_that_openslide_does_not_open_has_its_pixels_and_levels(
    tmp_path: Path, compression: int, photometric: str, software: str | bool, stored: str, subifds: bool
) -> None:
    levels = [smooth(600, 700), smooth(300, 350, 1)]
    coded = levels if stored == "RGB" else [cv2.cvtColor(one, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]] for one in levels]
    path = write_jpeg2000(tmp_path / "slide.tif", coded, compression, photometric, software, subifds)
    with Slide(path) as slide:
        assert slide.mpp == pytest.approx((0.25, 0.25))
        assert [(level.dimensions, level.tile) for level in slide.levels] == [
            ((700, 600), (256, 256)),
            ((350, 300), (256, 256)),
        ]
        for level, mpp in ((0, 0.25), (1, 0.5)):
            places = np.array([[0, 0], [240, 250]])
            patches = slide.read_patches(places, 100, mpp).astype(int)
            difference = np.abs(patches - wanted(levels[level], places >> level, 100))
            assert difference.max() <= (0 if stored == "RGB" else 2)  # YCbCr is rounded
