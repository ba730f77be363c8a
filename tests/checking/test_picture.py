# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from persam_monai.checking import picture_names
from persam_monai.cohort import Cohort
from persam_monai.data import PatchSettings, SlideIndex, index_slide
from persam_monai.picture import OUTLINE, PATCH, SIDE, choose_patches, draw_picture
from tests.checking.conftest import HALF_SIDE, HALF_TISSUE

SCALE = SIDE / HALF_SIDE


@pytest.fixture(scope="module")
def index(half: Path, cohort: Cohort) -> SlideIndex:
    return index_slide(replace(cohort.entries[0], path=half), PatchSettings(mpp=1.0))


def drawn(half: Path, index: SlideIndex, place: Path, patches: int, seed: int = 0) -> np.ndarray:
    """The picture [h, w, 3] of the slide, without the footer."""
    draw_picture(index, "half.tif", patches, seed, place)
    assert [path.name for path in place.parent.iterdir()] == [place.name]
    with Image.open(place) as picture:
        assert picture.width == SIDE < picture.height <= 2000
        return np.asarray(picture)[:SIDE]


def test_the_outline_follows_the_border_of_the_tissue(half: Path, index: SlideIndex, tmp_path: Path) -> None:
    pixels = drawn(half, index, tmp_path / "half.png", patches=0)
    rows, columns = np.nonzero((pixels == OUTLINE).all(axis=2))
    assert len(np.unique(rows)) == SIDE
    assert np.abs(columns - HALF_TISSUE * SCALE).max() <= 2 * 8 * SCALE  # two mask pixels
    glass = pixels[:, int(HALF_TISSUE * SCALE) + 20 :]
    assert np.abs(glass.astype(int) - 243).max() <= 3


def test_patches_are_framed_where_they_are_drawn(half: Path, index: SlideIndex, tmp_path: Path) -> None:
    pixels = drawn(half, index, tmp_path / "half.png", patches=6, seed=5)
    corners = choose_patches(index, "half.tif", 6, 5)
    assert len(np.unique(corners // 256, axis=0)) == 6
    yellow = (pixels == PATCH).all(axis=2)
    for left, top, right, bottom in np.hstack([corners, corners + 224]) * SCALE:
        frame = np.zeros_like(yellow)
        frame[round(top) : round(bottom), round(left) : round(right)] = True
        frame &= ~ndimage.binary_erosion(frame, iterations=2)
        assert yellow[frame].mean() > 0.9  # neighbours may cross it
        yellow &= ~frame
    assert not yellow.any()


def test_the_same_seed_draws_the_same_patches_and_another_one_others(index: SlideIndex) -> None:
    first, again, other = (choose_patches(index, "half.tif", 10, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(choose_patches(index, "half.tif", 10**6, 0)) == len(index.cells)


def test_no_two_slides_share_a_picture(cohort: Cohort) -> None:
    paths = [Path(path) for path in ("/a/s.svs", "/a/s.tif", "/b/S.svs", "/b/s-2.svs", "/b/s.2")]
    names = picture_names([replace(cohort.entries[0], slide=str(path), path=path) for path in paths])
    assert list(names.values()) == ["s.png", "s-2.png", "S-3.png", "s-2-2.png", "s.2.png"]
