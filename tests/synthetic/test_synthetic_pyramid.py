# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
from cucim.clara import CuImage
from scipy.ndimage import gaussian_filter

from persam_monai.synthetic import write_pyramid


def picture(height: int, width: int) -> np.ndarray:
    """Smooth colours with detail, unlike at every place."""
    noise = np.random.default_rng(0).normal(size=(height, width, 3))
    colour, detail = gaussian_filter(noise, (24, 24, 0)), gaussian_filter(noise.mean(axis=2), 5)[:, :, None]
    return np.clip(180 + 2500 * colour + 900 * detail, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "levels"),
    [
        (1024, 1024, [(1024, 1024), (256, 256)]),
        (1500, 2300, [(2300, 1500), (575, 375)]),
        (600, 517, [(517, 600)]),
    ],
)
def test_both_readers_see_the_same_levels_and_pixels(
    tmp_path: Path, height: int, width: int, levels: list[tuple[int, int]]
) -> None:
    image = picture(height, width)
    write_pyramid(tmp_path / "slide.tif", image, mpp=0.25)
    with openslide.OpenSlide(tmp_path / "slide.tif") as slide:
        other = CuImage(str(tmp_path / "slide.tif"))
        assert list(slide.level_dimensions) == levels
        assert [tuple(size) for size in other.resolutions["level_dimensions"]] == levels
        for level, size in enumerate(levels):
            ours = np.asarray(slide.read_region((0, 0), level, size).convert("RGB")).astype(int)
            theirs = np.asarray(other.read_region((0, 0), size, level=level)).astype(int)
            assert np.abs(ours - theirs).max() == 0
            step = 4**level
            wanted = image[: size[1] * step, : size[0] * step].astype(float)
            wanted = wanted.reshape(size[1], step, size[0], step, 3).mean(axis=(1, 3))
            assert np.abs(ours - wanted).mean() < 4  # what JPEG at quality 80 costs
            assert np.abs(ours.mean(axis=(0, 1)) - wanted.mean(axis=(0, 1))).max() < 1  # no colour cast


def test_resolution_tags_carry_the_pixel_size(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "slide.tif", picture(512, 512), mpp=0.2525)
    with openslide.OpenSlide(tmp_path / "slide.tif") as slide:
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.2525, rel=1e-6)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.2525, rel=1e-6)
    assert CuImage(str(tmp_path / "slide.tif")).spacing()[:2] == pytest.approx([0.2525, 0.2525], rel=1e-6)


def test_no_pixel_size_writes_none(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "slide.tif", picture(512, 512), mpp=None)
    with openslide.OpenSlide(tmp_path / "slide.tif") as slide:
        assert "openslide.mpp-x" not in slide.properties
    assert CuImage(str(tmp_path / "slide.tif")).spacing_units()[0] != "micrometer"


def test_file_is_bigtiff_and_reproducible(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif"):
        write_pyramid(tmp_path / name, picture(700, 700), mpp=0.25)
    written = (tmp_path / "a.tif").read_bytes()
    assert written[:4] == b"II\x2b\x00"  # BigTIFF's magic number is 43
    assert written == (tmp_path / "b.tif").read_bytes()


@pytest.mark.parametrize("shape", [(512, 512), (512, 512, 4), (0, 512, 3)])
def test_what_is_not_an_rgb_image_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"uint8 image \[H, W, 3\]"):
        write_pyramid(tmp_path / "slide.tif", np.zeros(shape, np.uint8), mpp=0.25)


@pytest.mark.parametrize(("mpp", "factor"), [(0.0, 4), (-1.0, 4), (0.25, 1)])
def test_impossible_geometry_is_refused(tmp_path: Path, mpp: float, factor: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        write_pyramid(tmp_path / "slide.tif", np.zeros((512, 512, 3), np.uint8), mpp=mpp, factor=factor)
