# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import tifffile

from persam_monai.errors import UserError
from persam_monai.slides import Slide
from persam_monai.slides.header import read_header
from tests.slides.writing import APERIO, FORMS, noise, overwrite_tags, write_slide


def planes(path: Path) -> Path:
    """A slide that keeps its colours in three separate planes."""
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(
            noise(500, 600).transpose(2, 0, 1),
            tile=(256, 256),
            photometric="rgb",
            planarconfig="separate",
            resolution=(40000, 40000),
            resolutionunit="CENTIMETER",
            metadata=None,
        )
    return path


@pytest.mark.parametrize("form", FORMS)
def test_tiles_are_read_one_by_one_wherever_they_can_be(tmp_path: Path, form: str) -> None:
    path = write_slide(tmp_path / "slide.tif", [noise(500, 600), noise(250, 300)], form)
    header = read_header(path)
    assert header.backend == "tiles"
    assert len(header.tables) == len(header.levels) == 2


def test_the_rest_is_read_by_openslide_and_the_log_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = planes(tmp_path / "planes.tif")
    with caplog.at_level(logging.DEBUG, "persam_monai"):
        header = read_header(path)
    assert (header.backend, header.tables) == ("openslide", ())
    assert "not 8-bit RGB" in caplog.text


def test_tiles_cannot_be_forced_on_a_file_without_them(tmp_path: Path) -> None:
    path = planes(tmp_path / "planes.tif")
    with pytest.raises(UserError, match=r"tile by tile: its pixels are not 8-bit RGB.*--backend auto") as caught:
        read_header(path, backend="tiles")
    assert str(path) in str(caught.value)
    with Slide(path) as slide:  # the cure works
        np.testing.assert_array_equal(slide.read_patches(np.array([[30, 20]]), 64, 0.25)[0], _window(path))


def _window(path: Path) -> np.ndarray:
    return np.asarray(tifffile.imread(path).transpose(1, 2, 0)[20:84, 30:94])


@pytest.mark.parametrize("backend", ["cucim", "openslide"])
def test_what_is_asked_for_is_taken(tmp_path: Path, backend: str) -> None:
    path = write_slide(tmp_path / "slide.tif", [noise(300, 300)])
    header = read_header(path, backend=backend)
    assert (header.backend, header.tables) == (backend, ())
    with Slide(path, header=header) as slide:
        assert slide._backend.name == backend


def test_an_unknown_backend_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.tif", [noise(300, 300)])
    with pytest.raises(UserError, match=r"'openslid'; expected one of auto, tiles, .*Did you mean \"openslide\"\?"):
        Slide(path, backend="openslid")


@pytest.mark.skipif(not APERIO.exists(), reason="needs the slide CMU-1-Small-Region.svs")
def test_a_real_slide_of_aperio_is_read_tile_by_tile() -> None:
    header = read_header(APERIO)
    assert (header.backend, len(header.tables)) == ("tiles", 1)
    assert header.mpp == pytest.approx((0.499, 0.499))


def test_aperios_jpeg2000_in_ycbcr_is_left_to_openslide(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.svs", [noise(300, 300)], "jpeg2000")
    overwrite_tags(path, "Compression", 33003)
    assert read_header(path).backend == "openslide"
    with pytest.raises(UserError, match="it is compressed by APERIO_JP2000_YCBC"):
        read_header(path, backend="tiles")


@pytest.mark.parametrize(
    "form",
    [
        {"compression": "webp", "photometric": "rgb"},
        {"compression": "jpegxl", "photometric": "rgb"},
        {"compression": "deflate", "photometric": "cielab"},
    ],
)
def test_a_form_that_nobody_reads_is_named_with_the_cure(tmp_path: Path, form: dict[str, str]) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, noise(300, 300), tile=(256, 256), metadata=None, **form)
    with pytest.raises(UserError, match=r"slide\.tif .*libvips"):
        read_header(path, 0.25)


def test_jpeg2000_without_colours_is_not_supported(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, noise(300, 300)[..., 0], tile=(256, 256), metadata=None, compression=34712)
    with pytest.raises(UserError, match=r"slide\.tif.*not 8-bit RGB.*vips"):
        read_header(path, 0.25)
