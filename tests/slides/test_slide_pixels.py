# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from persam_monai.errors import UserError
from persam_monai.slides import Slide
from persam_monai.synthetic import write_pyramid
from tests.slides.test_resample import integral
from tests.slides.writing import cut

WIDTH, HEIGHT = 1500, 1204  # neither a multiple of the 256 tile; 375 × 301 on the second level
PLACES = np.array([[0, 0], [333, 517], [256, 256], [1200, 900]])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, picture: Callable[..., np.ndarray]) -> Path:
    path = tmp_path_factory.mktemp("pixels") / "slide.tif"
    write_pyramid(path, picture(HEIGHT, WIDTH), mpp=0.25)
    return path


@pytest.fixture(scope="module")
def decoded(path: Path) -> list[np.ndarray]:
    """The levels as another reader decodes them."""
    with tifffile.TiffFile(path) as file:
        return [page.asarray() for page in file.pages]


@pytest.fixture(params=["tiles", "cucim", "openslide"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each way to read pixels."""
    return str(request.param)


@pytest.mark.parametrize("mpp", [0.25, 0.26, 0.24])
def test_patches_are_the_pixels_of_the_slide_within_ten_percent_of_its_resolution(
    path: Path, decoded: list[np.ndarray], mpp: float, backend: str
) -> None:
    with Slide(path, backend=backend) as slide:
        patches = slide.read_patches(PLACES, 224, mpp, threads=2)
    assert patches.dtype == np.uint8
    np.testing.assert_array_equal(patches, np.stack([cut(decoded[0], x, y, 224, 224) for x, y in PLACES]))


def test_a_coarser_level_that_fits_is_read_as_it_is(path: Path, decoded: list[np.ndarray], backend: str) -> None:
    with Slide(path, backend=backend) as slide:
        patches = slide.read_patches(PLACES, 64, 1.0)
    np.testing.assert_array_equal(patches, np.stack([cut(decoded[1], x // 4, y // 4, 64, 64) for x, y in PLACES]))


@pytest.mark.parametrize(("mpp", "level", "step", "side"), [(0.5, 0, 1, 128), (0.625, 0, 1, 160), (2.0, 1, 4, 128)])
def test_between_levels_a_larger_region_is_averaged(
    path: Path, decoded: list[np.ndarray], mpp: float, level: int, step: int, side: int, backend: str
) -> None:
    places = np.array([[0, 0], [332, 516]])
    with Slide(path, backend=backend) as slide:
        patches = slide.read_patches(places, 64, mpp)
    for patch, (x, y) in zip(patches, places, strict=True):
        region = Image.fromarray(cut(decoded[level], x // step, y // step, side, side))
        wanted = np.asarray(region.resize((64, 64), Image.Resampling.BOX, (0, 0, side, side))).astype(int)
        if side % 64 == 0:  # with parts of pixels, Pillow's box takes whole ones; test_resample.py has those
            assert np.abs(patch - wanted).max() <= 1
        exact = integral(cut(decoded[level], x // step, y // step, side, side), 64, 64)
        assert np.abs(patch - exact).max() <= 1


def test_one_patch_reads_like_many_and_none_like_none(path: Path, backend: str) -> None:
    with Slide(path, backend=backend) as slide:
        together = slide.read_patches(PLACES, 96, 0.25)
        for place, patch in zip(PLACES, together, strict=True):
            np.testing.assert_array_equal(slide.read_patches(place[None], 96, 0.25)[0], patch)
        assert slide.read_patches(PLACES[:0], 96, 0.25).shape == (0, 96, 96, 3)


@pytest.mark.parametrize(("mpp", "level", "step"), [(0.25, 0, 1), (1.0, 1, 4)])
@pytest.mark.parametrize("place", [(1400, 200), (40, 1160), (1480, 1200), (1500, 0), (5000, 5000)])
def test_beyond_the_slide_pixels_are_white(
    path: Path, decoded: list[np.ndarray], mpp: float, level: int, step: int, place: tuple[int, int], backend: str
) -> None:
    inside = (0, 0)
    wanted = cut(decoded[level], place[0] // step, place[1] // step, 120, 120)
    assert (wanted == 255).all(axis=2).any()
    with Slide(path, backend=backend) as slide:
        np.testing.assert_array_equal(slide.read_patches(np.array([place, inside]), 120, mpp)[0], wanted)
        np.testing.assert_array_equal(slide.read_patches(np.array([place]), 120, mpp)[0], wanted)


def test_before_the_slide_pixels_are_white(path: Path, decoded: list[np.ndarray], backend: str) -> None:
    with Slide(path, backend=backend) as slide:
        patch = slide.read_patches(np.array([[-20, -30]]), 64, 0.25)[0]
    assert (patch[:30] == 255).all()
    assert (patch[:, :20] == 255).all()
    np.testing.assert_array_equal(patch[30:, 20:], decoded[0][:34, :44])


@pytest.mark.parametrize(
    ("mpp", "level", "region", "resample"),
    [
        (0.25, 0, 224, False),
        (0.27, 0, 224, False),
        (0.3, 0, 269, True),  # 224 · 0.3 / 0.25 = 268.8
        (0.5, 0, 448, True),
        (0.9, 0, 807, True),  # 1.0 is 11 % coarser than 0.9
        (0.95, 1, 224, False),
        (1.0, 1, 224, False),
        (2.0, 1, 448, True),
    ],
)
def test_the_coarsest_level_that_is_fine_enough_is_read(
    path: Path, mpp: float, level: int, region: int, resample: bool, backend: str
) -> None:
    with Slide(path, backend=backend) as slide:
        assert slide.plan(224, mpp) == (level, (region, region), resample)


@pytest.mark.parametrize("own", [0.499, 0.333, 0.549, 1.07, 3.1])
def test_detail_that_is_not_in_the_file_is_refused_with_a_resolution_that_works(
    path: Path, own: float, backend: str
) -> None:
    with Slide(path, own, backend) as slide:
        with pytest.raises(UserError, match="--mpp") as caught:
            slide.plan(224, 0.25)
        assert str(path) in str(caught.value)
        suggested = float(str(caught.value).split("--mpp ")[1].split()[0])
        assert slide.plan(224, suggested).level == 0
    if own == 0.499:
        assert suggested == 0.5


def test_the_resolution_is_the_files_own_or_the_one_given(path: Path) -> None:
    with Slide(path) as own, Slide(path, 0.4) as given:
        assert own.mpp == pytest.approx((0.25, 0.25))
        assert given.mpp == (0.4, 0.4)
        assert given.levels[1].mpp[0] == pytest.approx(0.4 * own.levels[1].downsample[0])
        assert own.dimensions == (WIDTH, HEIGHT)


def test_a_closed_slide_is_not_read(path: Path, backend: str) -> None:
    with Slide(path, backend=backend) as slide:
        pass
    with pytest.raises(UserError, match=r"slide\.tif"):
        slide.read_patches(PLACES, 64, 0.25)
