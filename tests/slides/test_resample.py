# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from persam_monai.slides.slide import _shrink
from tests.slides.writing import noise


def integral(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The exact mean of ``image`` over each of ``height`` × ``width`` equal rectangles, by its antiderivative."""
    result = image.astype(float)
    for axis, count in ((0, height), (1, width)):
        side = result.shape[axis]
        sums = np.concatenate([np.zeros_like(result.take([0], axis)), result.cumsum(axis)], axis)
        bounds = np.arange(count + 1) * side / count
        below = np.minimum(bounds.astype(int), side - 1)
        shape = [-1 if i == axis else 1 for i in range(3)]
        at = sums.take(below, axis) + result.take(below, axis) * (bounds - below).reshape(shape)
        result = np.diff(at, axis=axis) * count / side
    return result


def test_the_reference_averages_as_one_does_by_hand() -> None:
    row = np.array([10, 20, 60], float)[None, :, None].repeat(3, axis=2)
    np.testing.assert_allclose(integral(row, 1, 2)[0, :, 0], [(10 + 20 / 2) / 1.5, (20 / 2 + 60) / 1.5])


@pytest.mark.parametrize("factor", [1, 2, 3, 7, 10])
@pytest.mark.parametrize(("height", "width"), [(60, 90), (61, 95), (5, 7)])
def test_blocks_become_their_mean_and_the_border_is_repeated(factor: int, height: int, width: int) -> None:
    image = noise(height, width)
    rows, columns = -(-height // factor), -(-width // factor)
    small = _shrink(image, factor)
    assert small.shape == (rows, columns, 3)
    for row, column in [(0, 0), (rows - 1, 0), (0, columns - 1), (rows - 1, columns - 1), (rows // 2, columns // 2)]:
        ys = np.minimum(np.arange(row * factor, (row + 1) * factor), height - 1)
        xs = np.minimum(np.arange(column * factor, (column + 1) * factor), width - 1)
        assert np.abs(small[row, column] - image[np.ix_(ys, xs)].mean(axis=(0, 1))).max() <= 0.51
