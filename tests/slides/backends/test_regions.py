# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from persam_monai.errors import UserError
from persam_monai.slides import Slide
from persam_monai.slides.header import read_header
from persam_monai.slides.regions import CuCIM, OpenSlideRegions
from tests.slides.writing import cut, noise, overwrite_bytes, tile_span, write_slide

PLACES = np.array([[0, 0], [300, 300], [280, 20], [30, 260]])


def test_black_that_is_in_the_slide_stays_black(tmp_path: Path) -> None:
    """CuCIM's sign of damage is black; OpenSlide is asked, and finds that it is the picture's own."""
    picture = noise(600, 600)
    picture[:300] = 0
    path = write_slide(tmp_path / "slide.tif", [picture], "lzw")
    with Slide(path, backend="cucim") as slide:
        patches = slide.read_patches(PLACES, 200, 0.25)
    np.testing.assert_array_equal(patches, np.stack([cut(picture, x, y, 200, 200) for x, y in PLACES.tolist()]))


class Blank:
    """CuCIM, were it unable to decode anything: with luck, what it then returns is black."""

    def read_region(
        self, points: list[tuple[int, int]], region: tuple[int, int], *_: int, **__: int
    ) -> Iterator[np.ndarray]:
        return iter([np.zeros((len(points), region[1], region[0], 3), np.uint8)])

    def close(self) -> None:
        pass


def test_where_cucim_gives_black_openslide_has_the_last_word(tmp_path: Path) -> None:
    picture = noise(600, 600)
    path = write_slide(tmp_path / "slide.tif", [picture], "lzw")
    with Slide(path, backend="cucim") as slide:
        slide._own._image = Blank()  # type: ignore[attr-defined]
        patches = slide.read_patches(PLACES, 150, 0.25)
        np.testing.assert_array_equal(patches, np.stack([cut(picture, x, y, 150, 150) for x, y in PLACES.tolist()]))
        begin, size = tile_span(path, 4)
        overwrite_bytes(path, begin, bytes(size))
        with pytest.raises(UserError, match=r"slide\.tif cannot be decoded .*Copy the slide anew"):
            slide.read_patches(PLACES, 150, 0.25)


def test_levels_that_cucim_does_not_find_are_refused(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.tif", [noise(600, 600), noise(300, 300)])
    with pytest.raises(UserError, match=r"slide\.tif: OpenSlide finds levels .*wrong magnification.*--backend auto"):
        CuCIM(path, [(600, 600), (150, 150)], [1.0, 4.0])


def test_what_cucim_cannot_open_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.tif").write_text("no slide")
    with pytest.raises(UserError, match=r"text\.tif cannot be opened by cuCIM .*--backend auto"):
        CuCIM(tmp_path / "text.tif", [(600, 600)], [1.0])
    with pytest.raises(UserError, match=r"text\.tif cannot be opened by OpenSlide"):
        OpenSlideRegions(tmp_path / "text.tif", [(600, 600)], [1.0])


@pytest.mark.parametrize("reader", ["cucim", "openslide", "tiles"])
def test_a_thumbnail_is_the_same_however_it_is_read(tmp_path: Path, reader: str) -> None:
    picture = noise(600, 700)
    path = write_slide(tmp_path / "slide.tif", [picture], "lzw")
    with Slide(path, backend=reader) as slide:
        thumbnail = slide.thumbnail(2.5)
    blocks = picture.reshape(60, 10, 70, 10, 3).mean(axis=(1, 3))
    assert np.abs(thumbnail - blocks).max() <= 0.51


@pytest.mark.parametrize("reader", ["tiles", "openslide", "cucim"])
def test_a_closed_file_is_closed(tmp_path: Path, reader: str) -> None:
    path = write_slide(tmp_path / "slide.tif", [noise(300, 300)])
    slide = Slide(path, header=read_header(path, backend=reader))
    slide.read_patches(PLACES[:1], 100, 0.25)
    assert (str(path) in open_files()) == (reader != "openslide")  # which opens the file for each read
    slide.close()
    slide.close()  # once more does no harm
    assert str(path) not in open_files()
    with pytest.raises(UserError, match=r"slide\.tif is closed"):
        slide.read_patches(PLACES[:1], 100, 0.25)
    with pytest.raises(UserError, match=r"slide\.tif is closed"):
        slide.thumbnail(2.0)


def open_files() -> list[str]:
    """The files that this process has open."""
    links = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except FileNotFoundError:  # the one that lists them
            continue
    return links
