# SPDX-License-Identifier: Apache-2.0
"""Features that have been read are kept, as far as there is room."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch.utils.data import get_worker_info

from persam_monai.data.features.layout import Identity
from persam_monai.data.features.stored import Chunks, StoredFeatures

GB = 1024**3
# A file that was not asked for while every known one could have been asked for ten times belongs to work that is over,
# such as an earlier fold. In a random order, one in 20,000 is that unlucky (e^-10).
STALE = 10


@dataclass
class _Kept:
    identity: Identity
    features: np.ndarray
    coords: np.ndarray
    asked: int  # number of the last request

    @property
    def nbytes(self) -> int:
        return self.features.nbytes + self.coords.nbytes


class FeatureCache:
    """Whole files in memory, and single rows from the disk where there is no room.

    What is in the cache stays there as long as it is used: where a set is larger than the cache, a part of it is always
    found, and the rest is read row by row. Files that cannot be read by rows (compressed ones, those of torch) take the
    place of those that were not used for the longest time.

    Args:
        bound: most bytes of features and positions that are kept. 0 keeps none.
    """

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self._kept: OrderedDict[Path, _Kept] = OrderedDict()
        self._chunks: dict[Path, tuple[Identity, Chunks]] = {}
        self._known: set[Path] = set()
        self._requests = 0
        self._nbytes = 0
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return self._nbytes

    @property
    def paths(self) -> list[Path]:
        """Files that are kept, the one that will go first first."""
        return list(self._kept)

    def rows(self, stored: StoredFeatures, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Some rows of a file: features ``[n, D]`` and positions ``[n, 2]``, the caller's own.

        Raises:
            UserError: if the file cannot be read, or what is read is not finite.
        """
        with self._lock:
            self._requests += 1
            self._known.add(stored.path)
            kept = self._kept.get(stored.path)
            if kept is None or kept.identity != stored.head.identity:
                if kept is not None:
                    self._drop(stored.path)
                if stored.by_rows and not self._fits(stored.nbytes):
                    return stored.read_rows(chosen, self._chunks_of(stored))
                kept = self._read(stored)
            else:
                kept.asked = self._requests
                self._kept.move_to_end(stored.path)
            return kept.features[chosen], kept.coords[chosen]

    def _fits(self, nbytes: int) -> bool:
        """Whether there is room beside what is used."""
        room = self.bound - self._nbytes
        for one in self._kept.values():
            if room >= nbytes or self._requests - one.asked <= STALE * len(self._known):
                break
            room += one.nbytes
        return room >= nbytes

    def _read(self, stored: StoredFeatures) -> _Kept:
        while self._kept and self._nbytes + stored.nbytes > self.bound:
            self._drop(next(iter(self._kept)))  # before the file is read, so that both are never there
        features, coords = stored.read()
        kept = _Kept(stored.head.identity, features, coords, self._requests)
        if self.bound:
            self._kept[stored.path] = kept
            self._nbytes += kept.nbytes
        return kept

    def _drop(self, path: Path) -> None:
        self._nbytes -= self._kept.pop(path).nbytes

    def _chunks_of(self, stored: StoredFeatures) -> Chunks:
        """Where a file's chunks lie: kept whatever the bound, for it takes long to find out and 16 bytes a row."""
        known = self._chunks.get(stored.path)
        if known is None or known[0] != stored.head.identity:
            known = self._chunks[stored.path] = (stored.head.identity, stored.chunks())
        return known[1]


_caches: dict[tuple[str, int], FeatureCache] = {}  # of this process


def cache_for(folder: str, gigabytes: float) -> FeatureCache:
    """The one cache of this process for a folder.

    Args:
        folder: of the features.
        gigabytes: most that is kept; the workers of a data loader share it evenly.
    """
    worker = get_worker_info()
    bound = int(gigabytes * GB) // (1 if worker is None else worker.num_workers)
    if (folder, bound) not in _caches:
        _caches[folder, bound] = FeatureCache(bound)
    return _caches[folder, bound]


# A forked worker begins with nothing: what it inherited counts for its parent, and a lock may be held for ever.
os.register_at_fork(after_in_child=_caches.clear)
