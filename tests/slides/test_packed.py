# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from persam_monai.slides import TissueMask
from persam_monai.slides.tissue import PackedMask

SCALE = (7.5, 9.0)  # level-0 pixels per mask pixel


@pytest.mark.parametrize("width", [1, 7, 8, 9, 64, 65])
def test_packing_loses_nothing(width: int) -> None:
    tissue = TissueMask(np.random.default_rng(width).random((20, width)) < 0.5, SCALE)
    packed = PackedMask.of(tissue)
    assert packed.bits.nbytes == 20 * -(-width // 8)  # a bit per pixel
    again = packed.unpack()
    np.testing.assert_array_equal(again.mask, tissue.mask)
    assert (again.mask.dtype, again.scale) == (bool, SCALE)


@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_a_share_is_the_mean_where_no_more_than_sixteen_pixels_are_covered(count: int) -> None:
    mask = np.random.default_rng(0).random((60, 83)) < 0.4
    rng = np.random.default_rng(1)
    places = np.stack([rng.integers(0, 83 - count, 200), rng.integers(0, 60 - count, 200)], axis=1)
    found = PackedMask.of(TissueMask(mask, SCALE)).share(places * np.array(SCALE), (count * 7.5, count * 9.0))
    wanted = [mask[y : y + count, x : x + count].mean() for x, y in places]
    np.testing.assert_allclose(found, wanted)


def test_a_share_of_many_pixels_is_nearly_their_mean() -> None:
    mask = gaussian_filter(np.random.default_rng(0).normal(size=(600, 700)), 8) > 0
    places = np.random.default_rng(1).integers(0, 500, (300, 2))
    found = PackedMask.of(TissueMask(mask, (1.0, 1.0))).share(places, (100.0, 80.0))
    wanted = np.array([mask[y : y + 80, x : x + 100].mean() for x, y in places])
    assert np.ptp(wanted) > 0.3
    assert np.abs(found - wanted).max() < 0.05
    assert abs((found - wanted).mean()) < 0.005


def test_a_patch_smaller_than_a_mask_pixel_is_what_that_pixel_is() -> None:
    packed = PackedMask.of(TissueMask(np.array([[True, False], [False, True]]), (100.0, 100.0)))
    places = np.array([[10, 10], [110, 10], [70, 130], [199, 199], [90, 20]])
    np.testing.assert_array_equal(packed.share(places, (30.0, 30.0)), [1, 0, 0, 1, 0])  # the last: its middle is at 105


def test_beyond_the_mask_its_border_counts() -> None:
    mask = np.zeros((10, 10), bool)
    mask[:, -1] = True
    packed = PackedMask.of(TissueMask(mask, (10.0, 10.0)))
    np.testing.assert_array_equal(packed.share(np.array([[95, 40], [300, 300], [-50, 0]]), (20.0, 20.0)), [1, 1, 0])
