# SPDX-License-Identifier: Apache-2.0
"""From the pixels of a file to the resolution that was asked for."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F


def resample(patches: np.ndarray, size: int) -> np.ndarray:
    """Bring [N, h, w, 3] to [N, size, size, 3], with anti-aliasing."""
    pixels = torch.from_numpy(np.ascontiguousarray(patches)).permute(0, 3, 1, 2)  # [N, 3, h, w], channels last
    small = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    return small.permute(0, 2, 3, 1).numpy()


def shrink(image: np.ndarray, factor: int) -> np.ndarray:
    """Average blocks of ``factor`` × ``factor`` pixels of [h, w, 3]; the border is repeated to fill the last blocks."""
    if factor == 1:
        return np.array(image)
    height, width = image.shape[:2]
    pad = ((0, -height % factor), (0, -width % factor), (0, 0))
    padded = np.pad(image, pad, mode="edge")
    blocks = padded.reshape(padded.shape[0] // factor, factor, padded.shape[1] // factor, factor, 3)
    return blocks.mean(axis=(1, 3), dtype=np.float32).round().astype(np.uint8)
