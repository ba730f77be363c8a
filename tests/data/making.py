# SPDX-License-Identifier: Apache-2.0
"""Small cohorts to look into and to damage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort
from persam_monai.cohort.reading import SlideEntry
from persam_monai.synthetic import write_pyramid
from tests.slides.writing import overwrite_bytes, tile_span

Picture = Callable[[int, int, int], np.ndarray]


def write_slides(folder: Path, picture: Picture, sides: Mapping[str, int]) -> None:
    """Slides that are all tissue, in tiles of 256 pixels; one of 1024 has a lower level, where tissue is looked for."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, side) in enumerate(sides.items()):
        write_pyramid(folder / name, picture(side, side, seed), mpp=0.25)


def cohort_of(folder: Path, schema: ClinicalSchema, names: list[str]) -> Cohort:
    """The slides ``names`` of a folder, each of another patient."""
    entries = [
        SlideEntry(name, folder / name, f"P{i}", i % 2, schema.encode({"age": 50 + i}, name), None, None, i + 2)
        for i, name in enumerate(names)
    ]
    return Cohort(tuple(entries), schema)


def garble(path: Path, tile: int, page: int = 0) -> None:
    """Overwrite the bytes of one tile."""
    begin, size = tile_span(path, tile, page)
    overwrite_bytes(path, begin, b"\0" * size)
