# SPDX-License-Identifier: Apache-2.0
"""Which cells of a slide make which bag, drawn by counter: a draw depends on what it is for, never on earlier ones."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from persam_monai.settings import check_settings


def generator_for(*key: int | str) -> np.random.Generator:
    """A random generator that is a pure function of ``key``.

    The same key gives the same numbers in any process, in any order and after a resume.

    Args:
        key: what the draw is for, e.g. ``(seed, slide, epoch, bag)``.

    Example:
        >>> bool(generator_for(0, "slide", 3).random() == generator_for(0, "slide", 3).random())
        True
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


@dataclass(frozen=True)
class RandomBags:
    """Disjoint random bags, drawn anew in every epoch: for training and validation.

    A slide with fewer cells than ``bag_size`` gives one bag of all of them.

    Args:
        bag_size: patches in a bag (the paper: 100).
        max_bags_per_slide: most bags of one slide in an epoch (the paper: 30).
        seed: the run's seed.
    """

    bag_size: int
    max_bags_per_slide: int
    seed: int = 0

    def __post_init__(self) -> None:
        check_settings(vars(self))

    def count(self, cells: int) -> int:
        """As many full bags as there are cells for, at least one, at most ``max_bags_per_slide``."""
        return min(self.max_bags_per_slide, max(1, cells // self.bag_size))

    def choose(self, cells: int, slide: str, epoch: int, bag: int) -> np.ndarray:
        """The ``bag``-th stretch of the cells that the epoch draws, in random order and none twice."""
        order = _drawn(self.seed, slide, epoch, cells, min(cells, self.bag_size * self.max_bags_per_slide))
        return order[bag * self.bag_size : (bag + 1) * self.bag_size]


@dataclass(frozen=True)
class PartitionBags:
    """Seeded partitions of a slide's cells into bags of nearly equal size: for evaluating and inference.

    In each partition every cell stands in exactly one bag, so that a remainder of 3 patches does not vote like 100.

    Args:
        bag_size: most patches in a bag.
        patches_per_slide: how many cells are looked at (the paper: 50 bags of 100), or ``"all"``.
        partitions: how many times the cells are divided anew.
        seed: seed of the partitions.
    """

    bag_size: int
    patches_per_slide: int | str = 5000
    partitions: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        check_settings(vars(self))

    def _used(self, cells: int) -> int:
        return cells if self.patches_per_slide == "all" else min(cells, int(self.patches_per_slide))

    def count(self, cells: int) -> int:
        """``partitions`` × ceil(cells looked at / ``bag_size``)."""
        return self.partitions * math.ceil(self._used(cells) / self.bag_size)

    def choose(self, cells: int, slide: str, epoch: int, bag: int) -> np.ndarray:
        """A part of a partition; the same in every ``epoch`` and under whatever name the ``slide`` goes."""
        per_partition = math.ceil(self._used(cells) / self.bag_size)
        partition, part = divmod(bag, per_partition)
        order = _partitioned(self.seed, cells, self._used(cells), partition)
        return np.array_split(order, per_partition)[part]


@dataclass(frozen=True)
class InOrder:
    """Every cell of a slide once, in order: for extraction.

    All parts but the last are full. A part's neighbours in a batch can change the last bits of its features, and where
    the borders lie depends on nothing but ``bag_size``.

    Args:
        bag_size: patches in a bag.
    """

    bag_size: int

    def __post_init__(self) -> None:
        check_settings(vars(self))

    def count(self, cells: int) -> int:
        """ceil(``cells`` / ``bag_size``)."""
        return math.ceil(cells / self.bag_size)

    def choose(self, cells: int, slide: str, epoch: int, bag: int) -> np.ndarray:
        """The ``bag``-th stretch of the cells; the same in every ``epoch`` and of whatever ``slide``."""
        return np.arange(bag * self.bag_size, min(cells, (bag + 1) * self.bag_size))


Draw = RandomBags | PartitionBags | InOrder


# A bag is asked for its size, then for its cells, and many bags share a draw.
@lru_cache(maxsize=8)
def _drawn(seed: int, slide: str, epoch: int, cells: int, wanted: int) -> np.ndarray:
    return generator_for(seed, slide, epoch).choice(cells, wanted, replace=False)


@lru_cache(maxsize=8)
def _partitioned(seed: int, cells: int, used: int, partition: int) -> np.ndarray:
    looked_at = generator_for(seed, "cells").permutation(cells)[:used]
    return generator_for(seed, "partition", partition).permutation(looked_at)
