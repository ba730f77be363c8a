# SPDX-License-Identifier: Apache-2.0
"""Features of whole slides, computed once and kept in files."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import persam_monai
from persam_monai.cohort import SlideEntry
from persam_monai.data import (
    BagDataset,
    BagLoader,
    Made,
    PatchSettings,
    SlideInstances,
    feature_file,
    read_info,
    write_features,
)
from persam_monai.data.feature_finding import check_distinct, fingerprint
from persam_monai.data.feature_made import differences, short
from persam_monai.engines.outputs import make_writable, report_skipped
from persam_monai.errors import UserError, raise_together
from persam_monai.files import read_tensors
from persam_monai.handlers.running import orderly_end
from persam_monai.networks import PatchExtractor, load_extractor_weights, resolve_precision, save_extractor_weights
from persam_monai.networks.extractor import check_extractor, extractor_name
from persam_monai.networks.precision import AUTOCAST
from persam_monai.networks.weights import brings_weights, state_sha256, weights_sha256
from persam_monai.screen import log_to
from persam_monai.settings import check_settings

logger = logging.getLogger(__name__)

FORM = 1  # to be raised by whoever changes the extraction so that other features result
# Kept in the files, but features do not depend on them beyond the last bits.
FREE = frozenset({"backend", "extractor_batch"})
RANDOM_WEIGHTS = "extractor.pt"
QUEUED = 2  # slides that wait for their files: their features take the device's memory
CURE = "Name another --features_dir, or replace them with --overwrite true"

Network = Callable[[Tensor], Tensor]


@dataclass
class Extraction:
    """Writes the features of every slide that has none, each into a file of its own.

    Whatever ends the work, the files that are there are whole; the same call goes on with those that are not. Several
    processes may write into one folder, each a part of the slides.

    Args:
        dataset: every patch of the slides, in order (:class:`persam_monai.data.InOrder`).
        loader: reads it, one bag in a batch.
        extractor: from patches to features.
        features_dir: where the files go; see :func:`persam_monai.data.feature_file`.
        device: runs the extractor.
        dtype: of the features in the files.
        precision: see :func:`persam_monai.networks.resolve_precision`; under ``auto``, files that were made in the
            other precision stay as they are, so that machines of two kinds can fill one folder.
        extractor_weights: see :func:`persam_monai.networks.load_extractor_weights`.
        overwrite: replace files that were made with other settings.
    """

    dataset: BagDataset
    loader: BagLoader
    extractor: PatchExtractor
    features_dir: str | os.PathLike[str]
    device: torch.device | str = "cpu"
    dtype: str = "float16"
    precision: str = "auto"
    extractor_weights: str | None = None
    overwrite: bool = False

    def run(self) -> None:
        """Extract."""
        check_settings({"features_dtype": self.dtype})
        folder = Path(self.features_dir)
        make_writable(folder, "features_dir")
        with log_to(Path(self.dataset.bad_slides.file or folder / "extraction").with_name("extraction.log")):
            self._extract(folder, torch.device(self.device))

    def _extract(self, folder: Path, device: torch.device) -> None:
        dataset, extractor = self.dataset, self.extractor
        arithmetic = resolve_precision(self.precision, str(device))
        load_extractor_weights(extractor, self.extractor_weights)
        made = made_with(extractor, dataset.source.patches, arithmetic, dataset.draw.bag_size)
        files = [feature_file(folder, entry.slide) for entry in dataset.entries]
        check_distinct(dataset.entries, files)
        targets = [Target(entry, file, made, self.dtype) for entry, file in zip(dataset.entries, files, strict=True)]
        ignored = FREE | {"precision"} if self.precision == "auto" else FREE
        remaining = _remaining(dataset, targets, ignored, self.overwrite)
        current = len(targets) - len(remaining) - len(dataset.skipped)
        if remaining:
            check_extractor(extractor, dataset.source.patches.size, device)
            if self.extractor_weights is None and not brings_weights(extractor.backbone):
                _keep_random_weights(extractor, folder / RANDOM_WEIGHTS, self.overwrite)
            dataset.prepare(remaining)
        dataset.bad_slides.begin()
        written = 0
        if remaining:
            network = _network(extractor, device, arithmetic)
            with orderly_end(), torch.inference_mode():
                written = _write_all(dataset, self.loader, network, targets, device, current)
        report_skipped([dataset])
        logger.info(
            "Features of %d slides are in %s: %d written now, %d were there already; %d slides were skipped.",
            current + written,
            folder,
            written,
            current,
            len(dataset.skipped),
        )
        logger.info("Train on them with --features_dir %s.", folder)


def made_with(extractor: PatchExtractor, patches: PatchSettings, precision: str, batch: int) -> Made:
    """What an extraction makes features with."""
    settings = {
        "form": FORM,
        "sampling": patches.sampling,
        "min_tissue": patches.min_tissue,
        "backend": patches.backend,
        "pixel_mean": extractor.pixel_mean.tolist(),
        "pixel_std": extractor.pixel_std.tolist(),
        "input_size": extractor.input_size or None,
        "precision": precision,
        "extractor_batch": batch,
    }
    name, weights = extractor_name(extractor.backbone), weights_sha256(extractor.backbone)
    return Made(name, weights, float(patches.mpp), patches.size, settings, persam_monai.__version__)


@dataclass
class Target:
    """A slide, the file of its features, and the features as they come from the extractor.

    Attributes:
        entry: the slide.
        file: where the features go.
        made: what they are made with.
        dtype: ``float16`` or ``float32``.
        received: number of patches that have come.
    """

    entry: SlideEntry
    file: Path
    made: Made
    dtype: str
    received: int = field(default=0, init=False)
    _fingerprint: str = field(default="", init=False)
    _features: list[Tensor] = field(default_factory=list, init=False, repr=False)
    _locations: list[Tensor] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.entry.mpp is not None:  # the table's resolution in place of the file's changes what a patch is
            self.made = replace(self.made, settings={**self.made.settings, "slide_mpp": float(self.entry.mpp)})

    def differences(self, ignored: frozenset[str]) -> list[str]:
        """What distinguishes the file that is there from what it should be, for a message."""
        try:
            info = read_info(self.file)
        except UserError as error:
            return [f"it cannot be read ({error})"]
        actual, expected = (
            {name: value for name, value in {**made.facts(), "features_dtype": dtype}.items() if name not in ignored}
            for made, dtype in ((info.made, info.dtype), (self.made, self.dtype))
        )
        pairs = differences(actual, expected)
        problems = [f"{name} was {short(then)} and is now {short(now)}" for name, (then, now) in pairs.items()]
        if not problems and info.fingerprint != self.fingerprint():
            problems = ["it was made of another file than the slide's"]
        return problems

    def fingerprint(self) -> str:
        """Of the slide's file as it was when this was first asked for."""
        self._fingerprint = self._fingerprint or fingerprint(self.entry.path)
        return self._fingerprint

    def add(self, features: Tensor, locations: Tensor) -> None:
        """Take the next patches' features; nothing waits for the device here.

        Args:
            features: ``[n, D]``, on the device.
            locations: ``[n, 2]`` level-0 positions, on the host.
        """
        self._features.append(features.to(getattr(torch, self.dtype)))
        self._locations.append(locations)
        self.received += len(features)

    def clear(self) -> None:
        """Forget the features."""
        self._features, self._locations = [], []

    def write(self, extent: tuple[float, float]) -> None:
        """Write the file and forget the features."""
        features, locations = torch.cat(self._features).cpu().numpy(), torch.cat(self._locations).numpy()
        self.clear()
        write_features(self.file, features, locations, self.made, extent, self.fingerprint())


