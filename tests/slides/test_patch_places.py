# SPDX-License-Identifier: Apache-2.0
"""Which places patches are drawn from, and that each is as likely as the next."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import chisquare

from persam_monai.slides import PatchCells, Slide, TissueMask, patch_cells
from tests.slides.writing import noise, write_slide

DRAWS = 200_000
# All 193 × 193 places of 64 pixels in the first tile of 256, as one cell.
UPPER_LEFT: dict[str, Any] = {"origins": np.zeros((1, 2), int), "choices": np.full((1, 2), 193)}
LIKELY = 1e-3  # least probability of the counts if all places were alike; the seeds are fixed, so no test is flaky

OpenSized = Callable[..., Slide]


@pytest.fixture(scope="module")
def sized(tmp_path_factory: pytest.TempPathFactory) -> OpenSized:
    """Opens slides of a given width, height and tile that cost nothing to write: what is in them does not matter."""
    folder = tmp_path_factory.mktemp("sized")
    opened: dict[tuple[int, ...], Slide] = {}

    def open_sized(width: int, height: int, tile: tuple[int, int]) -> Slide:
        key = (width, height, *tile)
        if key not in opened:
            picture = np.broadcast_to(np.uint8(180), (height, width, 3))
            path = write_slide(folder / f"{key}.tif", [picture], "lzw", tile)
            opened[key] = Slide(path)
        return opened[key]

    return open_sized


def everywhere(slide: Slide) -> TissueMask:
    return TissueMask(np.ones((8, 8), bool), (slide.dimensions[0] / 8, slide.dimensions[1] / 8))


def draw(cells: PatchCells, count: int = DRAWS, seed: int = 0) -> np.ndarray:
    """``count`` places [count, 2], each from a cell drawn from all alike."""
    generator = np.random.default_rng(seed)
    return cells.locate(generator.integers(0, len(cells), count), generator)


def fewest_tiles(side: int, tile: int, extent: int) -> list[int]:
    """By looking at each: the places where ``side`` pixels touch ceil(side / tile) tiles and lie in the slide."""
    places = []
    for x in range(extent - side + 1):
        if len({pixel // tile for pixel in range(x, x + side)}) == math.ceil(side / tile):
            places.append(x)
    return places


def assert_alike(places: np.ndarray, allowed: tuple[list[int], list[int]]) -> None:
    """The places drawn are exactly those allowed, and all as often: each axis on its own, and both together."""
    for axis in (0, 1):
        found, counts = np.unique(places[:, axis], return_counts=True)
        np.testing.assert_array_equal(found, allowed[axis])
        assert chisquare(counts).pvalue > LIKELY
    ranks = [np.searchsorted(allowed[axis], places[:, axis]) for axis in (0, 1)]
    coarse = [rank * 12 // len(allowed[axis]) for axis, rank in enumerate(ranks)]
    counts = np.bincount(coarse[0] * 12 + coarse[1], minlength=144)
    bins = [np.bincount(np.arange(len(places)) * 12 // len(places), minlength=12) for places in allowed]
    expected = np.outer(*bins).ravel()
    assert chisquare(counts[expected > 0], expected[expected > 0] * len(places) / expected.sum()).pvalue > LIKELY


@pytest.mark.parametrize(
    ("size", "mpp", "tile", "extent"),
    [
        (56, 0.25, (64, 64), (512, 384)),  # within a tile: 9 places a tile along each axis
        (112, 0.5, (64, 64), (1024, 768)),  # reads 224 px: four tiles, 33 places in each
        (224, 0.5, (256, 256), (1024, 1536)),  # 448 px: two tiles, 65 places in each
        (64, 0.25, (64, 64), (512, 512)),  # a whole tile
        (44, 0.25, (64, 48), (640, 480)),  # tiles that are not square
        (56, 0.25, (512, 256), (1024, 1024)),  # tiles of many patches
    ],
)
def test_snapped_places_are_those_that_touch_the_fewest_tiles_evenly(
    sized: OpenSized, size: int, mpp: float, tile: tuple[int, int], extent: tuple[int, int]
) -> None:
    slide = sized(*extent, tile)
    side = round(size * mpp / 0.25)
    allowed = fewest_tiles(side, tile[0], extent[0]), fewest_tiles(side, tile[1], extent[1])
    cells = patch_cells(slide, everywhere(slide), size, mpp)
    places = draw(cells)
    for axis in (0, 1):
        found, counts = np.unique(places[:, axis], return_counts=True)
        np.testing.assert_array_equal(found, allowed[axis])
        first, last = cells.choices[0, axis], cells.choices[-1, axis]  # may be larger than the others
        parts = np.array_split(counts[first:-last], 3)
        assert all(part.mean() == pytest.approx(counts[first:-last].mean(), rel=0.1) for part in parts if len(part))


@pytest.mark.parametrize("tile", [(64, 64), (256, 256)])
@pytest.mark.parametrize(("size", "mpp"), [(50, 0.25), (80, 0.25), (40, 0.5)])
def test_uniform_places_are_all_places_alike(sized: OpenSized, tile: tuple[int, int], size: int, mpp: float) -> None:
    side = round(size * mpp / 0.25)
    extent = (side * 7 - 1, side * 5 - 1)  # so that the places, not the pixels, are a multiple of the cell
    slide = sized(*extent, tile)
    places = draw(patch_cells(slide, everywhere(slide), size, mpp, "uniform"))
    assert_alike(places, (list(range(extent[0] - side + 1)), list(range(extent[1] - side + 1))))


@pytest.mark.parametrize("kind", ["square", "blobs", "core"])
@pytest.mark.parametrize("mpp", [0.25, 0.4])
@pytest.mark.parametrize(
    "tile", [(128, 128), (240, 240), (256, 256), (512, 512), (1024, 1024), (2048, 2048), (512, 128), (4096, 128)]
)
def test_how_many_patches_a_slide_gives_follows_its_tissue_not_its_tiles(
    sized: OpenSized, tile: tuple[int, int], mpp: float, kind: str
) -> None:
    slide = sized(6144, 6144, tile)
    side = slide.plan(224, mpp).region[0]
    y, x = np.mgrid[:192, :192] - 95.5  # mask pixels of 32 × 32
    mask = {
        "square": np.maximum(abs(x), abs(y)) < 80,
        "blobs": gaussian_filter(np.random.default_rng(0).normal(size=(192, 192)), 20) > 0,
        "core": (abs(x - y) < 17) & (abs(x + y) < 150),  # of a needle: two or three patches wide
    }[kind]
    tissue = TissueMask(mask, (32.0, 32.0))
    cells = patch_cells(slide, tissue, 224, mpp)
    assert len(cells) == len(patch_cells(slide, tissue, 224, mpp, "uniform"))
    assert len(cells) == pytest.approx(mask.sum() * 32**2 / side**2, rel=0.05)
    generator = np.random.default_rng(0)
    epochs = [cells.locate(np.arange(len(cells)), generator) for _ in range(20)]
    assert all(len(np.unique(places, axis=0)) == len(cells) for places in epochs)
    places = np.concatenate(epochs)
    first, last = places // tile, (places + side - 1) // tile
    np.testing.assert_array_equal(np.unique(last - first, axis=0), [np.ceil(side / np.array(tile)) - 1])
    assert (tissue.fraction(places, np.full(places.shape, side)) < 0.45).mean() < 0.01


@pytest.mark.parametrize(("extent", "tile"), [(3000, 2048), (2600, 1024), (2000, 512)])
def test_places_are_spread_over_the_tiles_by_their_area(sized: OpenSized, extent: int, tile: int) -> None:
    slide = sized(extent, extent, (tile, tile))
    counts = np.bincount(draw(patch_cells(slide, everywhere(slide), 100, 0.25), 50_000)[:, 0] // tile)
    areas = np.diff([*range(0, extent, tile), extent])
    np.testing.assert_allclose(counts / 50_000, areas / extent, rtol=0.04)


def test_a_level_in_strips_is_sampled_uniformly(sized: OpenSized) -> None:
    slide = sized(300, 250, (64, 64))
    level = slide.levels[0]._replace(tile=(0, 0))
    untiled = Slide(slide.path, header=slide.header._replace(levels=(level,)))
    snapped, uniform = (patch_cells(untiled, everywhere(slide), 50, 0.25, name) for name in ("snapped", "uniform"))
    np.testing.assert_array_equal(snapped.choices, uniform.choices)
    np.testing.assert_array_equal(draw(snapped, 1000), draw(uniform, 1000))
    untiled.close()


def test_grid_places_are_the_cells_alike(sized: OpenSized) -> None:
    slide = sized(512, 384, (64, 64))
    places = draw(patch_cells(slide, everywhere(slide), 50, 0.25, "grid"), 20_000)
    assert_alike(places, (list(range(0, 463, 50)), list(range(0, 335, 50))))


@pytest.mark.parametrize("sampling", ["snapped", "uniform", "grid"])
@pytest.mark.parametrize(("size", "mpp"), [(50, 0.25), (64, 0.25), (70, 0.25), (50, 0.6), (100, 0.5)])
@pytest.mark.parametrize("extent", [(333, 259), (200, 129), (256, 192)])
def test_no_patch_leaves_the_slide_and_every_place_is_reached(
    sized: OpenSized, sampling: str, size: int, mpp: float, extent: tuple[int, int]
) -> None:
    slide = sized(*extent, (64, 48))
    side = slide.plan(size, mpp).region[0]
    cells = patch_cells(slide, everywhere(slide), size, mpp, sampling)
    if side > min(extent):
        assert len(cells) == 0
        return
    places = draw(cells, 30_000)
    for axis, tile in ((0, 64), (1, 48)):
        allowed = {
            "snapped": fewest_tiles(side, tile, extent[axis]),
            "uniform": list(range(extent[axis] - side + 1)),
            "grid": list(range(0, extent[axis] - side + 1, side)),
        }[sampling]
        np.testing.assert_array_equal(np.unique(places[:, axis]), allowed)


def test_places_of_a_lower_level_are_pixels_of_that_level(tmp_path: Path) -> None:
    """With an uneven downsample a place is a level-0 pixel that lies in the level's pixel it stands for."""
    path = write_slide(tmp_path / "slide.tif", [noise(999, 1203), noise(250, 301)], "lzw", (64, 64))
    with Slide(path) as slide:
        downsample, mpp = slide.levels[1].downsample[0], slide.levels[1].mpp[0]
        places = draw(patch_cells(slide, everywhere(slide), 50, mpp), 50_000)
        pixels = np.floor(places / downsample + 1e-6).astype(int)
        np.testing.assert_array_equal(np.unique(pixels[:, 0]), fewest_tiles(50, 64, 301))
        np.testing.assert_array_equal(np.unique(pixels[:, 1]), fewest_tiles(50, 64, 250))
        some = places[:20]
        patches = slide.read_patches(some, 50, mpp)
    wanted = [noise(250, 301)[y : y + 50, x : x + 50] for x, y in pixels[:20]]
    np.testing.assert_array_equal(patches, np.stack(wanted))


