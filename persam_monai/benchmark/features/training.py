# SPDX-License-Identifier: Apache-2.0
"""Training on features against the bare computation, each run in a process of its own.

``python -m persam_monai.benchmark.features.training`` takes a :class:`Run` as JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise, repeat
from pathlib import Path
from statistics import median
from typing import Any

import torch

from persam_monai.benchmark.features.folder import CLASSES, GB, GROUPS, Sizes, cohort, evict
from persam_monai.data import BagDataset, BagKey, BagLoader, EpochSampler, RandomBags, prepare_bags
from persam_monai.data.batches import Batch
from persam_monai.data.features import FeatureFiles
from persam_monai.engines import AttendingNetwork
from persam_monai.losses import PersAMLoss
from persam_monai.networks import PersAMHead, PersAMOnFeatures, parameter_groups

WARM_UP = 3  # steps before the clock starts: memory is taken, kernels are chosen


@dataclass(frozen=True)
class Run:
    """What is measured.

    Attributes:
        folder: of the features.
        sizes: of the cohort that they belong to.
        cache_gb: see :class:`~persam_monai.data.features.FeatureFiles`.
        precision: ``float32`` or ``bf16``.
        device: runs the network.
        threads: of PyTorch.
        stretches: parts of the epoch, spread over it, that take turns with as much bare computation.
        batches: of each stretch; ``None`` divides the whole epoch.
        cold: let the system forget the files before the run.
    """

    folder: str
    sizes: Sizes = field(default_factory=Sizes)
    cache_gb: float = 4.0
    precision: str = "float32"
    device: str = "cpu"
    threads: int = 2
    stretches: int = 8
    batches: int | None = 15
    cold: bool = True


def measure_training(run: Run) -> dict[str, Any]:
    """Run it in a process of its own.

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

    Raises:
        RuntimeError: if the process fails; with what it printed.
    """
    words = [sys.executable, "-m", "persam_monai.benchmark.features.training", json.dumps(asdict(run))]
    result = subprocess.run(words, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"Training on features with cache_gb {run.cache_gb:g} failed:\n{result.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


class _Training:
    """What a run measures, as a training would have it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.device = torch.device(run.device)
        head = PersAMHead(len(CLASSES), GROUPS, run.sizes.features)
        head.fit_records(torch.randn(100, sum(GROUPS)))
        self.network = AttendingNetwork(PersAMOnFeatures(head), run.precision).to(self.device).train()
        self.loss = PersAMLoss([1] * len(CLASSES)).to(self.device)
        groups = parameter_groups(self.network.network)
        self.optimizer = torch.optim.SGD(groups, 2e-4, momentum=0.9, nesterov=True)

    def prepare(self) -> Batch:
        """Look into all files, those of validation too, and take the first batch."""
        run, sizes = self.run, self.run.sizes
        source = FeatureFiles(run.folder, cache_gb=run.cache_gb)
        draw = RandomBags(sizes.bag_size, sizes.bags)
        parts = {"training": (0, sizes.training), "validation": (sizes.training, sizes.files)}
        self.loaders = []
        for label, (first, last) in parts.items():
            bags = BagDataset(cohort(sizes, first, last), draw, source, augment=True, label=label)
            self.loaders.append(
                BagLoader(
                    bags.prepare() if last > first else bags,
                    sizes.batch_size,
                    shuffle=label == "training",
                    pin_memory=self.device.type == "cuda",
                )
            )
        return next(self.loaders[0].batches(self.order(0)))

    def order(self, epoch: int) -> list[BagKey]:
        """All bags of an epoch in random order."""
        sampler = self.loaders[0].sampler
        assert isinstance(sampler, EpochSampler)
        sampler.set_epoch(epoch)
        return sampler.order()

    def read(self, keys: list[BagKey]) -> float:
        """Seconds to read bags, without the network."""
        return _seconds(lambda: deque(self.loaders[0].batches(keys), maxlen=0))

    def learn(self, keys: list[BagKey]) -> float:
        """Seconds to learn from bags."""
        return self._timed(self.loaders[0].batches(keys))

    def learn_again(self, batch: Batch, times: int) -> float:
        """Seconds to learn from one batch so many times."""
        return self._timed(repeat(batch, times))

    def read_others(self) -> None:
        """Read one bag of each slide of the validation, which fills the cache as far as it may be filled."""
        loader, count = self.loaders[1], self.run.sizes.files - self.run.sizes.training
        if count:
            deque(loader.batches([BagKey(slide, 0, 0) for slide in range(count)]), maxlen=0)

    def _timed(self, batches: Iterable[Batch]) -> float:
        def steps() -> None:
            for batch in batches:
                self._step(batch)
            if self.device.type == "cuda":
                torch.cuda.synchronize()

        return _seconds(steps)

    def _step(self, batch: Batch) -> None:
        image, labels, _, inputs = prepare_bags(batch, self.device, non_blocking=True)
        self.optimizer.zero_grad()
        self.loss(self.network(image, **inputs), labels).backward()
        self.optimizer.step()


def _measure(run: Run) -> dict[str, Any]:
    torch.set_num_threads(run.threads)
    torch.manual_seed(0)
    training = _Training(run)
    cold = run.cold and evict(Path(run.folder))
    start = time.perf_counter()
    batch = training.prepare()
    start_s = time.perf_counter() - start
    training.learn_again(batch, WARM_UP)

    size, full = run.sizes.batch_size, run.batches is None
    first_pass_s = None if full else training.read(training.order(0))
    keys = training.order(0 if full else 1)
    total = -(-len(keys) // size)
    with_data, bare, taken = [], [], 0
    for first, last in stretches(total, run.stretches, run.batches):
        seconds = training.learn(keys[first * size : last * size])
        with_data.append((seconds, last - first))
        bare.append((training.learn_again(batch, last - first), last - first))
        taken += last - first
    epoch_s, bare_s = (_of_epoch(times, total) for times in (with_data, bare))
    later_pass_s = training.read(training.order(2))
    training.read_others()
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
        "measured": {"epoch": "first" if full else "later", "batches": taken, "of": total},
        "peak_gb": _peak(),
    }


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


def _of_epoch(times: Sequence[tuple[float, int]], total: int) -> float:
    """Seconds of an epoch by seconds and batches of its stretches: their sum if they are all, else by their median."""
    if sum(count for _, count in times) == total:
        return sum(seconds for seconds, _ in times)
    return total * median(seconds / count for seconds, count in times)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _peak() -> float:
    """The most memory that this process has held, in GB."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+)", status.read_text()) if status.exists() else None
    return (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024 / GB


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=json.loads)
    asked = parser.parse_args().run
    print(json.dumps(_measure(Run(**{**asked, "sizes": Sizes(**asked["sizes"])}))))


if __name__ == "__main__":
    main()
