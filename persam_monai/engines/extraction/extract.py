# SPDX-License-Identifier: Apache-2.0
"""From slides to a folder with their features."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor
from tqdm import tqdm

from persam_monai.data import BagDataset, BagLoader
from persam_monai.data.bad_slides import OR_SKIP
from persam_monai.engines.extraction.locks import FileLock, lock_file
from persam_monai.engines.extraction.remaining import RemainingSlides
from persam_monai.engines.extraction.targets import CURE, Target, UnreadableSlideError, made_with, targets
from persam_monai.engines.extraction.work import Extraction
from persam_monai.engines.outputs import make_writable
from persam_monai.engines.skipping import report_skipped
from persam_monai.errors import UserError, raise_together
from persam_monai.files import read_tensors
from persam_monai.networks import (
    AUTOCAST,
    PatchExtractor,
    brings_weights,
    check_extractor,
    load_extractor_weights,
    resolve_precision,
    save_extractor_weights,
)
from persam_monai.settings import check_settings, is_null, is_yes

logger = logging.getLogger(__name__)

RANDOM_WEIGHTS = "extractor.pt"


def extract(
    dataset: BagDataset,
    loader: BagLoader,
    extractor: PatchExtractor,
    features_dir: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    dtype: str = "float16",
    precision: str = "auto",
    extractor_weights: str | None = None,
    overwrite: str | bool = False,
) -> None:
    """Write the features of every slide that has none, each into a file of its own.

    Several processes may share the folder. Whatever ends the work, the files that are there are whole; the same call
    goes on with those that are not.

    Args:
        dataset: every patch of the slides, in order (:class:`persam_monai.data.InOrder`).
        loader: reads it, one bag in a batch.
        extractor: from patches to features.
        features_dir: where the files go; see :func:`persam_monai.data.features.feature_file`.
        device: runs the extractor.
        dtype: of the features in the files.
        precision: see :func:`persam_monai.networks.resolve_precision`; under ``auto``, files that were made in the
            other precision stay as they are, so that machines of two kinds can share the folder.
        extractor_weights: see :func:`persam_monai.networks.load_extractor_weights`.
        overwrite: replace files that were made otherwise.

    Raises:
        UserError: for whatever the user can mend.
    """
    check_settings({"features_dtype": dtype})
    folder, device = Path(features_dir), torch.device(device)
    used = resolve_precision(precision, device)
    make_writable(folder, "features_dir")
    load_extractor_weights(extractor, extractor_weights)
    made = made_with(extractor, dataset.source.patches, used, dataset.draw.bag_size)
    wanted = targets(dataset.entries, folder, made, dtype, is_yes(overwrite), any_precision=precision == "auto")
    remaining, there = _remaining(dataset, wanted)
    work = Extraction(dataset, loader, _Network(extractor, device, used), wanted, device)
    if remaining:
        check_extractor(extractor, dataset.source.patches.size, device)
        if is_null(extractor_weights) and not brings_weights(extractor.backbone):
            _keep_random_weights(extractor, folder / RANDOM_WEIGHTS, is_yes(overwrite))
        dataset.source = RemainingSlides(dataset.source, remaining)
        dataset.prepare()
    dataset.bad_slides.begin()
    if remaining:
        with _orderly_end(), torch.inference_mode():
            work.run(remaining, there)
    report_skipped([dataset])
    logger.info(
        "Features of %d slides are in %s: %d written now, %d were there already, %d come from other processes; %d "
        "slides were skipped.",
        len(wanted) - len(dataset.skipped),
        folder,
        work.written,
        there,
        work.by_others,
        len(dataset.skipped),
    )


def _remaining(dataset: BagDataset, wanted: Sequence[Target]) -> tuple[list[int], int]:
    """Which files are to be made, and how many are there; slides that cannot be read are skipped if they may be.

    Raises:
        UserError: lists the files that are there, were made otherwise, and may not be replaced; or the slides that
            have features but cannot be read.
    """
    there, remaining, problems = 0, [], []
    unreadable: dict[int, UnreadableSlideError] = {}
    for place, target in enumerate(tqdm(wanted, "Looking for features", unit="slide", disable=len(wanted) < 2)):
        try:
            differences = target.differences()
        except UnreadableSlideError as error:
            unreadable[place] = error
            continue
        if differences == []:
            there += 1
            _remove_stale_lock(target.file)
            continue
        remaining.append(place)
        if differences and not target.overwrite:
            problems.append(f"{target.file}: {'; '.join(differences)}.")
    raise_together(f"Features that are there were made otherwise. {CURE}. Found", problems, shown=5)
    if not dataset.bad_slides.skip:
        raise_together(f"Some slides cannot be used. {OR_SKIP} Problems", [str(one) for one in unreadable.values()])
    for place, problem in unreadable.items():
        dataset.skip(place, problem)
    return remaining, there


def _remove_stale_lock(file: Path) -> None:
    """Remove the lock of a process that was killed after it had written the file."""
    if lock_file(file).exists():
        lock = FileLock.take(file)
        if lock is not None:
            lock.release()


class _Network:
    """The extractor as it is run: on its device, in eval mode, under autocast."""

    def __init__(self, extractor: PatchExtractor, device: torch.device, precision: str) -> None:
        self.extractor = extractor.to(device).eval()
        self.device = device
        self.dtype = AUTOCAST[precision]

    def __call__(self, image: Tensor) -> Tensor:
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            features: Tensor = self.extractor(image)
        return features


def _keep_random_weights(extractor: PatchExtractor, file: Path, overwrite: bool) -> None:
    """Keep weights that nobody has elsewhere, so that new slides can be given the same features.

    Raises:
        UserError: if others are kept there already.
    """
    if file.exists() and not overwrite:
        kept, now = read_tensors(file, f"Remove it, or name another --features_dir. {CURE}."), extractor.backbone
        mine = {name: tensor.cpu() for name, tensor in now.state_dict().items() if "num_batches" not in name}
        if not all(name in kept and torch.equal(kept[name], tensor) for name, tensor in mine.items()):
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


@contextmanager
def _orderly_end() -> Iterator[None]:
    """Let SIGTERM, by which schedulers end jobs, end the block as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
