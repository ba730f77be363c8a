# SPDX-License-Identifier: Apache-2.0
"""What is painted is measured from the pixels, with scikit-image's own colour deconvolution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, binary_fill_holes, distance_transform_edt, gaussian_filter
from skimage.color import rgb2hed
from skimage.feature import peak_local_max

from persam_monai.synthetic.paint import Painting, Stain, paint_slide
from persam_monai.synthetic.tissue import CELL, Kind

SIZE = 1536


def chance(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


@pytest.fixture(scope="module")
def paintings() -> list[Painting]:
    """One slide of each disease, and one of all three."""
    shown: list[list[Kind]] = [[Kind.DLBCL], [Kind.FL], [Kind.REACTIVE], [Kind.FL, Kind.REACTIVE, Kind.DLBCL]]
    return [paint_slide(chance(seed), SIZE, kinds) for seed, kinds in enumerate(shown)]


def pixels(painting: Painting, kind: Kind) -> np.ndarray:
    """Where the truth says ``kind``, two cells inside its border; bool ``[SIZE, SIZE]``."""
    inside = binary_erosion(painting.kinds == kind, iterations=2)
    return np.kron(inside, np.ones((CELL, CELL), bool))[:SIZE, :SIZE]


def typical_nucleus(painting: Painting, kind: Kind) -> float:
    """Median diameter in pixels of the circles that fit into what haematoxylin stains; nuclei may touch."""
    where = pixels(painting, kind)
    haematoxylin = gaussian_filter(rgb2hed(painting.image)[..., 0], 1.5)
    pale, dark = np.quantile(haematoxylin[where], [0.05, 0.95])
    depth = distance_transform_edt(binary_fill_holes(haematoxylin > 0.6 * pale + 0.4 * dark))
    middles = peak_local_max(gaussian_filter(depth, 1), min_distance=9, threshold_abs=6, labels=where.astype(int))
    return float(2 * np.median(depth[tuple(middles.T)]))


def test_glass_is_bright_and_tissue_is_stained(paintings: list[Painting]) -> None:
    for painting in paintings:
        intensity = painting.image.mean(axis=2)
        assert np.quantile(intensity[pixels(painting, Kind.GLASS)], 0.001) > 225
        tissue = [kind for kind in Kind if kind != Kind.GLASS and pixels(painting, kind).any()]
        assert all(intensity[pixels(painting, kind)].mean() < 200 for kind in tissue)


def test_stroma_is_pink(paintings: list[Painting]) -> None:
    for painting in paintings:
        red, green, blue = painting.image[pixels(painting, Kind.STROMA)].mean(axis=0)
        assert red > blue > green


def test_tissue_covers_about_half_the_slide(paintings: list[Painting]) -> None:
    for painting in paintings:
        assert 0.4 <= np.mean(painting.kinds != Kind.GLASS) <= 0.6


def test_kinds_share_a_slide_in_similar_areas(paintings: list[Painting]) -> None:
    areas = np.bincount(paintings[3].kinds.ravel(), minlength=5)[2:]
    assert areas.min() > 0.6 * areas.max()


def test_nuclei_have_the_size_of_their_disease(paintings: list[Painting]) -> None:
    blasts, centrocytes, lymphocytes = (
        typical_nucleus(paintings[number], kind) for number, kind in enumerate((Kind.DLBCL, Kind.FL, Kind.REACTIVE))
    )
    assert 24 <= lymphocytes < 29  # 7 µm
    assert 29 <= centrocytes < 40  # their shorter axis
    assert 46 <= blasts < 64  # 12 to 15 µm


def test_the_truth_map_tells_the_kinds_of_one_slide_apart(paintings: list[Painting]) -> None:
    painting = paintings[3]
    haematoxylin = gaussian_filter(rgb2hed(painting.image)[..., 0], 2)
    dense = {
        kind: float(np.quantile(haematoxylin[pixels(painting, kind)], 0.9))
        for kind in (Kind.STROMA, Kind.DLBCL, Kind.FL, Kind.REACTIVE)
    }
    assert dense[Kind.STROMA] < dense[Kind.DLBCL] < dense[Kind.FL] < dense[Kind.REACTIVE]


def test_no_disease_leaves_stroma_alone() -> None:
    painting = paint_slide(chance(9), 512, [])
    assert set(np.unique(painting.kinds)) == {Kind.GLASS, Kind.STROMA}


def test_sizes_need_not_be_multiples_of_anything() -> None:
    painting = paint_slide(chance(10), 523, [Kind.DLBCL, Kind.FL])
    assert painting.image.shape == (523, 523, 3)
    assert painting.kinds.shape == (33, 33)
    assert set(np.unique(painting.kinds)) == {Kind.GLASS, Kind.STROMA, Kind.DLBCL, Kind.FL}


def test_slides_differ_in_stain() -> None:
    colours = [paint_slide(chance(seed), 512, []).image[256, 200:312].mean(axis=0) for seed in (20, 21, 22)]
    assert np.ptp(np.array(colours), axis=0).max() > 2


def test_colour_follows_beer_and_lambert() -> None:
    stain = Stain()
    table = stain.table().astype(float)
    np.testing.assert_allclose(table[0, 0], stain.glass, atol=0.5)
    density = -np.log(table[100, 0] / table[0, 0])
    np.testing.assert_allclose(density / np.linalg.norm(density), stain.haematoxylin, atol=0.01)
    both = table[60, 0] * table[0, 90] / table[0, 0]  # intensities multiply, densities add
    np.testing.assert_allclose(table[60, 90], both, atol=1.5)
