# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persam_monai.errors import UserError
from persam_monai.slides import Slide, tiles
from tests.slides.writing import cut, decoded_levels, noise, overwrite_list, smooth, write_slide

TILE = (64, 48)
WIDTH, HEIGHT = 300, 230  # five tiles a side, the last of 44 and 38 pixels


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("tiles") / "slide.tif", [noise(HEIGHT, WIDTH)], "jpeg 444", TILE)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """How often each tile was decoded."""
    count: Counter[bytes] = Counter()

    def counting(data: bytes, *arguments: Any) -> np.ndarray:
        count[data] += 1
        return decode(data, *arguments)

    decode = tiles.decode_tile
    monkeypatch.setattr(tiles, "decode_tile", counting)
    return count


@pytest.mark.parametrize(
    ("places", "side", "count"),
    [
        ([[0, 0]], 40, 1),
        ([[0, 0], [3, 5], [24, 8]], 40, 1),  # three patches of one tile
        ([[0, 0]], 49, 2),  # 49 rows reach into the second row of tiles
        ([[64, 48]], 48, 1),
        ([[63, 47]], 48, 4),
        ([[0, 0], [40, 30], [10, 100]], 100, 13),  # 6, 9 and 6 tiles, of which 6 and 2 are shared
        ([[280, 200]], 48, 1),  # out of the slide there is nothing to decode
        ([[-40, -40]], 48, 1),
        ([[500, 500]], 48, 0),
    ],
)
def test_a_tile_is_decoded_once_whoever_wants_it(
    path: Path, decoded: Counter[bytes], places: list[list[int]], side: int, count: int
) -> None:
    wanted = {
        (row, column)
        for x, y in places
        for row in range(5)
        for column in range(5)
        if x < min(column * 64 + 64, WIDTH) and x + side > column * 64
        if y < min(row * 48 + 48, HEIGHT) and y + side > row * 48
    }
    with Slide(path, backend="tiles") as slide:
        slide.read_patches(np.array(places), side, 0.25)
    assert set(decoded.values()) <= {1}
    assert len(decoded) == len(wanted) == count


def test_a_thumbnail_decodes_every_tile_once(path: Path, decoded: Counter[bytes]) -> None:
    with Slide(path, backend="tiles") as slide:
        slide.thumbnail(2.0)
    assert len(decoded) == 25
    assert set(decoded.values()) == {1}


def test_a_large_region_between_tiles_is_whole(path: Path) -> None:
    level = decoded_levels(path)[0]
    places = [(-70, -100), (-1, 5), (63, 47), (150, 100)]
    with Slide(path, backend="tiles") as slide:
        patches = slide.read_patches(np.array(places), 400, 0.25)
    np.testing.assert_array_equal(patches, np.stack([cut(level, x, y, 400, 400) for x, y in places]))


@pytest.mark.parametrize("form", ["jpeg 420", "lzw", "uncompressed"])
@pytest.mark.parametrize("reader", ["tiles", "openslide", "auto"])
def test_a_tile_that_the_file_leaves_out_is_white(tmp_path: Path, form: str, reader: str) -> None:
    """Scanners write no bytes for glass where there is nothing to see (OpenSlide: sparse TIFF)."""
    path = write_slide(tmp_path / "sparse.tif", [noise(600, 600)], form)
    wanted = decoded_levels(path)[0]
    for index, (x, y) in ((4, (256, 256)), (2, (512, 0))):
        overwrite_list(path, "TileByteCounts", index, 0)
        overwrite_list(path, "TileOffsets", index, 0)
        wanted[y : y + 256, x : x + 256] = 255
    places = [(0, 0), (200, 200), (400, 100), (300, 300), (500, 0)]
    with Slide(path, backend=reader) as slide:
        patches = slide.read_patches(np.array(places), 130, 0.25)
        np.testing.assert_array_equal(patches, np.stack([cut(wanted, x, y, 130, 130) for x, y in places]))
        thumbnail = slide.thumbnail(2.0)  # 8 pixels each
    assert (thumbnail[32:64, 32:64] == 255).all()
    assert thumbnail[:32, :32].mean() < 200


def test_a_sparse_tile_does_not_keep_the_pixels_of_the_one_before(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "sparse.tif", [noise(256, 768)], "jpeg 420")
    wanted = decoded_levels(path)[0]
    overwrite_list(path, "TileByteCounts", 1, 0)
    with Slide(path, backend="tiles") as slide:
        patch = slide.read_patches(np.array([[0, 0]]), 700, 0.25)[0, :256]
    np.testing.assert_array_equal(patch[:, :256], wanted[:, :256])
    np.testing.assert_array_equal(patch[:, 256:512], np.full((256, 256, 3), 255))
    np.testing.assert_array_equal(patch[:, 512:], wanted[:, 512:700])


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize(("top", "height"), [(0, 48), (48, 96), (0, 230), (192, 96), (96, 1000), (8, 40)])
def test_a_strip_is_the_rows_that_were_asked_for(tmp_path: Path, factor: int, top: int, height: int) -> None:
    path = write_slide(tmp_path / "slide.tif", [smooth(HEIGHT, WIDTH)], "jpeg 444", TILE)
    level = decoded_levels(path)[0].astype(float)
    with Slide(path, backend="tiles") as slide:
        strip = slide._backend.read_reduced(top, height, 0, factor)
    rows = level[top : min(top + height, HEIGHT)]
    assert strip.shape == (-(-len(rows) // factor), -(-WIDTH // factor), 3)
    whole = len(rows) // factor, WIDTH // factor
    blocks = rows[: whole[0] * factor, : whole[1] * factor].reshape(whole[0], factor, whole[1], factor, 3)
    assert np.abs(strip[: whole[0], : whole[1]] - blocks.mean(axis=(1, 3))).max() <= 2.5


def test_a_level_shrinks_as_far_as_its_tiles_allow(tmp_path: Path) -> None:
    for form, tile, factor in [("jpeg 420", (64, 48), 8), ("jpeg 420", (16, 16), 8), ("lzw", (64, 48), 1)]:
        with Slide(write_slide(tmp_path / "slide.tif", [noise(100, 100)], form, tile), backend="tiles") as slide:
            assert slide._backend.reducible(0) == factor


def test_an_error_names_slide_level_and_tile(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "bad.tif", [noise(600, 700), noise(300, 350)])
    overwrite_list(path, "TileByteCounts", 3, 10, page=1)
    with Slide(path, backend="tiles") as slide:
        slide.read_patches(np.array([[0, 0]]), 100, 0.5)  # the tile beside it is sound
        with pytest.raises(UserError, match=r"bad\.tif.*tile 1 from the left, 1 from the top .* of level 1 is damaged"):
            slide.read_patches(np.array([[600, 520]]), 50, 0.5)
