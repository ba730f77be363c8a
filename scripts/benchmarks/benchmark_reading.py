#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How fast patches come out of a slide: our loader, MONAI, cuCIM, OpenSlide, and what the decoder alone could do."""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from cucim.clara import CuImage

from endurance import ENDURANCE
from persam_monai.data import BagDataset, PatchSettings, SlideInstances, generator_for
from persam_monai.errors import UserError
from persam_monai.slides import Slide
from readers import (
    BAG,
    SIZE,
    Read,
    Tiles,
    cucim_batches,
    cucim_regions,
    loader_rate,
    monai_rate,
    openslide_regions,
    rate_in_processes,
    slide_bags,
)
from slides import SIDES, jpeg2000_slide, jpeg_slide
from turns import Budget, as_text, in_turns, machine

logger = logging.getLogger(__name__)

FEWEST_BATCHES = 16  # however slowly they come: a loader's clock ticks once a batch, and its workers keep step
PILOT_BAGS = 4  # of the first turn, which shows how many fill the seconds
BACKENDS = ("tiles", "cucim", "openslide")  # that our loader can be made to use

LOADER = "loader_patches_per_s"  # with the backend that it chooses itself
DECODER = "decoder_2_threads_tiles_per_s"
BEST_DECODER = "decoder_at_best_2_processes_tiles_per_s"
MONAI = "monai_cucim_patches_per_s"
PROCESSES = {
    "openslide": "openslide_2_processes_patches_per_s",
    "cucim": "cucim_2_processes_patches_per_s",
}

Contender = Callable[[int], float]  # takes how many patches to read or tiles to decode, returns how many a second


@dataclass(frozen=True)
class Effort:
    """How much work a measurement is.

    Attributes:
        repeats: of which the median counts.
        seconds: that a measurement takes, about.
        bag_size: patches in a bag, and in a batch of other loaders.
        deadline: of :func:`time.monotonic`, after which no measurement begins.
    """

    repeats: int = 5
    seconds: float = 0.6
    bag_size: int = BAG
    deadline: float = math.inf

    def batches(self, patches: int) -> int:
        """Batches that hold at least ``patches``."""
        return max(FEWEST_BATCHES, math.ceil(patches / self.bag_size))

    def rates(self, contenders: Mapping[str, Contender]) -> dict[str, Any]:
        """Median rate of each contender, run in turns, each with the amount that its last turn suggests.

        Args:
            contenders: by name, with the unit of the rate.

        Returns:
            The rates, ``turns`` with the fewest that one is the median of, and, where the deadline came too early for
            some contenders, their names as ``left_out_for_time``.
        """
        amounts = dict.fromkeys(contenders, PILOT_BAGS * self.bag_size)

        def turn(name: str) -> float:
            rate = contenders[name](amounts[name])
            amounts[name] = max(1, round(rate * self.seconds))
            return rate

        measured = in_turns({name: partial(turn, name) for name in contenders}, self.repeats, self.deadline)
        results: dict[str, Any] = {name: median(values) for name, values in measured.items() if values}
        left_out = [name for name in contenders if name not in results]
        results["turns"] = min((len(values) for values in measured.values() if values), default=0)
        return results | ({"left_out_for_time": left_out} if left_out else {})


