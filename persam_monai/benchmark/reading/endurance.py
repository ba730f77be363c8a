# SPDX-License-Identifier: Apache-2.0
"""Whether memory and open files stay where they are through many bags, and what a huge slide costs to look into."""

from __future__ import annotations

import math
import multiprocessing
import os
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from persam_monai.benchmark.reading.loaders import WORKERS, RepeatedBags
from persam_monai.benchmark.reading.sparse import write_sparse_slide
from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort, SlideEntry
from persam_monai.data import BagDataset, BagLoader, PatchSettings, SlidePatches, index_slide
from persam_monai.slides import Slide

MIB = 2**20
SLIDES, BAGS, SETTLED = 60, 2000, 200  # slides, bags that are taken, bags after which memory should not grow any more
HUGE = 100_000  # px, side of the slide that is looked into


def measure_memory(
    slide: Path, folder: Path, bags: int = BAGS, bag_size: int = 100, deadline: float = math.inf
) -> dict[str, Any]:
    """Memory and open files of the training's process and its two workers, from bag to bag.

    Args:
        slide: given as many names as there are slides.
        folder: where the names go.
        bags: how many are taken, in random order of the slides.
        bag_size: patches in a bag.
        deadline: of :func:`time.perf_counter`, after which no more bags are taken than tell how memory grows.

    Returns:
        MiB of all processes together, memory that they share counted once (proportional set size of ``smaps_rollup``),
        after a tenth of the bags and at the most behind that; the most files open in one process.
    """
    schema = ClinicalSchema(("any",), {})
    names = [folder / f"{slide.stem}_{number}{slide.suffix}" for number in range(SLIDES)]
    for name in names:
        if not name.exists():
            os.link(slide, name)
    record = np.empty(0, np.float32)
    entries = tuple(SlideEntry(name.name, name, name.stem, None, record, None, None, 1) for name in names)
    draw = RepeatedBags(bag_size, -(-bags // SLIDES))
    data = BagDataset(
        Cohort(entries, schema, ""), draw, SlidePatches(PatchSettings(), index_workers=WORKERS), label="memory"
    )
    loader = BagLoader(data.prepare(), shuffle=True, num_workers=WORKERS, threads=1)
    first = min(SETTLED, bags // 10)
    seen, files, taken = [], 0, 0
    for taken, _ in enumerate(loader, 1):
        if taken % 10 == 0:
            processes = [os.getpid(), *(child.pid for child in multiprocessing.active_children() if child.pid)]
            seen.append((taken, sum(map(_memory, processes)) / MIB))
            files = max(files, *(len(os.listdir(f"/proc/{process}/fd")) for process in processes))
            if taken >= 2 * first and time.perf_counter() > deadline:
                break
    settled = next(memory for number, memory in seen if number >= first)
    later = [memory for number, memory in seen if number >= first]
    return {
        "slides": SLIDES,
        "bags": taken,
        "settled_mib": settled,
        "end_mib": seen[-1][1],
        "growth_mib": max(later) - settled,
        "most_open_files": files,
    }


def measure_index(folder: Path, side: int = HUGE, deadline: float = math.inf) -> dict[str, Any]:
    """Seconds and memory to look into a slide of 100,000 × 100,000 pixels, with lower levels and without.

    Args:
        folder: where the slides are made, of few distinct tiles.
        side: of another one, in pixels.
        deadline: of :func:`time.perf_counter`, after which the slide without lower levels is left out.

    Returns:
        Seconds and MiB of the process's peak, everything imported included, by the number of levels.
    """
    found: dict[str, Any] = {"side": side}
    for levels in (4, 1):
        if levels == 1 and time.perf_counter() > deadline:
            found["left_out_for_time"] = ["levels_1"]
            break
        path = folder / f"sparse_{side}_{levels}.tiff"
        if not path.exists():
            write_sparse_slide(path, side, levels=levels)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:  # whose memory is nobody else's
            found[f"levels_{levels}"] = pool.submit(_look_into, path).result()
    return found


def _look_into(path: Path) -> dict[str, Any]:
    entry = SlideEntry(path.name, path, path.stem, None, np.empty(0, np.float32), None, None, 1)
    with Slide(path) as slide:
        levels = len(slide.levels)
    start = time.perf_counter()
    index = index_slide(entry, PatchSettings())
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB
    return {"levels": levels, "index_s": seconds, "peak_mib": peak, "cells": len(index.cells)}


def _memory(process: int) -> int:
    """Bytes of memory of a process, its part of what is shared; 0 if it has just ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
