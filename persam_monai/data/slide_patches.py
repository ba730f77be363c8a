# SPDX-License-Identifier: Apache-2.0
"""Patches read from the slides when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from persam_monai.cohort import SlideEntry
from persam_monai.data.index import PatchSettings, SlideIndex, index_slides
from persam_monai.data.index_cache import IndexCache
from persam_monai.errors import UserError
from persam_monai.slides import open_slide


class SlidePatches:
    """The patches of slides, as a source of bags.

    Args:
        patches: what a patch is.
        index_dir: folder where what is found in the slides is kept for the next time; ``None`` keeps nothing.
        index_workers: worker processes that look for tissue; 0 looks in the calling process.
    """

    pixels = True

    def __init__(
        self, patches: PatchSettings, index_dir: str | os.PathLike[str] | None = None, index_workers: int = 0
    ) -> None:
        self.patches = patches
        self.index_dir = index_dir
        self.index_workers = index_workers

    def made_of(self, entries: Sequence[SlideEntry]) -> None:
        """Nothing: pixels are no features; see :meth:`persam_monai.data.source.Source.made_of`."""

    def look(self, entries: Sequence[SlideEntry], label: str = "slides") -> list[SlideInstances | UserError]:
        """Look for tissue in every slide; see :meth:`persam_monai.data.source.Source.look`."""
        cache = None if self.index_dir is None else IndexCache(self.index_dir)
        found = index_slides(entries, self.patches, label, cache, self.index_workers)
        return [one if isinstance(one, UserError) else SlideInstances(one, self.patches) for one in found]


@dataclass(frozen=True)
class SlideInstances:
    """The patches of one slide.

    Attributes:
        index: what was found in the slide.
        patches: what a patch is.
    """

    index: SlideIndex
    patches: PatchSettings

    def __len__(self) -> int:
        return len(self.index.cells)

    def read(
        self, chosen: np.ndarray, generator: np.random.Generator, threads: int = 1, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read one patch of each chosen cell; see :meth:`persam_monai.data.source.Instances.read`."""
        locations = self.index.cells.locate(chosen, generator)
        slide = open_slide(self.index.header)
        return slide.read_patches(locations, self.patches.size, self.patches.mpp, threads, out), locations
