# SPDX-License-Identifier: Apache-2.0
"""JPEG decoded at half scale, and how far that is from decoding in full and averaging."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import imagecodecs
import numpy as np
import simplejpeg
from PIL import Image


def simplejpeg_half(tile: bytes) -> np.ndarray:
    """A tile at half its width and height, by libjpeg-turbo's smaller inverse transform."""
    height, width = simplejpeg.decode_jpeg_header(tile)[:2]
    half: np.ndarray = simplejpeg.decode_jpeg(tile, min_height=height // 2, min_width=width // 2, min_factor=2)
    return half


def pillow_half(tile: bytes) -> np.ndarray:
    """The same by Pillow's draft mode."""
    image = Image.open(io.BytesIO(tile))
    image.draft("RGB", (image.width // 2, image.height // 2))
    return np.asarray(image)


def departure(decode: Callable[[bytes], np.ndarray], tiles: Sequence[bytes]) -> dict[str, float]:
    """How far a picture decoded at half scale is from the full one averaged over blocks of 2 × 2 pixels.

    Args:
        decode: a tile's bytes to uint8 ``[h / 2, w / 2, 3]``.
        tiles: compressed, of even width and height.

    Returns:
        The root of the mean squared difference in grey levels (0..255), of each tile: ``median``, ``percentile_95``
        and ``max`` over the tiles.
    """
    errors = []
    for tile in tiles:
        full = imagecodecs.jpeg8_decode(tile).astype(np.float32)  # [h, w, 3]
        averaged = full.reshape(len(full) // 2, 2, full.shape[1] // 2, 2, 3).mean(axis=(1, 3))
        errors.append(float(np.sqrt(np.mean((decode(tile) - averaged) ** 2))))
    return {
        "median": float(np.median(errors)),
        "percentile_95": float(np.percentile(errors, 95)),
        "max": max(errors),
    }
