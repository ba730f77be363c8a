# SPDX-License-Identifier: Apache-2.0
"""Where the tissue is, and where somebody has written on the slide with a felt-tip pen.

Light passes through stain, ink, or both, and their optical densities add up (Beer–Lambert). Tissue stained with
haematoxylin, eosin or DAB absorbs green at least as much as red: red over green density is 0.93 for haematoxylin, 0.07
for eosin, 0.47 for DAB (Ruifrok & Johnston, Anal Quant Cytol Histol 2001). Blue and green inks absorb red above all,
black ink all colours alike and strongly. What is told from that is ink by its density, not by its hue: bluish-violet
haematoxylin stays tissue.

What stays in the tissue: red ink, which has the colour of blood and eosin; violet ink, which has that of haematoxylin;
faint or dry lines where they cross tissue. Stains that are blue or green themselves (Giemsa, Alcian blue, a trichrome)
are taken for ink.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import closing, disk, remove_small_holes, remove_small_objects

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
# Densities are natural logarithms. CMU-1-Small-Region (Aperio, skin with dense epidermis) has at 8 µm/px red densities
# of 0.34 (median), 1.38 (99 %) and 1.69 (99.9 %), and red over green of 0.52 (median) and 0.72 (90 %).
BLUE_GREEN = (1.2, 0.06)  # of a stroke: red over green density, and excess; an IHC counterstain of (175, 180, 210)
# has 1.1 and no excess, the faint blue ink of (175, 210, 230) has 2.3
GREENEST = 0.05  # red above green density where green is absorbed least, which no tissue stain does
DARK = (0.95, 1.1)  # red over green density, and the red: ink on tissue; pure haematoxylin has up to 0.93
DARKER = (0.9, 1.6)  # the same: navy ink of (40, 35, 85) has 0.94 and 1.8; dense epidermis (see above) 0.75
OPAQUE = 1.9  # red density that tissue does not average to, so ink whatever the tissue below adds
NEUTRAL = (0.78, 0.6)  # least over most density, and the most: black ink; haematoxylin with eosin has at most 0.6
STROKE = 7  # mask pixels, 56 µm: window of the majority vote; the finest slide markers draw 0.3 mm
FRINGE_RATIO = 0.9  # red over green density in the blurred edge of a stroke, where ink and glass mix
FRINGE = 12  # mask pixels, 100 µm: how far ink on the cover slip, out of focus, blurs
EDGE = 2  # mask pixels around ink that are half ink
POINTS = 16  # points per axis that a patch is tested at; with more, the mask's own pixels are the limit


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


@dataclass(frozen=True)
class PackedMask:
    """A :class:`TissueMask`, one bit per pixel.

    Attributes:
        bits: ``uint8 [H, ceil(W / 8)]``, the leftmost pixel in the highest bit.
        width: W.
        scale: level-0 pixels per mask pixel, x and y.
    """

    bits: np.ndarray
    width: int
    scale: tuple[float, float]

    @classmethod
    def of(cls, tissue: TissueMask) -> PackedMask:
        """Pack a mask."""
        return cls(np.packbits(tissue.mask, axis=1), tissue.mask.shape[1], tissue.scale)

    def unpack(self) -> TissueMask:
        """The mask again."""
        return TissueMask(np.unpackbits(self.bits, axis=1, count=self.width).astype(bool), self.scale)

    def share(self, corners: np.ndarray, extent: tuple[float, float]) -> np.ndarray:
        """How much of equal rectangles is tissue, estimated at up to 16 × 16 evenly spaced points of each.

        Args:
            corners: ``[N, 2]`` upper-left corners (x, y) in level-0 pixels.
            extent: width and height in level-0 pixels.

        Returns:
            ``float [N]`` in 0..1.
        """
        limits = (self.width, len(self.bits))
        index = []
        for axis in (0, 1):
            count = min(POINTS, max(1, round(extent[axis] / self.scale[axis])))
            points = corners[:, axis, None] + (np.arange(count) + 0.5) * (extent[axis] / count)  # [N, count]
            index.append(np.clip((points / self.scale[axis]).astype(np.int64), 0, limits[axis] - 1))
        x, y = index[0][:, None, :], index[1][:, :, None]
        shares: np.ndarray = (self.bits[y, x >> 3] >> (7 - (x & 7)) & 1).mean(axis=(1, 2))
        return shares


def tissue_mask(slide: Slide, mpp: float = TISSUE_MPP, threads: int = 1) -> TissueMask:
    """Find the tissue: Otsu's threshold on the saturation of a thumbnail, then a morphological clean-up.

    Stained tissue is coloured, glass is grey once the lamp's colour is divided out. Otsu's threshold (Otsu 1979) is
    kept between a floor and a ceiling, since on a slide that is all glass or all tissue it would split what belongs
    together. Pen marks are left out, also where they cross tissue.

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


def pen_mask(density: np.ndarray) -> np.ndarray:
    """Find blue, green and black pen.

    Args:
        density: natural-log optical density against the glass, float32 ``[3, H, W]``, red, green, blue, at about 8 µm
            per pixel.

    Returns:
        ``bool [H, W]``; unscanned black borders count as pen.
    """
    red, green, blue = density
    most, least = density.max(axis=0), density.min(axis=0)
    ink = red > BLUE_GREEN[0] * green + BLUE_GREEN[1]
    ink |= (red > green + GREENEST) & (blue >= green)
    for ratio, least_red in (DARK, DARKER):
        ink |= (red > ratio * green) & (red > least_red)
    ink |= red > OPAQUE
    ink |= (most > NEUTRAL[1]) & (least > NEUTRAL[0] * most)
    ink = majority(ink, STROKE)
    if not ink.any():
        return ink
    ink = ndimage.binary_dilation(ink, iterations=FRINGE, mask=red > FRINGE_RATIO * green)
    return ndimage.binary_dilation(ink, iterations=EDGE)


def majority(mask: np.ndarray, size: int) -> np.ndarray:
    """Whether most of the ``size`` × ``size`` pixels around each are set: a quick median filter, for sizes up to 15."""
    full = 255 - 255 % size**2  # so that every mean in uint8 is exact
    return ndimage.uniform_filter(mask.astype(np.uint8) * np.uint8(full), size, mode="nearest") > full // 2


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
