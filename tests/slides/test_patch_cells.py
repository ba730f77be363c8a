# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from persam_monai.errors import UserError
from persam_monai.slides import PatchCells, Slide, TissueMask, patch_cells
from persam_monai.synthetic import write_pyramid

WIDTH, HEIGHT = 1600, 1250  # six tiles and 64 px, four tiles and 226 px


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory, picture: Callable[..., np.ndarray]) -> Iterator[Slide]:
    path: Path = tmp_path_factory.mktemp("cells") / "slide.tif"
    write_pyramid(path, picture(HEIGHT, WIDTH), mpp=0.25)
    with Slide(path) as opened:
        yield opened


EVERYWHERE = TissueMask(np.ones((10, 10), bool), (WIDTH / 10, HEIGHT / 10))


def drawn(cells: PatchCells, times: int = 40) -> np.ndarray:
    """Locations [times, N, 2] of many patches in every cell."""
    generator = np.random.default_rng(0)
    return np.stack([cells.locate(np.arange(len(cells)), generator) for _ in range(times)])


def test_a_patch_lies_in_one_tile_of_the_file(slide: Slide) -> None:
    cells = patch_cells(slide, EVERYWHERE, 224, 0.25)
    assert len(cells) == 7 * 5  # as many as a grid has: 1600 // 224 and 1250 // 224
    places = drawn(cells)
    np.testing.assert_array_equal(places // 256, (places + 223) // 256)
    assert (places + 224 <= [WIDTH, HEIGHT]).all()
    assert len(np.unique(places // 256 @ [1, 100])) == 6 * 5  # every tile that is large enough


def test_a_patch_reaches_every_place_of_its_cell_and_of_no_other(slide: Slide) -> None:
    cells = patch_cells(slide, EVERYWHERE, 224, 0.25)
    places = drawn(cells, 2000)
    np.testing.assert_array_equal(places.min(axis=0), cells.corners)
    np.testing.assert_array_equal(places.max(axis=0), cells.locations(cells.origins + cells.choices - 1))
    numbers = [
        {(x + right, y + down) for right in range(columns) for down in range(rows)}
        for (x, y), (columns, rows) in zip(cells.origins.tolist(), cells.choices.tolist(), strict=True)
    ]
    # Whole tiles have 33 places in a row; the last 226 pixels have three.
    assert sum(map(len, numbers)) == len(set().union(*numbers)) == (6 * 33) * (4 * 33 + 3)


def test_a_region_larger_than_a_tile_never_touches_more_tiles_than_it_must(slide: Slide) -> None:
    cells = patch_cells(slide, EVERYWHERE, 224, 0.5)  # reads 448 pixels: 2 × 2 tiles
    assert len(cells) == 3 * 2
    places = drawn(cells)
    np.testing.assert_array_equal((places + 447) // 256 - places // 256, np.ones_like(places))
    assert (places + 448 <= [WIDTH, HEIGHT]).all()


def test_cells_of_a_coarser_level_are_given_in_level_0_pixels(slide: Slide) -> None:
    cells = patch_cells(slide, EVERYWHERE, 100, 1.0)
    downsample = slide.levels[1].downsample[0]  # 1250 / 312 is not quite 4
    assert len(cells) == 4 * 3  # 400 × 312 pixels
    places = np.floor(drawn(cells) / downsample)
    np.testing.assert_array_equal(places // 256, (places + 99) // 256)
    assert (places + 100 <= slide.levels[1].dimensions).all()


def test_a_grid_lays_patch_beside_patch(slide: Slide) -> None:
    cells = patch_cells(slide, EVERYWHERE, 224, 0.25, sampling="grid")
    wanted = [(x, y) for y in range(0, HEIGHT - 223, 224) for x in range(0, WIDTH - 223, 224)]
    np.testing.assert_array_equal(cells.corners, wanted)
    np.testing.assert_array_equal(drawn(cells, 1)[0], wanted)


@pytest.mark.parametrize("sampling", ["grid", "uniform"])
@pytest.mark.parametrize("least", [0.0, 0.3, 0.5, 1.0])
def test_a_cell_is_kept_if_half_of_its_places_have_enough_tissue(slide: Slide, sampling: str, least: float) -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)  # one mask pixel per slide pixel: nothing is rounded
    mask[300:900, 100:1000] = True
    mask[1024 + 50 : 1250, :] = True
    sums = np.pad(mask, ((1, 0), (1, 0))).cumsum(0, np.int64).cumsum(1)
    share = (sums[224:, 224:] - sums[:-224, 224:] - sums[224:, :-224] + sums[:-224, :-224]) / 224**2  # by place (y, x)
    everything = patch_cells(slide, EVERYWHERE, 224, 0.25, sampling)
    admissible = np.array(
        [
            (share[y : y + rows, x : x + columns] >= least).mean()
            for (x, y), (columns, rows) in zip(everything.corners, everything.choices, strict=True)
        ]
    )
    cells = patch_cells(slide, TissueMask(mask, (1.0, 1.0)), 224, 0.25, sampling, least)
    kept = (everything.corners[:, None] == cells.corners).all(axis=2).any(axis=1)
    assert kept.sum() == len(cells) > 0
    assert kept[admissible >= 0.7].all()  # it is judged at 16 places
    assert not kept[admissible <= 0.3].any()


def test_an_unknown_sampling_and_missing_detail_are_refused(slide: Slide) -> None:
    with pytest.raises(UserError, match="'random'; expected one of snapped, uniform, grid"):
        patch_cells(slide, EVERYWHERE, 224, 0.25, sampling="random")
    with pytest.raises(UserError, match=r"--mpp 0\.25"):
        patch_cells(slide, EVERYWHERE, 224, 0.125)


@pytest.mark.parametrize("sampling", ["snapped", "grid", "uniform"])
def test_a_slide_smaller_than_a_patch_has_no_cells(
    tmp_path: Path, picture: Callable[..., np.ndarray], sampling: str
) -> None:
    write_pyramid(tmp_path / "small.tif", picture(200, 300), mpp=0.25)
    with Slide(tmp_path / "small.tif") as small:
        assert len(patch_cells(small, TissueMask(np.ones((2, 2), bool), (150, 100)), 224, 0.25, sampling)) == 0