@pytest.mark.parametrize("sampling", ["snapped", "uniform"])
@pytest.mark.parametrize("least", [0.25, 0.5, 0.75])
def test_patches_are_tissue_wherever_their_cell_allows_it(sized: OpenSized, sampling: str, least: float) -> None:
    slide = sized(1024, 768, (64, 64))
    blobs = gaussian_filter(np.random.default_rng(3).normal(size=(768, 1024)), 25)
    mask = blobs > 0  # one mask pixel per slide pixel
    cells = patch_cells(slide, TissueMask(mask, (1.0, 1.0)), 48, 0.25, sampling, least)
    sums = np.pad(mask, ((1, 0), (1, 0))).cumsum(0, np.int64).cumsum(1)
    share = (sums[48:, 48:] - sums[:-48, 48:] - sums[48:, :-48] + sums[:-48, :-48]) / 48**2  # of each place (y, x)
    suited = []  # how many of the places of each cell have enough tissue
    for origin, choices in zip(cells.origins, cells.choices, strict=True):
        x, y = (cells.pixels(origin + np.arange(max(choices))[:, None])[:count, i] for i, count in enumerate(choices))
        suited.append((share[np.ix_(y, x)] >= least).mean())
    chance = np.array(suited)
    chosen = np.arange(len(cells)).repeat(100)
    x, y = cells.locate(chosen, np.random.default_rng(0)).T
    lacking = (share[y, x] < least - 0.03).reshape(len(cells), 100).mean(axis=1)  # points 3 pixels apart miss a little
    assert chance.min() > 0.2  # a quarter, judged at 16 places
    assert lacking.mean() < 1 / 256
    assert (1 - chance).mean() > 0.02  # of which chance alone would have failed


