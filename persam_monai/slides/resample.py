# SPDX-License-Identifier: Apache-2.0
"""From the pixels of a file to the resolution that was asked for."""

from __future__ import annotations

import cv2
import numpy as np


def resample(patches: np.ndarray, out: np.ndarray) -> None:
    """Shrink patches by averaging over the area that each new pixel covers, which does not alias.

    Args:
        patches: uint8 ``[N, h, w, 3]``.
        out: uint8 ``[N, size, size, 3]``, filled; ``size`` is at most h and w (but for one
            axis of a slide whose x and y resolutions differ, by the tolerance).
    """
    for patch, place in zip(patches, out, strict=True):
        cv2.resize(patch, (place.shape[1], place.shape[0]), dst=place, interpolation=cv2.INTER_AREA)


def shrink(image: np.ndarray, factor: int) -> np.ndarray:
    """Average blocks of ``factor`` × ``factor`` pixels of [h, w, 3]; the border is repeated to fill the last blocks."""
    if factor == 1:
        return image
    height, width = image.shape[:2]
    pad = ((0, -height % factor), (0, -width % factor), (0, 0))
    padded = np.pad(image, pad, mode="edge") if height % factor or width % factor else image
    size = (padded.shape[1] // factor, padded.shape[0] // factor)
    small: np.ndarray = cv2.resize(padded, size, interpolation=cv2.INTER_AREA)
    return small
