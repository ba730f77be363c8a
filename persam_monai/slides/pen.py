# SPDX-License-Identifier: Apache-2.0
"""Where somebody has written on the slide with a felt-tip pen.

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

import numpy as np
from scipy import ndimage

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