class Subject:
    """A slide, and the locations of the patches that are read from it.

    Args:
        path: the slide.
        scale: µm per pixel of a patch by the slide's own.
        bag_size: patches in a bag.

    Attributes:
        bags: our loader's, read by the backend that it chooses itself.
        backend: which one that is.
        native: whether patches are read from level 0 at its own resolution, as the slide libraries do it.
        snapped: ``[N, 2]`` level-0 corners (x, y) of a patch in each cell, in random order: as our loader draws them.
        uniform: ``[N, 2]`` as many anywhere on the same tissue.
        tiles: encoded tiles of level 0, or ``None`` if patches need none or they are neither JPEG nor JPEG 2000.
        described: what it is, JSON-able.

    Raises:
        UserError: if the slide is missing, cannot be read, or holds no tissue.
    """

    def __init__(self, path: Path, scale: float = 1.0, bag_size: int = BAG) -> None:
        with Slide(path) as slide:
            self.mpp = scale * max(slide.mpp)
            plan, dimensions, self.backend = slide.plan(SIZE, self.mpp), slide.dimensions, slide.header.backend
            tile, mpp = slide.levels[0].tile, max(slide.mpp)
        self.path, self.bag_size = path, bag_size
        self.bags = slide_bags(path, PatchSettings(SIZE, self.mpp), bag_size)
        instances, generator = self.bags.instances[0], generator_for(0, "benchmark")
        assert isinstance(instances, SlideInstances)  # a slide that cannot be used is an error here
        cells = instances.index.cells
        self.snapped = cells.locate(generator.permutation(len(cells)), generator)
        width = plan.region[0] if plan.level == 0 else 0  # px of level 0 that a patch takes
        self.native = width == SIZE
        shifts = generator.integers(0, np.maximum(tile, 1), self.snapped.shape)
        self.uniform = np.minimum(self.snapped + shifts, np.array(dimensions) - width)
        self.tiles = Tiles.of(path, width) if width else None
        self.described = {
            "file": path.name,
            "pixels": list(dimensions),
            "mpp": mpp,
            "compression": self.tiles.codec if self.tiles else "other",
            "tile_pixels": list(tile),
            "backend_chosen": self.backend,
            "locations": len(self.snapped),
        }

    def bags_of(self, **settings: str) -> BagDataset | None:
        """Bags with another backend or sampling, or ``None`` if the backend cannot read this slide."""
        try:
            return slide_bags(self.path, PatchSettings(SIZE, self.mpp, **settings), self.bag_size)  # type: ignore[arg-type]
        except UserError as error:
            logger.warning("No row for %s: %s", settings, error)
            return None

    def known_to_cucim(self) -> bool:
        """Whether cuCIM opens the slide."""
        try:
            CuImage(str(self.path)).close()
        except (ValueError, RuntimeError) as error:
            logger.warning("No rows for cuCIM, which cannot open %s: %s", self.path, error)
            return False
        return True


def measure_slide(subject: Subject, effort: Effort) -> dict[str, Any]:
    """Our loader, the decoder alone, and where the slide libraries can read the same patches, these.

    Args:
        subject: the slide. In JPEG the others read at uniform locations, as is usual; in other compressions, MONAI is
            left out and all read at the same snapped locations.
        effort: how much work to measure.

    Returns:
        The slide, all rates that time allows, the most important first, and as far as they can be had
        ``ratio_to_monai``: our loader by MONAI's with cuCIM; ``ratio_to_best_backend``: by the faster of OpenSlide and
        cuCIM in two processes at the same locations; ``ratio_to_decoder`` and ``ratio_to_decoder_at_best``: the tiles
        that our loader's patches need by those that the decoder does in the same time.
    """
    path, tiles = subject.path, subject.tiles
    usual = tiles is not None and tiles.codec == "jpeg"
    cucim = subject.native and subject.known_to_cucim()
    contenders: dict[str, Contender] = {}

    def add_monai(reader: str) -> None:
        contenders[f"monai_{reader}_patches_per_s"] = lambda patches: monai_rate(
            path, subject.uniform, reader, effort.bag_size, effort.batches(patches), effort.deadline
        )

    def add_loader(name: str, bags: BagDataset | None) -> None:
        if bags is not None:
            contenders[name] = lambda patches: loader_rate(bags, effort.batches(patches), effort.deadline)

    def add_regions(name: str, open_slide: Callable[[Path], Read], locations: np.ndarray, processes: int) -> None:
        contenders[name] = lambda patches: rate_in_processes(
            lambda: open_slide(path), np.resize(locations, (patches, 2)), processes
        )

    if usual and cucim:
        add_monai("cucim")
    if tiles is not None:
        needed = tiles.touched(subject.snapped)
        contenders[DECODER] = partial(tiles.decoding_rate, needed)
        contenders[BEST_DECODER] = partial(tiles.best_decoding_rate, needed)
    add_loader(LOADER, subject.bags)
    for backend in BACKENDS:
        if backend != subject.backend:
            add_loader(f"loader_{backend}_patches_per_s", subject.bags_of(backend=backend))
    if subject.native and usual:
        add_loader("loader_uniform_patches_per_s", subject.bags_of(sampling="uniform"))
    if subject.native:
        libraries = {"openslide": openslide_regions} | ({"cucim": cucim_regions} if cucim else {})
        for name, open_slide in libraries.items():
            locations = subject.uniform if usual else subject.snapped
            add_regions(PROCESSES[name], open_slide, locations, 2)
    if subject.native and usual:
        add_monai("openslide")
    if usual and cucim:
        for name, locations in (("snapped", subject.snapped), ("uniform", subject.uniform)):
            add_regions(f"cucim_batches_2_threads_{name}_patches_per_s", cucim_batches, locations, 1)
    rates = effort.rates(contenders)
    results = {"slide": subject.described, **rates}
    if LOADER not in rates:
        return results
    ours = results[f"loader_{subject.backend}_patches_per_s"] = rates[LOADER]
    if MONAI in rates:
        results["ratio_to_monai"] = ours / rates[MONAI]
    best = max((rates[name] for name in PROCESSES.values() if name in rates), default=None)
    if best is not None and not usual:
        results["ratio_to_best_backend"] = ours / best
    if tiles is not None:
        for name, drawn in (("tiles_per_patch", subject.snapped), ("tiles_per_uniform_patch", subject.uniform)):
            results[name] = len(tiles.touched(drawn)) / len(drawn)
        for name, decoder in (("ratio_to_decoder", DECODER), ("ratio_to_decoder_at_best", BEST_DECODER)):
            if decoder in rates:
                results[name] = ours * results["tiles_per_patch"] / rates[decoder]
    return results


