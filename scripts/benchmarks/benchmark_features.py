#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How fast features are extracted, and how fast a network learns from files of features."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise, repeat
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort, SlideEntry
from persam_monai.data import (
    BagDataset,
    BagLoader,
    FeatureFiles,
    InOrder,
    Made,
    PatchSettings,
    RandomBags,
    SlidePatches,
    feature_file,
    prepare_bags,
    write_features,
)
from persam_monai.data.batches import Batch
from persam_monai.data.dataset import BagKey
from persam_monai.data.loader import EpochSampler
from persam_monai.engines import Extraction, slides_to_extract
from persam_monai.errors import UserError
from persam_monai.losses import PersAMLoss
from persam_monai.networks import (
    AttendingNetwork,
    PatchExtractor,
    PersAMHead,
    PersAMOnFeatures,
    parameter_groups,
    resnet50_backbone,
    resolve_precision,
    save_extractor_weights,
)
from persam_monai.networks.precision import AUTOCAST
from persam_monai.slides import Slide
from slides import SIDES, jpeg_slide
from turns import Budget, as_text, in_own_process, in_turns, machine, peak_bytes, seconds

PARTS = ("extraction", "training")
GB = 1e9
CLASSES = ("A", "B", "C")
GROUPS = (18, 10)  # the paper's clinical variables: interview and blood test
SIDE = 224  # px, of a patch
EXTRACTOR_BATCH = 64  # patches
EXTRACTION_TURNS = 3
BATCHES_ALONE, ROUNDS = 4, 2  # batches that the network alone gets, and how often at most
TRAINED_SHARE = 0.6  # of the files; the others are validation's
BAGS, BAG, BATCH = 30, 100, 8  # most bags of a slide in an epoch, patches in a bag, bags in a batch: the paper's
WARM_UP = 3  # steps before the clock starts: memory is taken, kernels are chosen
OVERHEAD = 1.05  # what the disk must have, by the bare numbers: positions, heads and the file system's own
# What must hold, as the documentation promises it; training's with the first of the caches.
LEAST_EXTRACTION_OVER_SLOWER = 0.9
BOUNDS = {"start_s": 10.0, "first_epoch_over_bare": 2.0, "later_epoch_over_bare": 2.0, "peak_gb": 6.0}


@dataclass(frozen=True)
class Settings:
    """What is measured. The cohort's default size is the paper's, with 1024 features.

    Attributes:
        precisions: of the network; with the caches after the first, the last one alone.
        device: runs the network.
        threads: of PyTorch.
        slide_side: of the slide that features are extracted from, in pixels; 4096 gives some 320 patches.
        workers: processes that read it.
        copies: times that the slide is extracted in one call, each under a name of its own. Fast devices need more
            than one slide before what is done once, such as starting the workers, counts for little.
        files: slides with features, a file for each.
        patches: of each of them.
        features: D, of each patch, float16.
        caches: ``cache_gb`` of each run.
        stretches: parts of the epoch, spread over it, that take turns with as much bare computation.
        stretch_batches: batches of each; ``None`` measures the whole first epoch.
    """

    precisions: Sequence[str] = ("float32", "bf16")
    device: str = "cpu"
    threads: int = 2
    slide_side: int = 4096
    workers: int = 2
    copies: int = 1
    files: int = 842
    patches: int = 3000
    features: int = 1024
    caches: Sequence[float] = (4.0, 1.0)
    stretches: int = 8
    stretch_batches: int | None = 15


