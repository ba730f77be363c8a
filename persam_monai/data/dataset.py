# SPDX-License-Identifier: Apache-2.0
"""Bags of patches, read from the slides when they are asked for."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from persam_monai.cohort import Cohort, SlideEntry
from persam_monai.data.draws import Draw
from persam_monai.data.index import PatchSettings, index_slides
from persam_monai.data.randomness import generator_for
from persam_monai.errors import UserError
from persam_monai.slides import PatchCells, open_slide

ORIENTATIONS = 8  # four rotations, each with or without a flip


class BagKey(NamedTuple):
    """Names one bag: its slide's index in the cohort, the epoch, and its number among the slide's bags."""

    slide: int
    epoch: int
    bag: int


class BagDataset(Dataset[dict[str, Any]]):
    """Bags of the slides of a cohort.

    Nothing is read before :meth:`prepare`; a dataset can be built where there are no slides.

    Args:
        data: the cohort.
        draw: which cells make which bag.
        patches: what a patch is.
        augment: give every patch a random orientation (applied later, on the device).
        seed: seed of the places inside the cells and of the orientations.
        label: what the bags are for, shown by progress bars.

    An item is a dictionary: ``image`` uint8 ``[N, size, size, 3]``, ``clinical`` float32 ``[F]`` (NaN where missing),
    ``label`` int64 (−1 when unknown), ``slide`` int64 index into :attr:`entries`, ``locations`` int64 ``[N, 2]`` in
    level-0 pixels, ``orientation`` uint8 ``[N]``, 0 to 7. A slide that cannot be read gives the error instead of an
    item; :class:`~persam_monai.data.loader.BagLoader` raises it.
    """

    def __init__(
        self,
        data: Cohort,
        draw: Draw,
        patches: PatchSettings,
        augment: bool = False,
        seed: int = 0,
        label: str = "slides",
    ) -> None:
        self.data = data
        self.draw = draw
        self.patches = patches
        self.augment = augment
        self.seed = seed
        self.label = label
        self._cells: list[PatchCells] | None = None

    @property
    def entries(self) -> tuple[SlideEntry, ...]:
        """The slides, in the order that ``slide`` indexes."""
        return self.data.entries

    def prepare(self) -> BagDataset:
        """Look for tissue in every slide, once.

        Raises:
            UserError: lists every slide that cannot be used.
        """
        if self._cells is None:
            self._cells = index_slides(self.entries, self.patches, self.label)
        return self

    @property
    def cells(self) -> list[PatchCells]:
        """Each slide's cells.

        Raises:
            TypeError: before :meth:`prepare`; ``len()`` raises the same, which means "not known yet" to data loaders.
        """
        if self._cells is None:
            raise TypeError("The bags are not counted yet: call prepare() first.")
        return self._cells

    def keys(self, epoch: int) -> list[BagKey]:
        """All bags of an epoch, slide by slide."""
        return [
            BagKey(slide, epoch, bag)
            for slide, cells in enumerate(self.cells)
            for bag in range(self.draw.count(len(cells)))
        ]

    def __len__(self) -> int:
        return sum(self.draw.count(len(cells)) for cells in self.cells)

    def __getitem__(self, key: BagKey) -> dict[str, Any]:
        entry, cells = self.entries[key.slide], self.cells[key.slide]
        chosen = self.draw.choose(len(cells), entry.slide, key.epoch, key.bag)
        generator = generator_for(self.seed, entry.slide, key.epoch, key.bag)
        locations = cells.locate(chosen, generator)
        orientation = generator.integers(0, ORIENTATIONS if self.augment else 1, size=len(chosen), dtype=np.uint8)
        slide = open_slide(entry.path, entry.mpp)
        return {
            "image": slide.read_patches(locations, self.patches.size, self.patches.mpp),
            "clinical": entry.clinical,
            "label": -1 if entry.label is None else entry.label,
            "slide": key.slide,
            "locations": locations,
            "orientation": orientation,
        }


class SafeItems(Dataset[Any]):
    """A dataset whose user errors come out as items, so that they cross from a worker process as they are.

    Args:
        dataset: the dataset to read from.
    """

    def __init__(self, dataset: BagDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: BagKey) -> dict[str, Any] | UserError:
        try:
            return self.dataset[key]
        except UserError as error:
            return error
