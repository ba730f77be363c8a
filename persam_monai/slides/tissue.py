# SPDX-License-Identifier: Apache-2.0
"""Where the tissue is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from skimage.filters import threshold_otsu
from skimage.morphology import closing, disk, remove_small_holes, remove_small_objects

from persam_monai.slides.pen import majority, pen_mask
from persam_monai.slides.slide import Slide

TISSUE_MPP = 8.0  # µm per mask pixel: a patch of 56 µm covers 7 × 7 of them, a 100,000² slide 3,125²
SATURATION_FLOOR = 0.04  # above the grain of glass; pale tissue, (225, 205, 220) on glass of (243, 242, 244), has 0.085
SATURATION_CEILING = 0.06  # Otsu splits *within* the tissue when there is dark and pale: pale tissue still counts
SMALLEST_AREA = 64  # mask pixels: specks of dust below, about 64 µm × 64 µm
GLASS_DARKEST = 150  # least value of a colour channel of glass, even under a weak lamp
GLASS_WHITE = 254  # from here: overexposed, or filled in where nothing was scanned; says nothing about the tint
# Glass is tinted by old mounting medium (yellow) and by the lamp, tissue by stain. As shares of the brightest channel:
GLASS_TINT = 0.12  # most between the channels; yellowed glass of (238, 232, 215) has 0.10
GLASS_RED = 0.04  # most between red and green; the palest brown of DAB has more
GLASS_PINK = 0.03  # most that red and blue are above green; pinkish glass of (245, 238, 242) has 0.02
GLASS_BLUE = 0.05  # most that blue is above green; bluish glass of (225, 230, 240) has 0.04, pale haematoxylin more
GLASS_SHARE = 0.01  # of the slide: fewer such pixels may be pale tissue
GLASS_USUAL = 240.0  # white of most scanners, for a slide that shows no glass


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


def tissue_mask(slide: Slide, mpp: float = TISSUE_MPP, threads: int = 1) -> TissueMask:
    """Find the tissue: Otsu's threshold on the saturation of a thumbnail, then a morphological clean-up.

    Stained tissue is coloured, glass is grey once the lamp's colour is divided out. Otsu's threshold (Otsu 1979) is
    kept between a floor and a ceiling, since on a slide that is all glass or all tissue it would split what belongs
    together. Pen marks are left out, also where they cross tissue; :mod:`persam_monai.slides.pen` says which.

    Args:
        slide: an open slide.
        mpp: resolution of the mask in µm per pixel.
        threads: decoding threads.

    Returns:
        The mask, and how many level-0 pixels each of its pixels covers.

    Raises:
        UserError: if the slide's pixels cannot be decoded.
    """
    thumbnail = slide.thumbnail(mpp, threads)  # [H, W, 3]
    height, width = thumbnail.shape[:2]
    density = optical_density(thumbnail, glass_colour(thumbnail))  # [3, H, W]
    pen = pen_mask(density)
    saturation = _saturation(density)
    del density
    levels = np.bincount(saturation[~pen], minlength=256)
    threshold = threshold_otsu(hist=levels) / 255 if np.count_nonzero(levels) > 1 else 0.0
    limit = round(255 * float(np.clip(threshold, SATURATION_FLOOR, SATURATION_CEILING)))
    mask = majority(saturation > limit, 3) & ~pen
    mask = closing(mask, disk(2)) & ~pen
    mask = remove_small_objects(mask, max_size=SMALLEST_AREA)
    mask = remove_small_holes(mask, max_size=SMALLEST_AREA) & ~pen
    return TissueMask(mask, (slide.dimensions[0] / width, slide.dimensions[1] / height))


def glass_colour(image: np.ndarray) -> np.ndarray:
    """The colour of empty glass, by which lamp and camera tint everything.

    Args:
        image: uint8 ``[H, W, 3]``.

    Returns:
        ``float [3]``: the median of the brightest tenth of what may be glass, or a usual white if there is none.
    """
    step = max(1, max(image.shape) // 512)  # a quarter of a million pixels tell a median well enough
    pixels = image[::step, ::step].reshape(-1, 3).astype(np.float32)
    red, green, blue = pixels.T
    most, least = pixels.max(axis=1), pixels.min(axis=1)
    glass = (least > GLASS_DARKEST) & (most < GLASS_WHITE) & (most - least < GLASS_TINT * most)
    glass &= (abs(red - green) < GLASS_RED * most) & (blue - green < GLASS_BLUE * most)
    glass &= np.minimum(red, blue) - green < GLASS_PINK * most
    if np.count_nonzero(glass) < GLASS_SHARE * len(glass):
        return np.full(3, GLASS_USUAL)
    brightness = pixels[glass].sum(axis=1)
    return np.asarray(np.median(pixels[glass][brightness >= np.quantile(brightness, 0.9)], axis=0))


def optical_density(image: np.ndarray, glass: np.ndarray) -> np.ndarray:
    """Natural-log optical density of uint8 [H, W, 3] against ``glass`` [3]; float32 [3, H, W], at least 0."""
    values = np.maximum(np.arange(256), 1)
    tables = np.maximum(np.log(glass[:, None] / values), 0).astype(np.float32)  # [3, 256]
    return np.stack([np.take(table, image[..., channel]) for channel, table in enumerate(tables)])


def _saturation(density: np.ndarray) -> np.ndarray:
    """HSV saturation of the picture without the lamp's tint; uint8 [H, W], 0 to 255."""
    spread = density.max(axis=0) - density.min(axis=0)
    return np.asarray((1 - np.exp(-spread)) * 255 + 0.5).astype(np.uint8)


def _span(start: np.ndarray, length: np.ndarray, scale: float, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last-plus-one mask index that an interval touches, at least one pixel long."""
    first = np.clip(np.round(start / scale).astype(np.int64), 0, limit - 1)
    last = np.clip(np.round((start + length) / scale).astype(np.int64), first + 1, limit)
    return first, last
