# SPDX-License-Identifier: Apache-2.0
"""The features of one slide, as instances of bags."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from persam_monai.data.features.cache import cache_for
from persam_monai.data.features.stored import StoredFeatures


@dataclass(frozen=True)
class FeatureInstances:
    """The features of one slide. Can be sent to another process.

    Attributes:
        stored: their file.
        dtype: ``float16`` or ``float32``, of what is read; the same for all slides that were looked into together.
        folder: of all features.
        cache_gb: memory for features that have been read, in GiB.
    """

    stored: StoredFeatures
    dtype: str
    folder: str
    cache_gb: float

    @property
    def dim(self) -> int:
        """Number of features of a patch."""
        return self.stored.head.info.dim

    @property
    def extent(self) -> tuple[float, float] | None:
        """Width and height of a patch in level-0 pixels, if the file says so."""
        return self.stored.head.info.extent

    def __len__(self) -> int:
        return self.stored.head.info.count

    def read(
        self, chosen: np.ndarray, generator: np.random.Generator, threads: int = 1, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read the chosen rows; see :meth:`persam_monai.data.source.Instances.read`.

        Nothing is left to chance: a row has one position. Where the file has none, it is −1.
        """
        features, coords = cache_for(self.folder, self.cache_gb).rows(self.stored, chosen)
        if out is None:
            return features.astype(self.dtype, copy=False), coords
        out[...] = features
        return out, coords
