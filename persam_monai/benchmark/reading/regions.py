# SPDX-License-Identifier: Apache-2.0
"""Patches as regions of the slide libraries, level 0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
from cucim.clara import CuImage

from persam_monai.benchmark.reading.processes import Read

BATCH = 100  # patches that cuCIM reads at once: a bag


def openslide_regions(path: Path, size: int) -> Read:
    """One ``read_region`` of OpenSlide for each patch, as RGB."""
    slide = openslide.OpenSlide(str(path))
    slide.set_cache(openslide.OpenSlideCache(0))  # a slide of usual size is a hundred times larger than the cache

    def read(places: np.ndarray) -> None:
        for x, y in places.tolist():
            np.asarray(slide.read_region((x, y), 0, (size, size)).convert("RGB"))

    return read


def cucim_regions(path: Path, size: int) -> Read:
    """One ``read_region`` of cuCIM for each patch."""
    slide = CuImage(str(path))

    def read(places: np.ndarray) -> None:
        for x, y in places.tolist():
            np.asarray(slide.read_region((x, y), (size, size), 0))

    return read


def cucim_batches(path: Path, size: int, threads: int) -> Read:
    """cuCIM's batched ``read_region`` with threads of its own."""
    slide = CuImage(str(path))

    def read(places: np.ndarray) -> None:
        if len(places) == 1:  # cuCIM returns a single region otherwise than a batch
            np.asarray(slide.read_region(tuple(places[0].tolist()), (size, size), 0))
            return
        locations = [tuple(place) for place in places.tolist()]
        for batch in slide.read_region(locations, (size, size), 0, num_workers=threads, batch_size=BATCH):
            np.asarray(batch)

    return read