PARTS = {"jpeg": (jpeg_slide, 1.0), "jpeg2000": (jpeg2000_slide, 1.0), "half_scale": (jpeg_slide, 2.0)}
# half_scale: patches at twice the µm per pixel of the finest level, which has no level of its own


def measure(
    folder: Path,
    parts: Sequence[str],
    slides: Sequence[Path] = (),
    effort: Effort = Effort(),
    side: int = SIDES[-1],
    minutes: float = math.inf,
) -> dict[str, Any]:
    """Run the benchmark.

    Args:
        folder: where the slides are made, or are already.
        parts: of :data:`PARTS` and :data:`~benchmarks.endurance.ENDURANCE`.
        slides: more slides to measure, of any format.
        effort: how much work a measurement is.
        side: of the slides that are made, in pixels; one of :data:`~benchmarks.slides.SIDES`.
        minutes: that all may take, about. Each part has its share of what is left of them, and leaves out what does not
            fit: first repeats, then rows, which it names.

    Returns:
        JSON-able: a key for each of ``parts``, and ``slides`` with a row for each of ``slides``.

    Raises:
        UserError: if a slide cannot be read, or none can be made in ``folder``.
    """
    for path in slides:
        Slide(path).close()  # what cannot be opened is better known before minutes are spent
    settings = {"patch_pixels": SIZE, "bag_size": effort.bag_size, "repeats": effort.repeats, "seconds": effort.seconds}
    results: dict[str, Any] = {"machine": machine(), "settings": settings}
    budget, left = Budget(minutes), len(parts) + len(slides)
    for name in parts:
        if name in ENDURANCE:
            results[name] = ENDURANCE[name](folder, side, budget.share(left))
        else:
            make, scale = PARTS[name]
            subject = Subject(make(folder, side), scale, effort.bag_size)
            results[name] = measure_slide(subject, replace(effort, deadline=budget.share(left)))
        left -= 1
    for path in slides:
        subject = Subject(path, 1.0, effort.bag_size)
        row = measure_slide(subject, replace(effort, deadline=budget.share(left)))
        results["slides"] = [*results.get("slides", []), row]
        left -= 1
    return results


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--only",
        nargs="+",
        action="extend",
        choices=(*PARTS, *ENDURANCE, "slides"),
        help="parts to measure; slides: nothing but each --slide; None: all",
    )
    parser.add_argument("--slide", nargs="+", action="extend", default=[], type=Path, help="slides to measure besides")
    parser.add_argument("--repeats", type=int, default=5, help="turns of which the median counts")
    parser.add_argument("--minutes", type=float, default=4.5, help="for all; what does not fit is left out")
    parser.add_argument("--folder", type=Path, help="where the slides are made and kept; None: made and removed")
    parser.add_argument("--slide-side", type=int, choices=SIDES, default=SIDES[-1], help="of these slides in pixels")
    asked = parser.parse_args()
    parts = [name for name in (*PARTS, *ENDURANCE) if asked.only is None or name in asked.only]
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        try:
            results = measure(folder, parts, asked.slide, Effort(asked.repeats), asked.slide_side, asked.minutes)
        except UserError as error:
            sys.exit(f"Error: {error}")
    print(json.dumps(results, indent=2) if asked.json else as_text(results))


if __name__ == "__main__":
    main()
