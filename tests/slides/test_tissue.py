# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from persam_monai.slides import Slide, TissueMask, tissue_mask
from persam_monai.synthetic import write_pyramid

SIDE, MPP, CELL = 512, 4.0, 2  # px, µm/px, px per mask pixel: 256 × 256 mask pixels
GLASS = (243, 242, 244)
PALE, PINK, EOSIN = (225, 205, 220), (170, 90, 150), (225, 150, 180)
VIOLET, DENSE, BLUISH = (110, 85, 160), (75, 60, 130), (150, 155, 190)  # haematoxylin: rich, dense, as counterstain
BLOOD, DAB, PALE_DAB = (190, 50, 60), (140, 95, 60), (210, 190, 165)
# Ink (black apart): limits of the pen filters in deroneriksson/python-wsi-preprocessing, deephistopath/wsi/filter.py.
BLUE, BRIGHT, NAVY, FAINT = (30, 65, 130), (60, 120, 190), (40, 35, 85), (175, 210, 230)
GREEN, DARK_GREEN, LIGHT_GREEN, BLACK = (30, 75, 60), (50, 60, 40), (170, 210, 200), (30, 30, 33)
APERIO = Path(__file__).parents[3] / "shared" / "slides" / "CMU-1-Small-Region.svs"

Colour = tuple[int, int, int]
Y, X = np.mgrid[:SIDE, :SIDE].astype(np.float32) * (1024 / SIDE)  # positions and lengths: 1024ths of the side


def disc(x: float, y: float, radius: float) -> np.ndarray:
    return np.hypot(X - x, Y - y) < radius


def ring(radius: float, width: float) -> np.ndarray:
    return abs(np.hypot(X - 460, Y - 480) - radius) < width / 2


def line(x0: float, y0: float, x1: float, y1: float, width: float) -> np.ndarray:
    length = np.hypot(x1 - x0, y1 - y0)
    along = ((X - x0) * (x1 - x0) + (Y - y0) * (y1 - y0)) / length
    across = ((Y - y0) * (x1 - x0) - (X - x0) * (y1 - y0)) / length
    return (along > 0) & (along < length) & (abs(across) < width / 2)


TISSUE = disc(430, 460, 280) | disc(850, 200, 90)
STROKES = line(50, 150, 950, 750, 50) | line(100, 950, 450, 450, 40)
RING = ring(400, 50)
EVERYWHERE = np.ones((SIDE, SIDE), bool)


