# SPDX-License-Identifier: Apache-2.0
"""Features that have been read stay in memory, as far as the bound allows."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
from torch.utils.data import get_worker_info

from persam_monai.data.features.file import Identity, StoredFeatures

GB = 1024**3


class FeatureCache:
    """Whole files in memory, and single rows from the disk where the bound is reached.

    A file in the cache stays: where a set is larger than the cache, a part of it is always there, and the rest is read
    row by row. Files that cannot be read by rows (compressed ones, those of torch) replace those that were not used for
    the longest time.

    Args:
        bound: most bytes of features and positions that are kept. 0 keeps none.
    """

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.nbytes = 0
        self._kept: OrderedDict[Path, tuple[Identity, np.ndarray, np.ndarray]] = OrderedDict()

    @property
    def paths(self) -> list[Path]:
        """Files that are kept, the least recently used first."""
        return list(self._kept)

    def rows(self, stored: StoredFeatures, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Some rows of a file: features ``[n, D]`` and positions ``[n, 2]``, the caller's own.

        Raises:
            UserError: if the file cannot be read, or what is read is not finite.
        """
        path = stored.info.path
        if path in self._kept and self._kept[path][0] != stored.identity:
            self._drop(path)  # it was made anew
        if path not in self._kept:
            if stored.by_rows and self.nbytes + stored.nbytes > self.bound:
                return stored.read_rows(chosen)
            while self._kept and self.nbytes + stored.nbytes > self.bound:
                self._drop(next(iter(self._kept)))  # before the file is read, so that both are never in memory
            features, coords = stored.read()
            if not self.bound:
                return features[chosen], coords[chosen]
            self._kept[path] = (stored.identity, features, coords)
            self.nbytes += stored.nbytes
        self._kept.move_to_end(path)
        _, features, coords = self._kept[path]
        return features[chosen], coords[chosen]

    def _drop(self, path: Path) -> None:
        _, features, coords = self._kept.pop(path)
        self.nbytes -= features.nbytes + coords.nbytes


_caches: dict[tuple[str, int], FeatureCache] = {}  # of this process


def cache_for(folder: str, gigabytes: float) -> FeatureCache:
    """This process's cache for a folder.

    Args:
        folder: of the features.
        gigabytes: most that is kept; the workers of a data loader share it evenly.
    """
    worker = get_worker_info()
    bound = int(gigabytes * GB) // (1 if worker is None else worker.num_workers)
    if (folder, bound) not in _caches:
        _caches[folder, bound] = FeatureCache(bound)
    return _caches[folder, bound]
