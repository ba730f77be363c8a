# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from persam_monai.checking.damage import read_all_tiles, touched_tiles
from persam_monai.cohort import Cohort
from persam_monai.data import PatchSettings, index_slide
from persam_monai.errors import UserError


@pytest.mark.parametrize("sampling", ["snapped", "uniform", "grid"])
@pytest.mark.parametrize("side", [40, 100])
def test_the_tiles_are_those_that_some_patch_can_touch(sampling: str, side: int, cohort: Cohort) -> None:
    patches = PatchSettings(side, sampling=sampling)
    cells = index_slide(cohort.entries[2], patches).cells  # 512 × 512
    kept = np.random.default_rng(0).permutation(len(cells))[:3]
    cells = replace(cells, origins=cells.origins[kept], choices=cells.choices[kept])
    generator = np.random.default_rng(1)
    drawn = np.concatenate([cells.locate(np.arange(len(cells)), generator) for _ in range(3000)])
    for tile in (64, 256):
        touched = {
            (x // tile, y // tile)
            for left, top in np.unique(drawn, axis=0).tolist()
            for x in {*range(left, left + side, tile), left + side - 1}
            for y in {*range(top, top + side, tile), top + side - 1}
        }
        found = touched_tiles(cells, (side, side), (tile, tile), (512, 512))
        assert set(map(tuple, found.tolist())) == touched


@pytest.mark.parametrize("mpp", [0.25, 0.4])
def test_a_whole_slide_is_read_without_complaint(cohort: Cohort, mpp: float) -> None:
    read_all_tiles(index_slide(cohort.entries[0], PatchSettings(mpp=mpp)), 224, mpp)


def test_a_slide_is_given_up_after_some_damage(garbled: Callable[..., Path], cohort: Cohort) -> None:
    entry = replace(cohort.entries[0], path=garbled(*((x, y) for x in range(4) for y in range(4))))
    index = index_slide(entry, PatchSettings())
    with pytest.raises(UserError, match=r"tile 0 from the left, 0 from the top.*perhaps more"):
        read_all_tiles(index, 224, 0.25)


def test_tiles_that_no_patch_touches_are_not_read(garbled: Callable[..., Path], cohort: Cohort) -> None:
    index = index_slide(replace(cohort.entries[0], path=garbled((0, 0))), PatchSettings())
    cells = replace(index.cells, origins=index.cells.origins[1:], choices=index.cells.choices[1:])
    read_all_tiles(index._replace(cells=cells), 224, 0.25)
