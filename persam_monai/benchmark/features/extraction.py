# SPDX-License-Identifier: Apache-2.0
"""Extraction as it is run, against its network alone and its reader alone."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from persam_monai.cohort import Cohort
from persam_monai.data import BagDataset, BagLoader, InOrder, PatchSettings, SlidePatches
from persam_monai.engines import extract, slides_to_extract
from persam_monai.networks import AUTOCAST, PatchExtractor, resnet50_backbone, save_extractor_weights
from persam_monai.slides import Slide


@dataclass(frozen=True)
class ExtractionEffort:
    """How much work the measurement is.

    Attributes:
        precisions: of the network.
        repeats: turns of which the median counts.
        batches: that the network is given alone, again and again until it has had as many patches as the slide has,
            at most ``rounds`` times.
        rounds: see ``batches``.
        batch: patches in a batch.
        workers: processes that read.
        device: runs the network.
        copies: times that the slide is extracted in one call, each under a name of its own. Fast devices need more
            than one slide before what is done once, such as starting the workers, counts for little.
    """

    precisions: Sequence[str] = ("float32", "bf16")
    repeats: int = 3
    batches: int = 4
    rounds: int = 2
    batch: int = 64
    workers: int = 2
    device: str = "cpu"
    copies: int = 1


def measure_extraction(
    path: Path,
    effort: ExtractionEffort = ExtractionEffort(),
    make_backbone: Callable[[], nn.Module] = resnet50_backbone,
) -> dict[str, Any]:
    """Patches per second, in turns. Looking for tissue is done before and not counted; writing is.

    Args:
        path: the slide.
        effort: how much work a measurement is.
        make_backbone: makes the network.

    Returns:
        JSON-able: what the slide is, and for each precision the rates of ``network`` (on patches that are on its
        device already), ``reader`` (without a network) and ``extraction`` (from the call to the file that is there),
        and ``extraction_over_slower``: the extraction's by the lower one of the others.

    Raises:
        UserError: if the slide cannot be read, or holds no tissue.
    """
    with tempfile.TemporaryDirectory() as name, Slide(path) as slide:
        subject = _Subject(path, max(slide.mpp), PatchExtractor(make_backbone(), frozen=True), Path(name), effort)
        found = {
            "file": path.name,
            "pixels": list(slide.dimensions),
            "mpp": max(slide.mpp),
            "copies": effort.copies,
            "patches": subject.patches,
            "device": effort.device,
        }
        return {**found, "precisions": {one: _rates(subject, one, effort.repeats) for one in effort.precisions}}


def _rates(subject: _Subject, precision: str, repeats: int) -> dict[str, float]:
    contenders: dict[str, Callable[[str], float]] = {
        "network": subject.network_rate,
        "reader": lambda _: subject.reader_rate(),
        "extraction": subject.extraction_rate,
    }
    subject.warm_up(precision)
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            measured[name].append(run(precision))
    rates = {f"{name}_patches_per_s": median(values) for name, values in measured.items()}
    return {**rates, "extraction_over_slower": over_slower(rates)}


def over_slower(rates: dict[str, float]) -> float:
    """The extraction's rate by that of what it waits for."""
    slower = min(rates["network_patches_per_s"], rates["reader_patches_per_s"])
    return rates["extraction_patches_per_s"] / slower


class _Subject:
    """A slide and what takes its patches.

    Args:
        path: the slide.
        mpp: µm per pixel of its patches.
        extractor: with weights.
        folder: for what is written.
        effort: batches and workers.
    """

    def __init__(
        self, path: Path, mpp: float, extractor: PatchExtractor, folder: Path, effort: ExtractionEffort
    ) -> None:
        self.settings = PatchSettings(mpp=mpp, sampling="grid")
        self.folder, self.effort = folder, effort
        self.device = torch.device(effort.device)
        self.extractor = extractor.to(self.device).eval()
        one = slides_to_extract(str(folder), slide=str(path))
        entries = [replace(one.entries[0], slide=f"{copy}_{path.name}") for copy in range(effort.copies)]
        self.cohort = Cohort(tuple(entries), one.schema, one.source)
        self.weights = folder / "weights.pt"  # a user has some; random ones would be saved with the first features
        save_extractor_weights(extractor, self.weights)
        dataset, loader = self._bags()
        # What is found is kept for the extraction.
        self.patches = effort.copies * len(dataset.prepare().instances[0] or ())
        # A batch stays where it is until the loader needs its memory.
        self.batches = [batch["image"].clone() for batch in islice(loader, effort.batches)]

    def _bags(self) -> tuple[BagDataset, BagLoader]:
        """As the bundle's extract.json has them."""
        source = SlidePatches(self.settings, index_dir=self.folder / "index")
        dataset = BagDataset(self.cohort, InOrder(self.effort.batch), source, label="extraction")
        return dataset, BagLoader(dataset, num_workers=self.effort.workers, pin_memory=self.device.type == "cuda")

    def warm_up(self, precision: str) -> None:
        """One batch through the network."""
        with torch.inference_mode():
            self._network(self.batches[0].to(self.device), precision)

    def network_rate(self, precision: str) -> float:
        """Patches per second of the network alone."""
        with torch.inference_mode():
            batches = [batch.to(self.device) for batch in self.batches]  # [1, 3, n, H, W] each
            once = sum(batch.shape[2] for batch in batches)
            rounds = min(self.effort.rounds, -(-self.patches // once))
            self._wait()
            start = time.perf_counter()
            for batch in batches * rounds:
                self._network(batch, precision)
            self._wait()
            return rounds * once / (time.perf_counter() - start)

    def reader_rate(self) -> float:
        """Patches per second of the reader alone, the start of its workers included, as the extraction's is."""
        dataset, loader = self._bags()
        dataset.prepare()
        start = time.perf_counter()
        deque(loader, maxlen=0)
        return self.patches / (time.perf_counter() - start)

    def extraction_rate(self, precision: str) -> float:
        """Patches per second from the call of the extraction until the file is there."""
        dataset, loader = self._bags()
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            start = time.perf_counter()
            extract(
                dataset,
                loader,
                self.extractor,
                name,
                self.device,
                precision=precision,
                extractor_weights=str(self.weights),
            )
            return self.patches / (time.perf_counter() - start)

    def _network(self, image: Tensor, precision: str) -> Tensor:
        dtype = AUTOCAST[precision]
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            features: Tensor = self.extractor(image)
        return features

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
