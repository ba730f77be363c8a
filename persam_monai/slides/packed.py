# SPDX-License-Identifier: Apache-2.0
"""A tissue mask that is small enough to keep for every slide of a cohort."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from persam_monai.slides.tissue import TissueMask

POINTS = 16  # points per axis that a patch is tested at; with more, the mask's own pixels are the limit


@dataclass(frozen=True)
class PackedMask:
    """A :class:`~persam_monai.slides.tissue.TissueMask`, one bit per pixel.

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
