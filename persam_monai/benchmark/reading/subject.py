# SPDX-License-Identifier: Apache-2.0
"""A slide and where its patches lie."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cucim.clara import CuImage

from persam_monai.benchmark.reading.decoder import Tiles, find_tiles
from persam_monai.benchmark.reading.loaders import slide_bags
from persam_monai.data import BagDataset, PatchSettings, SlideInstances, generator_for
from persam_monai.errors import UserError
from persam_monai.slides import Slide

logger = logging.getLogger(__name__)

SIZE = 224  # px, side of a patch


class Subject(NamedTuple):
    """A slide, the patches that are read from it, and where they lie.

    Attributes:
        path: its file.
        mpp: µm per pixel of a patch.
        bags: our loader's, read by the backend that it chooses itself.
        backend: which one that is.
        bag_size: patches in a bag.
        width: pixels of level 0 that a patch takes, in either direction; 0 if it is read from another level.
        tiles: the file's, or ``None`` if they are neither JPEG nor JPEG 2000.
        snapped: ``[N, 2]`` level-0 corners (x, y) of a patch in each cell, in random order: as our loader draws them.
        uniform: ``[N, 2]`` as many anywhere on the same tissue.
        described: what it is, JSON-able.
    """

    path: Path
    mpp: float
    bags: BagDataset
    backend: str
    bag_size: int
    width: int
    tiles: Tiles | None
    snapped: np.ndarray
    uniform: np.ndarray
    described: dict[str, Any]

    def bags_by(self, backend: str) -> BagDataset | None:
        """Bags that are read by a certain backend, or ``None`` if that one cannot read this slide."""
        try:
            return slide_bags(self.path, PatchSettings(SIZE, self.mpp, backend=backend), self.bag_size)
        except UserError as error:
            logger.warning("No row for the backend %s: %s", backend, error)
            return None

    def known_to_cucim(self) -> bool:
        """Whether cuCIM opens the slide."""
        try:
            CuImage(str(self.path)).close()
        except (ValueError, RuntimeError) as error:
            logger.warning("No rows for cuCIM, which cannot open %s: %s", self.path, error)
            return False
        return True

    def touched(self, places: np.ndarray) -> list[int]:
        """Tiles under the patches at ``places``, patch after patch; of a slide that has ``tiles`` and a ``width``."""
        assert self.tiles is not None
        return self.tiles.touched(places, self.width)


def open_subject(path: Path, scale: float = 1.0, bag_size: int = 100) -> Subject:
    """Look into a slide and choose places on its tissue.

    Args:
        path: the slide.
        scale: µm per pixel of a patch by the slide's own.
        bag_size: patches in a bag.

    Raises:
        UserError: if the slide is missing, cannot be read, or holds no tissue.
    """
    with Slide(path) as slide:
        mpp = scale * max(slide.mpp)
        plan, dimensions, backend = slide.plan(SIZE, mpp), slide.dimensions, slide.header.backend
        tile = slide.levels[0].tile
    bags = slide_bags(path, PatchSettings(SIZE, mpp), bag_size)
    instances, generator = bags.instances[0], generator_for(0, "places")
    assert isinstance(instances, SlideInstances)  # a slide that cannot be used is an error here
    cells = instances.index.cells
    snapped = cells.locate(generator.permutation(len(cells)), generator)  # [N, 2]
    width = plan.region[0] if plan.level == 0 else 0
    shifts = generator.integers(0, np.maximum(tile, 1), snapped.shape)
    uniform = np.minimum(snapped + shifts, np.array(dimensions) - width)  # [N, 2]
    tiles = find_tiles(path) if width else None
    described = {
        "file": path.name,
        "pixels": list(dimensions),
        "mpp": max(slide.mpp),
        "compression": tiles.codec if tiles else "other",
        "tile_pixels": list(tile),
        "backend_chosen": backend,
        "places": len(snapped),
    }
    return Subject(path, mpp, bags, backend, bag_size, width, tiles, snapped, uniform, described)
