# SPDX-License-Identifier: Apache-2.0
"""Where the tissue is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import closing, disk, remove_small_holes, remove_small_objects

from persam_monai.slides.slide import Slide

TISSUE_MPP = 8.0  # µm per mask pixel: a patch of 56 µm covers 7 × 7 of them, a 100,000² slide 3,125²
SATURATION_FLOOR = 0.05  # glass and scanner background are greyer than this
SATURATION_CEILING = 0.08  # Otsu splits *within* the tissue when there is dark and pale: pale tissue still counts
SMALLEST_AREA = 64  # mask pixels: specks of dust below, about 64 µm × 64 µm


@dataclass(frozen=True)
class TissueMask:
    """A low-resolution mask of a slide's tissue.

    Attributes:
        mask: ``bool [H, W]``.
        scale: level-0 pixels per mask pixel, x and y.
    """

    mask: np.ndarray
    scale: tuple[float, float]

    def fraction(self, corners: np.ndarray, extents: np.ndarray) -> np.ndarray:
        """How much of each rectangle is tissue.

        Args:
            corners: ``[N, 2]`` upper-left corners (x, y) in level-0 pixels.
            extents: ``[N, 2]`` widths and heights in level-0 pixels.

        Returns:
            ``float [N]`` in 0..1.
        """
        height, width = self.mask.shape
        sums = np.zeros((height + 1, width + 1), np.int64)  # summed-area table
        sums[1:, 1:] = self.mask.cumsum(0).cumsum(1)
        left, right = _span(corners[:, 0], extents[:, 0], self.scale[0], width)
        top, bottom = _span(corners[:, 1], extents[:, 1], self.scale[1], height)
        tissue = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        return tissue / ((right - left) * (bottom - top))


def tissue_mask(slide: Slide, mpp: float = TISSUE_MPP) -> TissueMask:
    """Find the tissue: Otsu's threshold on the saturation of a thumbnail, then a morphological clean-up.

    Stained tissue is coloured, glass is grey. Otsu's threshold (Otsu 1979) is kept between a floor and a ceiling, since
    on a slide that is all glass or all tissue it would split what belongs together.

    Args:
        slide: an open slide.
        mpp: resolution of the mask in µm per pixel.
    """
    thumbnail = slide.thumbnail(mpp)  # [H, W, 3]
    height, width = thumbnail.shape[:2]
    saturation = ndimage.median_filter(_saturation(thumbnail), size=3)
    threshold = float(np.clip(threshold_otsu(saturation), SATURATION_FLOOR, SATURATION_CEILING))
    mask = closing(saturation > threshold, disk(2))
    mask = remove_small_objects(mask, max_size=SMALLEST_AREA)
    mask = remove_small_holes(mask, max_size=SMALLEST_AREA)
    return TissueMask(mask, (slide.dimensions[0] / width, slide.dimensions[1] / height))


def _saturation(image: np.ndarray) -> np.ndarray:
    """HSV saturation of uint8 [H, W, 3] as float32 [H, W] in 0..1; black counts as grey."""
    brightest = image.max(axis=2).astype(np.float32)
    return (brightest - image.min(axis=2)) / np.maximum(brightest, 1)


def _span(start: np.ndarray, length: np.ndarray, scale: float, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last-plus-one mask index that an interval touches, at least one pixel long."""
    first = np.clip(np.round(start / scale).astype(np.int64), 0, limit - 1)
    last = np.clip(np.round((start + length) / scale).astype(np.int64), first + 1, limit)
    return first, last
