# SPDX-License-Identifier: Apache-2.0
"""Data loaders with worker processes: MONAI's patches, and our bags."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import DataLoader as MonaiLoader
from monai.data import PatchWSIDataset

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort, SlideEntry
from persam_monai.data import BagDataset, BagLoader, PatchSettings, RandomBags, SlidePatches

WORKERS = 2
PREFETCH = 2  # batches that each worker runs ahead: PyTorch's default
MOST_BAGS = 5000  # an end for what could go on for ever


class RepeatedBags:
    """A draw that goes through the slide again and again, so that one small slide gives any number of bags.

    Args:
        bag_size: patches in a bag.
        bags: how many; by default so many that no measurement comes to the end.
    """

    def __init__(self, bag_size: int, bags: int = MOST_BAGS) -> None:
        self.bag_size = bag_size
        self.bags = bags
        self.once = RandomBags(bag_size, max_bags_per_slide=MOST_BAGS)

    def count(self, cells: int) -> int:
        """Always ``bags``."""
        return self.bags

    def choose(self, cells: int, slide: str, epoch: int, bag: int) -> np.ndarray:
        """The bags of one epoch of :class:`~persam_monai.data.RandomBags`, then those of the next."""
        epoch, bag = divmod(bag, self.once.count(cells))
        return self.once.choose(cells, slide, epoch, bag)


def slide_bags(path: Path, patches: PatchSettings, bag_size: int = 100) -> BagDataset:
    """Bags of one slide, prepared.

    Raises:
        UserError: if the slide cannot be read, or holds no tissue.
    """
    schema = ClinicalSchema(("any",), {})
    record = np.empty(0, np.float32)
    entry = SlideEntry(path.name, path, path.stem, None, record, None, None, 1)
    data = Cohort((entry,), schema, str(path))
    return BagDataset(
        data, RepeatedBags(bag_size), SlidePatches(patches), label=f"{path.name}, {patches.backend}"
    ).prepare()


def bags_rate(bags: BagDataset, count: int) -> float:
    """Patches per second of our loader where its bags are taken, by two workers of one thread each.

    Args:
        bags: from :func:`slide_bags`.
        count: bags that are counted.

    Raises:
        UserError: if the slide cannot be read.
    """
    loader = BagLoader(bags, num_workers=WORKERS, threads=1)  # as many cores as the decoder alone has
    return _steady_rate(loader, lambda batch: int(batch["mask"].sum()), min(count, MOST_BAGS // 2))


def monai_rate(path: Path, places: np.ndarray, size: int, reader: str, batch_size: int, count: int) -> float:
    """Patches per second of MONAI's ``PatchWSIDataset`` in its data loader, level 0.

    Args:
        path: the slide.
        places: ``[N, 2]`` corners (x, y), gone through again and again.
        size: side of a patch in pixels.
        reader: MONAI's name of it: ``cucim`` or ``openslide``.
        batch_size: patches in a batch.
        count: batches that are counted.
    """
    needed = (count + 2 * WORKERS * PREFETCH) * batch_size  # ahead of the clock, and when it stops: see _steady_rate
    rows = np.resize(places, (needed, 2))[:, ::-1].tolist()  # (y, x), as MONAI has them
    dataset = PatchWSIDataset(
        [{"image": str(path), "location": row} for row in rows],
        patch_size=size,
        patch_level=0,
        include_label=False,
        center_location=False,
        reader=reader,
    )
    loader = MonaiLoader(dataset, batch_size=batch_size, num_workers=WORKERS, prefetch_factor=PREFETCH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # every worker would say that the reader's array cannot be written to
        return _steady_rate(loader, lambda batch: len(batch["image"]), count)


def _steady_rate(loader: Iterable[Any], size_of: Callable[[Any], int], count: int) -> float:
    """Patches per second once the pipeline is full.

    Workers run ahead by :data:`PREFETCH` batches each. The clock starts when as many have been taken, which leaves
    the start of the workers behind, and stops at the arrival of a batch while there is still work ahead. So what was
    under way when it started, and is counted, is made up for by what is under way when it stops, and is not.
    """
    iterator = iter(loader)
    for _ in range(WORKERS * PREFETCH):
        next(iterator)
    start = time.perf_counter()
    patches = sum(size_of(next(iterator)) for _ in range(count))
    return patches / (time.perf_counter() - start)
