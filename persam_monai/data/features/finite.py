# SPDX-License-Identifier: Apache-2.0
"""Whether features are numbers."""

from __future__ import annotations

import numpy as np

BLOCK = 1 << 18  # values looked at at once: what is made of them stays in the processor's cache
EXPONENT = np.uint16(0x7C00)  # of float16


def first_bad_row(features: np.ndarray) -> int | None:
    """The first row that holds NaN or infinity, or ``None``.

    Args:
        features: ``[n, D]`` float16 or float32.
    """
    step = max(1, BLOCK // features.shape[1])
    for begin in range(0, len(features), step):
        block = features[begin : begin + step]
        if not _finite(block):
            return begin + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
    return None


def _finite(block: np.ndarray) -> bool:
    if block.dtype != np.float16:
        return bool(np.isfinite(block).all())
    # NaN and infinity have all bits of the exponent set. Numpy's isfinite takes five times as long for float16.
    bits = np.ascontiguousarray(block).view(np.uint16) & np.uint16(0x7FFF)
    return bool(bits.max() < EXPONENT)
