# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from persam_monai.slides import Slide, TissueMask, tissue_mask
from persam_monai.synthetic import write_pyramid

SIDE, MPP = 2048, 1.0  # 256 × 256 mask pixels
GLASS, PALE, PINK = (243, 242, 244), (225, 205, 220), (170, 90, 150)


def painted(tissue: np.ndarray, stain: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Tissue of one stain on glass, with grain."""
    grain = gaussian_filter(np.random.default_rng(seed).normal(size=tissue.shape), 1) * 12
    image = np.where(tissue[..., None], np.array(stain), np.array(GLASS)) + grain[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)


def found(path: Path, image: np.ndarray, mpp: float = MPP) -> TissueMask:
    write_pyramid(path, image, mpp)
    with Slide(path) as slide:
        return tissue_mask(slide)


def disc(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.ogrid[:SIDE, :SIDE]
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


@pytest.mark.parametrize("stain", [PALE, PINK])
def test_painted_tissue_is_found(tmp_path: Path, stain: tuple[int, int, int]) -> None:
    truth = disc(700, 900, 500) | disc(1700, 500, 200)
    mask = found(tmp_path / "slide.tif", painted(truth, stain))
    assert mask.scale == (8, 8)
    small = truth.reshape(256, 8, 256, 8).mean(axis=(1, 3)) > 0.5
    assert (mask.mask & small).sum() / (mask.mask | small).sum() >= 0.9


def test_dark_and_pale_tissue_are_both_tissue(tmp_path: Path) -> None:
    truth = disc(600, 1000, 400), disc(1500, 1000, 400)
    image = np.where(truth[0][..., None], painted(truth[0], PINK), painted(truth[1], PALE))
    mask = found(tmp_path / "slide.tif", image)
    small = (truth[0] | truth[1]).reshape(256, 8, 256, 8).mean(axis=(1, 3)) > 0.5
    assert (mask.mask & small).sum() / (mask.mask | small).sum() >= 0.9


def test_glass_alone_has_no_tissue(tmp_path: Path) -> None:
    assert not found(tmp_path / "slide.tif", painted(np.zeros((SIDE, SIDE), bool), PINK)).mask.any()


def test_tissue_alone_has_no_glass(tmp_path: Path) -> None:
    assert found(tmp_path / "slide.tif", painted(np.ones((SIDE, SIDE), bool), PINK)).mask.all()


def test_dust_is_not_tissue_and_vessels_are(tmp_path: Path) -> None:
    truth = disc(700, 900, 500) & ~disc(700, 900, 20)
    mask = found(tmp_path / "slide.tif", painted(truth | disc(1800, 1800, 20), PINK)).mask
    assert mask[112, 87]  # the vessel's lumen
    assert not mask[200:, 200:].any()  # the speck


def test_a_fraction_is_the_mean_of_the_mask() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((40, 60)) < 0.4
    tissue = TissueMask(mask, (8.0, 16.0))
    corners = rng.integers(0, 30, (50, 2))
    extents = rng.integers(1, 20, (50, 2))
    wanted = [mask[y : y + h, x : x + w].mean() for (x, y), (w, h) in zip(corners, extents, strict=True)]
    scale = np.array([8.0, 16.0])
    np.testing.assert_allclose(tissue.fraction(corners * scale, extents * scale), wanted)


def test_a_fraction_of_less_than_a_mask_pixel_is_that_pixel() -> None:
    tissue = TissueMask(np.array([[True, False], [False, False]]), (100.0, 100.0))
    corners = np.array([[10, 10], [110, 10], [190, 190]])
    np.testing.assert_array_equal(tissue.fraction(corners, np.full((3, 2), 5)), [1, 0, 0])
