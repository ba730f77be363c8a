# SPDX-License-Identifier: Apache-2.0
"""Whether memory and open files stay where they are through many bags, and what a huge slide costs to look into."""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections.abc import Callable
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort, SlideEntry
from persam_monai.data import BagDataset, BagLoader, PatchSettings, RandomBags, SlidePatches, index_slide
from persam_monai.slides import Slide
from readers import BAG, WORKERS
from slides import HUGE, jpeg_slide, sparse_slide
from turns import in_own_process, peak_bytes

MIB = 2**20
SLIDES, BAGS = 60, 2000
SETTLED = 200  # bags after which memory should not grow any more
LOOK_EVERY = 10  # bags


def measure_memory(
    slide: Path, folder: Path, bags: int = BAGS, bag_size: int = BAG, deadline: float = math.inf
) -> dict[str, Any]:
    """Memory and open files of the training's process and its two workers, from bag to bag.

    Args:
        slide: gets as many names as there are slides.
        folder: where the names go.
        bags: how many are taken, in random order of the slides.
        bag_size: patches in a bag.
        deadline: of :func:`time.monotonic`, after which no more bags are taken than show how memory grows.

    Returns:
        MiB of all processes together, memory that they share counted once (proportional set size of ``smaps_rollup``),
        after a tenth of the bags and at the most behind that; the most files open in one process.
    """
    names = [folder / f"{slide.stem}_{number}{slide.suffix}" for number in range(SLIDES)]
    for name in names:
        if not name.exists():
            os.link(slide, name)
    cohort = Cohort(tuple(map(_entry, names)), ClinicalSchema.without_record(("any",)), "")
    source = SlidePatches(PatchSettings(), index_workers=WORKERS)
    data = BagDataset(cohort, RandomBags(bag_size, max_bags_per_slide=bags), source, label="memory").prepare()
    loader = BagLoader(data, shuffle=True, num_workers=WORKERS, threads=1)
    settled = min(SETTLED, bags // 10)
    seen: list[tuple[int, float]] = []
    files = taken = 0
    for taken, _ in enumerate(chain.from_iterable(repeat(loader)), 1):  # epoch after epoch
        if taken % LOOK_EVERY == 0:
            processes = [os.getpid(), *(child.pid for child in multiprocessing.active_children() if child.pid)]
            seen.append((taken, sum(map(_memory, processes)) / MIB))
            files = max(files, *(len(os.listdir(f"/proc/{process}/fd")) for process in processes))
            if taken >= 2 * settled and time.monotonic() > deadline:
                break
        if taken >= bags:
            break
    later = [memory for number, memory in seen if number >= settled]
    return {
        "slides": SLIDES,
        "bags": taken,
        "settled_mib": later[0],
        "end_mib": later[-1],
        "growth_mib": max(later) - later[0],
        "most_open_files": files,
    }


def measure_index(folder: Path, side: int = HUGE, deadline: float = math.inf) -> dict[str, Any]:
    """Seconds and memory to look into a slide of 100,000 × 100,000 pixels, with lower levels and without.

    Args:
        folder: where the slides are made.
        side: of another one, in pixels.
        deadline: of :func:`time.monotonic`, after which the slide without lower levels is left out.

    Returns:
        Seconds and MiB of the process's peak, everything imported included, by the number of levels.
    """
    results: dict[str, Any] = {"side": side, "levels_4": in_own_process(_look_into, sparse_slide(folder, side, 4))}
    if time.monotonic() > deadline:
        return {**results, "left_out_for_time": ["levels_1"]}
    return {**results, "levels_1": in_own_process(_look_into, sparse_slide(folder, side, 1))}


ENDURANCE: dict[str, Callable[[Path, int, float], dict[str, Any]]] = {
    "memory": lambda folder, side, deadline: measure_memory(jpeg_slide(folder, side), folder, deadline=deadline),
    "index": lambda folder, side, deadline: measure_index(folder, deadline=deadline),
}


def _look_into(path: Path) -> dict[str, Any]:
    with Slide(path) as slide:
        levels = len(slide.levels)
    start = time.perf_counter()
    index = index_slide(_entry(path), PatchSettings())
    taken = time.perf_counter() - start
    return {"levels": levels, "index_s": taken, "peak_mib": peak_bytes() / MIB, "cells": len(index.cells)}


def _entry(path: Path) -> SlideEntry:
    return SlideEntry(path.name, path, path.stem, None, np.empty(0, np.float32), None, None, 1)


def _memory(process: int) -> int:
    """Bytes of memory of a process, its part of what is shared; 0 if it has just ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