def measure(parts: Sequence[str], settings: Settings, folder: Path | None, minutes: float) -> dict[str, Any]:
    """Run the benchmark. What it writes is removed again.

    Args:
        parts: of :data:`PARTS`.
        settings: what is measured.
        folder: where a folder for slide and features is made; by default where temporary files go.
        minutes: after which nothing more begins.

    Returns:
        JSON-able: ``machine``, a key for each of ``parts``, ``must_hold``: see :func:`bounds`, and ``left_out``: what
        there was no time for.

    Raises:
        UserError: if there is no room for the features.
    """
    torch.set_num_threads(settings.threads)
    budget = Budget(minutes)
    results: dict[str, Any] = {"machine": machine(settings.threads)}
    with tempfile.TemporaryDirectory(dir=folder) as name:
        if "extraction" in parts and budget.admits("extraction"):
            results["extraction"] = [measure_extraction(jpeg_slide(Path(name), settings.slide_side), settings)]
        if "training" in parts and budget.admits("training"):
            write_folder(Path(name), settings)
            runs: list[dict[str, Any]] = []
            for cache in settings.caches:
                for precision in settings.precisions if cache == settings.caches[0] else settings.precisions[-1:]:
                    if not runs or budget.admits(f"training, cache_gb {cache:g}, {precision}"):
                        run = in_own_process(measure_training, Path(name), settings, cache, precision)
                        runs.append({"cache_gb": cache, "precision": precision, **run})
            gb = settings.files * settings.patches * settings.features * 2 / GB
            sizes = {name: getattr(settings, name) for name in ("files", "patches", "features")}
            results["training"] = {"sizes": {**sizes, "gb": gb}, "device": settings.device, "runs": runs}
    return {**results, "must_hold": bounds(results), "left_out": budget.left_out}


