# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from persam_monai.slides import Slide
from persam_monai.slides import slide as slide_module
from tests.slides.writing import APERIO, decoded_levels, smooth, write_slide


def block_mean(image: np.ndarray, side: int) -> np.ndarray:
    """Mean of the whole blocks of ``side`` × ``side`` pixels."""
    rows, columns = image.shape[0] // side, image.shape[1] // side
    blocks = image[: rows * side, : columns * side].reshape(rows, side, columns, side, 3)
    return np.asarray(blocks.mean(axis=(1, 3)))


def departure(thumbnail: np.ndarray, level: np.ndarray, factor: int) -> float:
    """Largest difference from the means of whole blocks of the level, whose side is ``factor`` or up to half of it."""
    allowed = {(-(-level.shape[0] // s), -(-level.shape[1] // s), 3): s for s in range(factor // 2 + 1, factor + 1)}
    wanted = block_mean(level, allowed[thumbnail.shape])
    assert np.ptp(wanted) > 60
    return float(np.abs(thumbnail[: wanted.shape[0], : wanted.shape[1]] - wanted).max())


@pytest.mark.parametrize(
    ("form", "tile"),
    [
        ("jpeg 420", (256, 256)),
        ("jpeg 420", (240, 240)),
        ("jpeg 444", (48, 64)),
        ("jpeg rgb shared tables", (272, 256)),
        ("lzw predictor", (240, 256)),
        ("jpeg2000", (256, 256)),
    ],
)
def test_a_slide_of_one_level_is_averaged(tmp_path: Path, form: str, tile: tuple[int, int]) -> None:
    path = write_slide(tmp_path / "slide.tif", [smooth(501, 603)], form, tile)
    (level,) = decoded_levels(path)
    with Slide(path) as slide:
        assert len(slide.levels) == 1
        for factor in (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32):
            # JPEG is shrunk in the frequencies of its blocks, which rounds once more and does not smooth the colours.
            limit = 2 if form.startswith("jpeg ") else 0.51
            assert departure(slide.thumbnail(0.25 * factor), level, factor) <= limit, factor


def test_the_coarsest_level_that_is_fine_enough_is_averaged(tmp_path: Path) -> None:
    levels = [smooth(800, 960, 0), smooth(200, 240, 1), smooth(50, 60, 2)]  # 0.25, 1 and 4 µm: other pictures
    path = write_slide(tmp_path / "slide.tif", levels, "deflate")
    with Slide(path) as slide:
        for mpp, level, factor in [(0.5, 0, 2), (0.99, 0, 3), (1.0, 1, 1), (3.0, 1, 3), (4.0, 2, 1), (8.1, 2, 2)]:
            assert departure(slide.thumbnail(mpp), levels[level], factor) <= 0.51


def test_a_slide_coarser_than_the_thumbnail_is_shown_as_it_is(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "slide.tif", [smooth(300, 400)], "lzw")
    with Slide(path) as slide:
        np.testing.assert_array_equal(slide.thumbnail(0.1), decoded_levels(path)[0])


@pytest.mark.parametrize("strip", [1, 500])
@pytest.mark.parametrize("reader", ["tiles", "openslide", "cucim"])
def test_strips_and_threads_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, strip: int
) -> None:
    path = write_slide(tmp_path / "slide.tif", [smooth(900, 300)], "jpeg 420")
    with Slide(path, backend=reader) as slide:
        for mpp in (0.25, 2.0, 2.5):
            wanted = slide.thumbnail(mpp)
            with monkeypatch.context() as change:
                change.setattr(slide_module, "STRIP", strip)
                for threads in (1, 3):
                    np.testing.assert_array_equal(slide.thumbnail(mpp, threads), wanted)


@pytest.mark.skipif(not APERIO.exists(), reason="needs the slide CMU-1-Small-Region.svs")
def test_a_real_slides_thumbnail_is_its_mean() -> None:
    with Slide(APERIO) as slide:
        thumbnail = slide.thumbnail(8.0, threads=2)
    wanted = block_mean(decoded_levels(APERIO)[0], 16)
    difference = np.abs(thumbnail[: wanted.shape[0], : wanted.shape[1]] - wanted)
    assert difference.max() <= 3  # sharp edges between dark and light tissue, where shrinking clips less than decoding
    assert difference.mean() < 0.5