@pytest.mark.parametrize(("sampling", "size"), [("uniform", 48), ("snapped", 48), ("snapped", 100)])
def test_no_side_of_the_tissue_is_preferred(sized: OpenSized, sampling: str, size: int) -> None:
    slide = sized(1024, 768, (64, 64))
    rows, columns = np.ogrid[:768, :1024]
    disc = TissueMask((columns - 512) ** 2 + (rows - 384) ** 2 < 300**2, (1.0, 1.0))
    cells = patch_cells(slide, disc, size, 0.25, sampling)  # 48 pixels: one tile; 100: two
    chosen = np.arange(len(cells)).repeat(200)
    centres = cells.locate(chosen, np.random.default_rng(0)) + size / 2
    assert np.abs(centres.mean(axis=0) - (512, 384)).max() < size / 5


def test_places_with_enough_tissue_are_alike(sized: OpenSized) -> None:
    """Within a cell, tissue decides whether a place is taken, not how often."""
    slide = sized(512, 512, (256, 256))
    mask = np.zeros((512, 512), bool)
    mask[:, :256] = True  # the left tiles; nothing of the right ones
    mask[:256, 100:256] = False
    cells = patch_cells(slide, TissueMask(mask, (1.0, 1.0)), 64, 0.25, "snapped", 0.35)
    cells = replace(cells, **UPPER_LEFT)  # tissue in columns 0..99
    places = cells.locate(np.zeros(DRAWS // 4, int), np.random.default_rng(0))
    share = np.clip(100 - places[:, 0], 0, 64) / 64
    enough = places[share >= 0.35 + 1 / 16]  # the sixteen points per axis cannot tell less
    found, counts = np.unique(enough[:, 0], return_counts=True)
    np.testing.assert_array_equal(found, np.arange(found[-1] + 1))
    assert chisquare(counts).pvalue > LIKELY
    assert chisquare(np.bincount(places[:, 1], minlength=193)).pvalue > LIKELY
    assert (share < 0.25).mean() < 0.001  # (1 − 75 / 193) ** 16, those that found nothing in sixteen draws


def test_where_no_place_has_enough_tissue_the_best_draw_is_taken(sized: OpenSized) -> None:
    slide = sized(512, 512, (256, 256))
    mask = np.zeros((512, 512), bool)
    mask[90:150, :] = True
    cells = patch_cells(slide, TissueMask(mask, (1.0, 1.0)), 64, 0.25, "snapped", 0.05)
    strict = replace(cells, **UPPER_LEFT, min_tissue=0.99)
    places = strict.locate(np.zeros(20_000, int), np.random.default_rng(0))
    share = np.array([mask[y : y + 64, x].mean() for x, y in places])
    allowed = np.array([mask[y : y + 64, 0].mean() for y in range(193)])
    assert allowed.max() < 0.99
    best_of_sixteen = np.random.default_rng(1).choice(allowed, (20_000, 16)).max(axis=1)
    assert abs(share.mean() - best_of_sixteen.mean()) < 0.01
    assert share.mean() > 2 * allowed.mean()


def test_the_same_generator_gives_the_same_places(sized: OpenSized) -> None:
    slide = sized(512, 384, (64, 64))
    blobs = TissueMask(gaussian_filter(np.random.default_rng(1).normal(size=(96, 128)), 6) > 0, (4.0, 4.0))
    for sampling in ("snapped", "uniform", "grid"):
        cells = patch_cells(slide, blobs, 50, 0.25, sampling)
        again = patch_cells(slide, blobs, 50, 0.25, sampling)
        np.testing.assert_array_equal(draw(cells, 500, 7), draw(again, 500, 7))
        assert (draw(cells, 500, 7) != draw(cells, 500, 8)).any()