def _remaining(dataset: BagDataset, targets: Sequence[Target], ignored: frozenset[str], overwrite: bool) -> list[int]:
    """Which files are to be made. Slides that have features and cannot be read are skipped if they may be."""
    remaining, problems, unreadable = [], [], []
    for index, target in enumerate(tqdm(targets, "Looking for features", unit="slide", disable=len(targets) < 2)):
        if not os.path.lexists(target.file):
            remaining.append(index)
            continue
        try:
            changed = target.differences(ignored)
        except UserError as error:
            unreadable.append((index, error))
            continue
        if changed:
            remaining.append(index)
            if not overwrite:
                problems.append(f"{target.file}: {'; '.join(changed)}.")
    raise_together(f"Features that are there were made with other settings. {CURE}. Differences", problems, shown=5)
    for index, problem in unreadable:
        dataset.skip(index, problem)
    return remaining


def _write_all(
    dataset: BagDataset,
    loader: BagLoader,
    network: Network,
    targets: Sequence[Target],
    device: torch.device,
    current: int,
) -> int:
    """Run all patches through the network; slides are written in a thread while the next ones are read."""
    instances = {i: item for i, item in enumerate(dataset.instances) if isinstance(item, SlideInstances)}
    written, pending = 0, deque[Future[None]]()
    with (
        tqdm(desc="Extracting", total=sum(map(len, instances.values())), unit="patch", smoothing=0.05) as bar,
        ThreadPoolExecutor(1, "features") as writer,
    ):
        for batch in loader:
            index, locations = int(batch["slide"][0]), batch["locations"][0]
            target = targets[index]
            try:
                target.fingerprint()  # now: if the slide changes while it is read, its file will not count as current
            except UserError as error:
                dataset.skip(index, error)
            for skipped in dataset.skipped:
                targets[skipped].clear()
            if index in dataset.skipped:
                continue
            image = batch["image"].to(device, non_blocking=True)
            target.add(network(image)[0].transpose(0, 1), locations)
            if target.received == len(instances[index]):
                while pending and (len(pending) >= QUEUED or pending[0].done()):
                    pending.popleft().result()
                pending.append(writer.submit(target.write, instances[index].index.cells.extent))
                written += 1
            bar.update(len(locations))
            bar.set_postfix_str(f"slides={current + written}/{len(targets)}", refresh=False)
        for future in pending:
            future.result()
    return written


def _network(extractor: PatchExtractor, device: torch.device, precision: str) -> Network:
    """The extractor as it is run: on its device, in eval mode, under autocast."""
    extractor.to(device).eval()
    dtype = AUTOCAST[precision]

    def run(image: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            features: Tensor = extractor(image)
        return features

    return run


def _keep_random_weights(extractor: PatchExtractor, file: Path, overwrite: bool) -> None:
    """Keep weights that exist nowhere else, so that new slides can be given the same features."""
    if file.exists() and not overwrite:
        kept = read_tensors(file, f"Remove it, or name another --features_dir. {CURE}.")
        if state_sha256(kept) != weights_sha256(extractor.backbone):
            raise UserError(
                f"extractor_weights is null, and the extractor's random weights are not those that {file} keeps from "
                f"an earlier extraction into this folder. Take those with --extractor_weights {file}, go back to the "
                "earlier --seed, or name another --features_dir."
            )
    else:
        save_extractor_weights(extractor, file)
    logger.warning(
        "extractor_weights is null: the extractor has random weights, and features of random weights tell little. They "
        "are kept in %s; for the same features of other slides, give that file as --extractor_weights.",
        file,
    )
