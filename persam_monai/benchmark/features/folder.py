# SPDX-License-Identifier: Apache-2.0
"""A folder with features of slides that do not exist, as large as that of a real cohort."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort, SlideEntry
from persam_monai.data.features import Made, feature_file, write_features
from persam_monai.errors import UserError

GB = 1e9
CLASSES = ("A", "B", "C")
GROUPS = (18, 10)  # the paper's clinical variables: interview and blood test
MADE = Made("random numbers", mpp=0.25, patch_size=224)
ROOM = 1.05  # what the disk must have, by the bare numbers: positions, heads and the file system's own
SIDE = 224  # px, from patch to patch


@dataclass(frozen=True)
class Sizes:
    """How large the cohort is, and what an epoch takes of it. By default as in the paper, with features of 1024.

    Attributes:
        files: slides, a file for each.
        training: how many of them the network learns from, the first ones.
        patches: of each slide.
        features: D, of each patch, float16.
        bags: most bags of a slide in an epoch.
        bag_size: patches in a bag.
        batch_size: bags in a batch.
    """

    files: int = 842
    training: int = 505
    patches: int = 3000
    features: int = 1024
    bags: int = 30
    bag_size: int = 100
    batch_size: int = 8

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1")
        if self.training > self.files:
            raise ValueError(f"training is {self.training}; expected at most {self.files}, the number of files")

    @property
    def gb(self) -> float:
        """Size of all features in GB."""
        return self.files * self.patches * self.features * np.dtype(np.float16).itemsize / GB


def write_folder(folder: Path, sizes: Sizes) -> None:
    """Write the features: normal random numbers, the same in every file, in another order.

    Args:
        folder: where they go.
        sizes: how many.

    Raises:
        UserError: if the disk has no room for them.
    """
    free = shutil.disk_usage(folder).free / GB
    if free < sizes.gb * ROOM:
        raise UserError(
            f"The features take {sizes.gb * ROOM:.1f} GB, and {folder} has room for {free:.1f} GB. Name another place "
            "with --folder, or measure fewer or smaller files (--files, --patches, --features)."
        )
    generator = np.random.default_rng(0)
    features = generator.standard_normal((sizes.patches, sizes.features), np.float32).astype(np.float16)
    row = math.isqrt(sizes.patches - 1) + 1  # patches beside each other
    coords = np.stack(np.divmod(np.arange(sizes.patches), row)[::-1], axis=1) * SIDE  # [n, 2]
    for entry in cohort(sizes, 0, sizes.files).entries:
        rows = np.roll(features, entry.row, axis=0)
        write_features(feature_file(folder, entry.slide), rows, coords, MADE, (SIDE, SIDE))


def cohort(sizes: Sizes, first: int, last: int) -> Cohort:
    """The slides from number ``first`` to ``last``, which is left out; each a patient with a random record."""
    records = np.random.default_rng(1).standard_normal((sizes.files, sum(GROUPS)), np.float32)
    entries = [
        SlideEntry(f"{n}.svs", Path(f"{n}.svs"), f"P{n}", n % len(CLASSES), records[n], None, None, n + 1)
        for n in range(first, last)
    ]
    return Cohort(tuple(entries), ClinicalSchema(CLASSES, {}), "")


def evict(folder: Path) -> bool:
    """Ask the system to forget what it holds of the files in memory, so that they come from the disk again.

    Harms nobody: what has not been written yet is written first, and other files are left alone.

    Returns:
        Whether this system can be asked.
    """
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in folder.glob("*.h5"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return True