def bounds(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What must hold, and whether it does.

    Args:
        results: from :func:`measure`.

    Returns:
        For each: ``what``, the ``figure``, the ``bound`` in words, and whether it ``holds``.
    """
    rows = []
    rated = [rates for slide in results.get("extraction", []) for rates in slide["precisions"].items()]
    for precision, rates in rated:
        figure, bound = rates["extraction_over_slower"], LEAST_EXTRACTION_OVER_SLOWER
        what = f"extraction_over_slower, {precision}"
        rows.append({"what": what, "figure": figure, "bound": f"at least {bound:g}", "holds": figure >= bound})
    runs = results.get("training", {}).get("runs", [])
    for run in (run for run in runs if run["cache_gb"] == runs[0]["cache_gb"]):
        for name, bound in BOUNDS.items():
            what = f"{name}, {run['precision']}"
            rows.append({"what": what, "figure": run[name], "bound": f"at most {bound:g}", "holds": run[name] <= bound})
    return rows


# Extraction


def measure_extraction(path: Path, settings: Settings, backbone: nn.Module | None = None) -> dict[str, Any]:
    """Patches per second, in turns. Looking for tissue is done before and not counted; writing is.

    Args:
        path: the slide.
        settings: what is measured.
        backbone: the network; by default ResNet50.

    Returns:
        JSON-able: what the slide is, and for each precision the rates of ``network`` (on patches that are on its
        device already), ``reader`` (without a network) and ``extraction`` (from the call to the finished file), and
        ``extraction_over_slower``: the extraction's by the lower one of the others.
    """
    with Slide(path) as slide:
        mpp, dimensions = max(slide.mpp), slide.dimensions
    device = torch.device(settings.device)
    extractor = PatchExtractor(backbone or resnet50_backbone(), frozen=True).to(device).eval()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asked = slides_to_extract(name, slide=str(path))
        entries = [replace(asked.entries[0], slide=f"{copy}_{path.name}") for copy in range(settings.copies)]
        cohort = Cohort(tuple(entries), asked.schema, asked.source)
        weights = folder / "weights.pt"  # a user has some; random ones would be saved with the first features
        save_extractor_weights(extractor, weights)

        def load() -> tuple[BagDataset, BagLoader]:
            """As the bundle's extract.json has them."""
            source = SlidePatches(PatchSettings(mpp=mpp, sampling="grid"), index_dir=folder / "index")
            dataset = BagDataset(cohort, InOrder(EXTRACTOR_BATCH), source, label="extraction")
            return dataset, BagLoader(dataset, num_workers=settings.workers, pin_memory=device.type == "cuda")

        dataset, loader = load()
        patches = settings.copies * len(dataset.prepare().instances[0] or ())
        # A batch stays in its memory until the loader needs that.
        batches = [batch["image"].clone().to(device) for batch in islice(loader, BATCHES_ALONE)]  # [1, 3, n, H, W] each
        once = sum(batch.shape[2] for batch in batches)
        rounds = min(ROUNDS, -(-patches // once))

        def network(precision: str) -> float:
            def run() -> None:
                for batch in batches * rounds:
                    _extract(extractor, batch, precision)

            return rounds * once / seconds(lambda: _finish(run, device))

        def reader() -> float:
            dataset, loader = load()
            dataset.prepare()
            return patches / seconds(lambda: deque(loader, maxlen=0))  # the start of its workers included

        def extraction(precision: str) -> float:
            dataset, loader = load()
            with tempfile.TemporaryDirectory(dir=folder) as output:
                work = Extraction(dataset, loader, extractor, output, device, "float16", precision, str(weights))
                return patches / seconds(work.run)

        precisions = {}
        for precision in settings.precisions:
            with torch.inference_mode():
                _extract(extractor, batches[0], precision)  # warms up
                measured = in_turns(
                    {
                        "network": lambda: network(precision),  # noqa: B023
                        "reader": reader,
                        "extraction": lambda: extraction(precision),  # noqa: B023
                    },
                    EXTRACTION_TURNS,
                )
            rates = {name: median(values) for name, values in measured.items()}
            precisions[precision] = {
                **{f"{name}_patches_per_s": rate for name, rate in rates.items()},
                "extraction_over_slower": rates["extraction"] / min(rates["network"], rates["reader"]),
            }
    described = {"file": path.name, "pixels": list(dimensions), "mpp": mpp, "copies": settings.copies}
    return {**described, "patches": patches, "device": settings.device, "precisions": precisions}


def _extract(extractor: PatchExtractor, image: Tensor, precision: str) -> Tensor:
    dtype = AUTOCAST[precision]
    with torch.autocast(image.device.type, dtype=dtype, enabled=dtype is not None):
        features: Tensor = extractor(image)
    return features


def _finish(run: Callable[[], None], device: torch.device) -> None:
    """Run, and wait until the device is done."""
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()


# Training


def write_folder(folder: Path, settings: Settings) -> None:
    """Write features of slides that do not exist: normal random numbers, the same in every file, in another order.

    Args:
        folder: where they go.
        settings: how many.

    Raises:
        UserError: if the disk has no room for them.
    """
    free = shutil.disk_usage(folder).free / GB
    needed = OVERHEAD * settings.files * settings.patches * settings.features * 2 / GB
    if free < needed:
        raise UserError(
            f"The features take {needed:.1f} GB, and {folder} has room for {free:.1f} GB. Name another folder with "
            "--folder, or measure fewer or smaller files (--files, --patches, --features)."
        )
    made = Made("random numbers", mpp=0.25, patch_size=SIDE)
    generator = np.random.default_rng(0)
    features = generator.standard_normal((settings.patches, settings.features), np.float32).astype(np.float16)
    row = math.isqrt(settings.patches - 1) + 1  # patches beside each other
    coords = np.stack(np.divmod(np.arange(settings.patches), row)[::-1], axis=1) * SIDE  # [n, 2]
    for entry in cohort_of(settings, 0, settings.files).entries:
        rows = np.roll(features, entry.row, axis=0)
        write_features(feature_file(folder, entry.slide), rows, coords, made, (SIDE, SIDE))


def cohort_of(settings: Settings, first: int, last: int) -> Cohort:
    """The slides from number ``first`` to ``last``, which is left out; each a patient with a random record."""
    records = np.random.default_rng(1).standard_normal((settings.files, sum(GROUPS)), np.float32)
    entries = [
        SlideEntry(f"{n}.svs", Path(f"{n}.svs"), f"P{n}", n % len(CLASSES), records[n], None, None, n + 1)
        for n in range(first, last)
    ]
    return Cohort(tuple(entries), ClinicalSchema.without_record(CLASSES), "")


def measure_training(folder: Path, settings: Settings, cache_gb: float, precision: str) -> dict[str, Any]:
    """An epoch of training on features against the bare computation; to be called in a process of its own.

    Args:
        folder: of the features.
        settings: what is measured.
        cache_gb: see :class:`~persam_monai.data.FeatureFiles`.
        precision: of the network.

    Returns:
        JSON-able:

        * ``cold``: whether the files came from the disk at first, not from the system's memory;
        * ``start_s``: from looking into all files to the first batch;
        * ``first_pass_s`` and ``later_pass_s``: all batches of an epoch without the network;
        * ``epoch_s`` and ``bare_s``: an epoch's steps on its batches, and as many on one batch that is in memory;
        * ``first_epoch_over_bare`` and ``later_epoch_over_bare``: whichever was not measured with the network is
          the bare computation and a pass, one after the other;
        * ``measured``: which of the two was measured, and how many of its batches;
        * ``peak_gb``: the most memory of the process at any time (10^9 bytes; anonymous, shared and mapped), after the
          other slides were read as validation reads them.
    """
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    learner = _Learner(settings, precision)
    cold = _evict(folder)
    start = time.perf_counter()
    source, draw = FeatureFiles(folder, cache_gb=cache_gb), RandomBags(BAG, BAGS)
    training = max(1, round(TRAINED_SHARE * settings.files))

    def load(first: int, last: int, label: str) -> BagLoader:
        bags = BagDataset(cohort_of(settings, first, last), draw, source, augment=True, label=label).prepare()
        return BagLoader(bags, BATCH, shuffle=label == "training", pin_memory=learner.device.type == "cuda")

    loader = load(0, training, "training")
    others = load(training, settings.files, "validation") if training < settings.files else None

    def order(epoch: int) -> list[BagKey]:
        assert isinstance(loader.sampler, EpochSampler)
        loader.sampler.set_epoch(epoch)
        return loader.sampler.order()

    def read(loader: BagLoader, keys: list[BagKey]) -> float:
        return seconds(lambda: deque(loader.batches(keys), maxlen=0))

    batch = next(loader.batches(order(0)))
    start_s = time.perf_counter() - start
    learner.learn(repeat(batch, WARM_UP))
    full = settings.stretch_batches is None
    first_pass_s = None if full else read(loader, order(0))
    keys = order(0 if full else 1)
    total = -(-len(keys) // BATCH)
    parts = stretches(total, settings.stretches, settings.stretch_batches)
    with_data, bare = [], []
    for first, last in parts:
        with_data.append(learner.learn(loader.batches(keys[first * BATCH : last * BATCH])))
        bare.append(learner.learn(repeat(batch, last - first)))
    epoch_s, bare_s = (_of_epoch(times, parts, total) for times in (with_data, bare))
    later_pass_s = read(loader, order(2))
    if others is not None:  # one bag of each slide fills the cache as far as it may be filled
        read(others, [BagKey(slide, 0, 0) for slide in range(settings.files - training)])
    by_parts = 1 + (later_pass_s if first_pass_s is None else first_pass_s) / bare_s
    return {
        "cold": cold,
        "start_s": start_s,
        "first_pass_s": first_pass_s,
        "later_pass_s": later_pass_s,
        "epoch_s": epoch_s,
        "bare_s": bare_s,
        "bags": len(keys),
        "first_epoch_over_bare": epoch_s / bare_s if full else by_parts,
        "later_epoch_over_bare": by_parts if full else epoch_s / bare_s,
        "measured": {
            "epoch": "first" if full else "later",
            "batches": sum(last - first for first, last in parts),
            "of": total,
        },
        "peak_gb": peak_bytes() / GB,
    }


class _Learner:
    """A network on features, its loss and its optimiser, as a training has them."""

    def __init__(self, settings: Settings, precision: str) -> None:
        self.device = torch.device(settings.device)
        head = PersAMHead(len(CLASSES), GROUPS, settings.features)
        head.fit_records(torch.randn(100, sum(GROUPS)))
        self.network = AttendingNetwork(PersAMOnFeatures(head), precision).to(self.device).train()
        self.loss = PersAMLoss([1] * len(CLASSES)).to(self.device)
        groups = parameter_groups(self.network.network)
        self.optimizer = torch.optim.SGD(groups, 2e-4, momentum=0.9, nesterov=True)

    def learn(self, batches: Iterable[Batch]) -> float:
        """Seconds to learn from batches."""

        def run() -> None:
            for batch in batches:
                image, labels, _, inputs = prepare_bags(batch, self.device, non_blocking=True)
                self.optimizer.zero_grad()
                self.loss(self.network(image, **inputs), labels).backward()
                self.optimizer.step()

        return seconds(lambda: _finish(run, self.device))


def stretches(total: int, count: int, length: int | None) -> list[tuple[int, int]]:
    """Parts of an epoch, first and last batch (left out) of each.

    Args:
        total: batches of the epoch.
        count: most parts.
        length: batches of each, spread evenly over the epoch; ``None`` divides all batches.
    """
    if length is None or count * length >= total:
        borders = [round(total * part / count) for part in range(count + 1)]
        return [(first, last) for first, last in pairwise(borders) if last > first]
    gap = (total - count * length) / max(1, count - 1)
    return [(first, first + length) for first in (round(part * (length + gap)) for part in range(count))]


def _of_epoch(times: Sequence[float], parts: Sequence[tuple[int, int]], total: int) -> float:
    """Seconds of an epoch by those of its stretches: their sum if they are all, else by their median per batch."""
    counts = [last - first for first, last in parts]
    if sum(counts) == total:
        return sum(times)
    return total * median(taken / count for taken, count in zip(times, counts, strict=True))


def _evict(folder: Path) -> bool:
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


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure")
    parser.add_argument("--minutes", type=float, default=3.0, help="after which nothing more begins")
    parser.add_argument("--folder", type=Path, help="where slide and features are made, and removed; None: temporary")
    parser.add_argument("--device", default="cpu", help="runs the network")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of PyTorch")
    parser.add_argument("--precision", nargs="+", choices=list(AUTOCAST), help="of the network; None: all fast ones")
    extraction = parser.add_argument_group("extraction")
    extraction.add_argument("--slide-side", type=int, choices=SIDES, default=Settings.slide_side, help="pixels")
    extraction.add_argument("--workers", type=int, default=Settings.workers, help="processes that read")
    extraction.add_argument("--copies", type=int, default=Settings.copies, help="of the slide, in one call")
    training = parser.add_argument_group("training on features")
    training.add_argument("--files", type=int, default=Settings.files, help="slides with features, 60 %% to learn from")
    training.add_argument("--patches", type=int, default=Settings.patches, help="of each slide")
    training.add_argument("--features", type=int, default=Settings.features, help="of each patch")
    training.add_argument(
        "--cache-gb", nargs="+", type=float, default=Settings.caches, help="a run of each; the first has bounds"
    )
    training.add_argument("--stretches", type=int, default=Settings.stretches, help="of the epoch, in turns")
    training.add_argument("--stretch-batches", type=int, default=Settings.stretch_batches, help="batches of each")
    training.add_argument("--full", action="store_true", help="measure the whole first epoch")
    asked = parser.parse_args()
    if asked.folder is not None and not asked.folder.is_dir():
        parser.error(f"--folder {asked.folder}: there is no such folder")
    settings = Settings(
        asked.precision or list(dict.fromkeys(("float32", resolve_precision("auto", asked.device)))),
        asked.device,
        asked.threads,
        asked.slide_side,
        asked.workers,
        asked.copies,
        asked.files,
        asked.patches,
        asked.features,
        asked.cache_gb,
        asked.stretches,
        None if asked.full else asked.stretch_batches,
    )
    try:
        results = measure(asked.only, settings, asked.folder, asked.minutes)
    except UserError as error:
        sys.exit(f"Error: {error}")
    print(json.dumps(results, indent=2) if asked.json else as_text(results))


if __name__ == "__main__":
    main()