def painted(
    tissue: list[tuple[np.ndarray, Colour]],
    ink: tuple[np.ndarray, Colour] | None = None,
    glass: Colour = GLASS,
    vignette: float = 0.0,
    seed: int = 0,
    noise: float = 3.0,
    blur: float = 1.5,
) -> np.ndarray:
    """Stains, then ink with a blurred edge, add up in optical density on glass; colours are those on GLASS."""
    rng = np.random.default_rng(seed)
    grain = 1 + sum(0.15 * g / g.std() for g in (gaussian_filter(rng.normal(size=(SIDE, SIDE)), s) for s in (0.5, 3)))
    passed = np.ones((SIDE, SIDE, 3))
    for where, colour in tissue:
        passed[where] = (np.array(colour) / GLASS) ** np.clip(grain[where], 0.2, None)[:, None]
    if ink is not None:
        cover = gaussian_filter(ink[0].astype(np.float32), blur)[..., None]
        passed *= 1 - cover + cover * np.array(ink[1]) / GLASS
    light = 1 - vignette * np.hypot(X / 512 - 1, Y / 512 - 1) ** 2 / 2
    image = passed * glass * light[..., None] + rng.normal(0, noise, (SIDE, SIDE, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def found(path: Path, image: np.ndarray, quality: int = 80) -> TissueMask:
    write_pyramid(path, image, MPP, quality=quality)
    with Slide(path) as slide:
        return tissue_mask(slide)


def agreement(mask: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union."""
    small = truth.reshape(SIDE // CELL, CELL, SIDE // CELL, CELL).mean(axis=(1, 3)) > 0.5
    return float((mask & small).sum() / (mask | small).sum())


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("stain", [PALE, PINK, EOSIN, VIOLET, DENSE, BLUISH, BLOOD, DAB, PALE_DAB])
def test_stained_tissue_is_found(tmp_path: Path, stain: Colour, seed: int) -> None:
    mask = found(tmp_path / "slide.tif", painted([(TISSUE, stain)], seed=seed))
    assert mask.scale == (CELL, CELL)
    assert agreement(mask.mask, TISSUE) >= 0.9


@pytest.mark.parametrize("dark", [PINK, DENSE])
def test_dark_and_pale_tissue_are_both_tissue(tmp_path: Path, dark: Colour) -> None:
    both = disc(280, 500, 200), disc(740, 500, 200)
    mask = found(tmp_path / "slide.tif", painted([(both[0], dark), (both[1], PALE)]))
    assert agreement(mask.mask, both[0] | both[1]) >= 0.9


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("ink", [BLUE, BRIGHT, NAVY, GREEN, DARK_GREEN, BLACK])
@pytest.mark.parametrize("stain", [PINK, VIOLET])
def test_pen_across_tissue_is_not_tissue(tmp_path: Path, stain: Colour, ink: Colour, seed: int) -> None:
    mask = found(tmp_path / "slide.tif", painted([(TISSUE, stain)], (STROKES, ink), seed=seed)).mask
    assert agreement(mask, TISSUE & ~STROKES) >= 0.9


@pytest.mark.parametrize("ink", [BLUE, NAVY, FAINT, GREEN, LIGHT_GREEN, BLACK])
def test_a_ring_of_pen_is_left_out_and_what_it_circles_is_kept(tmp_path: Path, ink: Colour) -> None:
    mask = found(tmp_path / "slide.tif", painted([(TISSUE, PALE)], (RING, ink))).mask
    assert agreement(mask, TISSUE & ~RING) >= 0.9


@pytest.mark.parametrize("ink", [BLUE, BRIGHT, GREEN, BLACK])
def test_the_blurred_edge_of_pen_out_of_focus_is_not_tissue(tmp_path: Path, ink: Colour) -> None:
    assert not found(tmp_path / "slide.tif", painted([], (RING, ink), blur=8)).mask.any()


@pytest.mark.parametrize("ink", [BLUE, BRIGHT, NAVY, FAINT, GREEN, LIGHT_GREEN, BLACK])
def test_glass_with_pen_alone_has_no_tissue(tmp_path: Path, ink: Colour) -> None:
    assert not found(tmp_path / "slide.tif", painted([], (STROKES | RING, ink))).mask.any()


LAMPS = pytest.mark.parametrize("glass", [(238, 232, 215), (200, 198, 196), (225, 230, 240), (255, 255, 255)])


@LAMPS
def test_the_lamps_tint_and_falloff_do_not_matter(tmp_path: Path, glass: Colour) -> None:
    mask = found(tmp_path / "slide.tif", painted([(TISSUE, PALE)], glass=glass, vignette=0.35)).mask
    assert agreement(mask, TISSUE) >= 0.9


@LAMPS
def test_tinted_glass_alone_has_no_tissue(tmp_path: Path, glass: Colour) -> None:
    assert not found(tmp_path / "slide.tif", painted([], glass=glass, vignette=0.35)).mask.any()


def test_tinted_glass_is_told_from_white_where_nothing_was_scanned(tmp_path: Path) -> None:
    image = painted([(TISSUE, PALE)], glass=(238, 232, 215))
    image[(X >= 900) | (Y >= 800)] = 255
    scanned = TISSUE & (X < 900) & (Y < 800)
    assert agreement(found(tmp_path / "slide.tif", image).mask, scanned) >= 0.9


def test_strong_compression_does_not_matter(tmp_path: Path) -> None:
    image = painted([(TISSUE, PALE)], noise=12)
    assert agreement(found(tmp_path / "slide.tif", image, quality=30).mask, TISSUE) >= 0.9
    assert not found(tmp_path / "glass.tif", painted([], noise=12), quality=30).mask.any()


@pytest.mark.parametrize("stain", [PINK, EOSIN, VIOLET, DENSE, BLUISH, BLOOD, DAB])
def test_tissue_alone_has_no_glass(tmp_path: Path, stain: Colour) -> None:
    assert found(tmp_path / "slide.tif", painted([(EVERYWHERE, stain)])).mask.all()


def test_pale_tissue_alone_is_tissue(tmp_path: Path) -> None:
    assert found(tmp_path / "slide.tif", painted([(EVERYWHERE, PALE)])).mask.mean() >= 0.9


def test_dust_is_not_tissue_and_vessels_are(tmp_path: Path) -> None:
    truth = disc(350, 450, 250) & ~disc(350, 450, 10)
    dust = np.random.default_rng(0).integers(620, 1000, (40, 2))
    specks = np.any([disc(x, y, 6) for x, y in dust], axis=0)
    mask = found(tmp_path / "slide.tif", painted([(truth | disc(900, 900, 10), PINK), (specks, (90, 88, 86))])).mask
    assert mask[112, 87]  # the vessel's lumen
    assert not mask[155:, 155:].any()  # the dust and the pink speck


@pytest.mark.skipif(not APERIO.is_file(), reason="the Aperio test slide is not beside this checkout")
def test_a_real_slide_keeps_its_dense_epidermis_and_loses_its_glass() -> None:
    with Slide(APERIO) as slide:
        mask, thumbnail = tissue_mask(slide).mask, slide.thumbnail(8.0)
    assert mask[110:125, 55:75].all()  # dense epithelium
    assert not mask[:60, :40].any()  # glass
    assert agreement_with_darkness(mask, thumbnail) >= 0.9


def agreement_with_darkness(mask: np.ndarray, thumbnail: np.ndarray) -> float:
    dark = thumbnail.min(axis=2) < 215  # this slide's glass has 244; it shows neither pen nor dirt to speak of
    return float((mask & dark).sum() / (mask | dark).sum())


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
