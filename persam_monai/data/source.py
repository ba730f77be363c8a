# SPDX-License-Identifier: Apache-2.0
"""Where the instances of a bag come from: pixels of slides, or features that were extracted before."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from persam_monai.cohort import SlideEntry
from persam_monai.data.index import IndexCache, PatchSettings, SlideIndex, index_slides
from persam_monai.errors import UserError
from persam_monai.slides import open_slide


class Instances(Protocol):
    """What is known of one slide; can be sent to another process."""

    def __len__(self) -> int:
        """Number of instances, from which bags are drawn."""
        ...

    def read(
        self, chosen: np.ndarray, generator: np.random.Generator, threads: int = 1, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read some of them.

        Args:
            chosen: ``[n]`` indices.
            generator: source of chance, for instances whose location is drawn.
            threads: decoding threads.
            out: where pixels go, ``uint8 [n, size, size, 3]``; by default new memory.

        Returns:
            Pixels ``uint8 [n, size, size, 3]`` or features ``float16`` or ``float32 [n, D]``, and the level-0 positions
            ``int64 [n, 2]`` (x, y) of the patches' upper-left corners.

        Raises:
            UserError: if they cannot be read.
        """
        ...


class Source(Protocol):
    """Gives the instances of slides."""

    @property
    def patches(self) -> PatchSettings:
        """What a patch is."""
        ...

    @property
    def pixels(self) -> bool:
        """Whether instances are pixels; else they are features."""
        ...

    def made_of(self, entries: Sequence[SlideEntry]) -> dict[str, Any] | None:
        """What makes the extractor of the slides' features the same.

        Args:
            entries: the cohort's slides.

        Returns:
            JSON-able: ``extractor``, ``weights``, ``mpp``, ``patch_size`` and ``settings`` (those of its input);
            ``None`` for pixels.

        Raises:
            UserError: if not one of the slides has features that can be read.
        """
        ...

    def look(self, entries: Sequence[SlideEntry], label: str = "slides") -> Sequence[Instances | UserError]:
        """Look for the instances of every slide.

        Args:
            entries: the cohort's slides.
            label: what they are for, shown by progress bars.

        Returns:
            For each slide what was found, or what is wrong with it.

        Raises:
            UserError: for what no slide alone is to blame.
        """
        ...


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
        """Nothing: pixels are no features; see :meth:`Source.made_of`."""

    def look(self, entries: Sequence[SlideEntry], label: str = "slides") -> list[SlideInstances | UserError]:
        """Look for tissue in every slide; see :meth:`Source.look`."""
        cache = None if self.index_dir is None else IndexCache(self.index_dir)
        indices = index_slides(entries, self.patches, label, cache, self.index_workers)
        return [i if isinstance(i, UserError) else SlideInstances(i, self.patches) for i in indices]


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
        """Read one patch of each chosen cell; see :meth:`Instances.read`."""
        locations = self.index.cells.locate(chosen, generator)
        slide = open_slide(self.index.header)
        return slide.read_patches(locations, self.patches.size, self.patches.mpp, threads, out), locations
