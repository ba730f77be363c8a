# SPDX-License-Identifier: Apache-2.0
"""Slides become files of features, beside other processes that do the same."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from enum import Enum, auto
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from persam_monai.data import BagDataset, BagKey, BagLoader, SlideInstances
from persam_monai.engines.extraction.locks import FileLock
from persam_monai.engines.extraction.targets import Target, UnreadableSlideError
from persam_monai.engines.extraction.writer import SlideFeatures, Writer

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0  # seconds between two looks at what other processes have locked

Network = Callable[[Tensor], Tensor]


class Claim(Enum):
    """What came of asking for a slide."""

    OURS = auto()
    BUSY = auto()  # another process has it
    DONE = auto()  # another process has had it


class Extraction:
    """Goes through slides until all have their files, whoever makes them.

    A slide is locked when its first patches are about to be read, and let go of when its file is there, so that any
    number of processes can share the work. Nobody waits for a lock while holding one.

    Args:
        dataset: bags of the slides, prepared; each slide's patches in order.
        loader: reads them, one bag in a batch.
        network: from ``[1, 3, n, H, W]`` on the device to ``[1, D, n]``.
        targets: the files, as the dataset's entries.
        device: where the network is.
    """

    def __init__(
        self,
        dataset: BagDataset,
        loader: BagLoader,
        network: Network,
        targets: Sequence[Target],
        device: torch.device,
    ) -> None:
        self.dataset = dataset
        self.loader = loader
        self.network = network
        self.targets = targets
        self.device = device
        self.writer = Writer()
        self.by_others = 0
        self._ours: dict[int, SlideFeatures] = {}  # slides that are being read
        self._locks: list[FileLock] = []
        self._busy: list[int] = []
        self._begin = time.monotonic()
        self._warned = False

    @property
    def written(self) -> int:
        """How many files this process has written."""
        return self.writer.written

    def run(self, slides: Sequence[int], before: int) -> None:
        """Make the files.

        Args:
            slides: places of the entries that have none.
            before: how many others have theirs already, for the progress bar.

        Raises:
            UserError: for whatever the user can mend.
        """
        self._before = before
        patches = sum(self._patches(slide) for slide in slides)
        with tqdm(desc="Extracting", total=patches, unit="patch", smoothing=0.05) as self._bar:
            try:
                with self.writer:
                    self._go_through(slides)
            finally:  # only now that nothing is being written any more
                for lock in self._locks:
                    lock.release()

    def _go_through(self, slides: Sequence[int]) -> None:
        left = self._wait_for_one(slides)
        while left:
            self._busy = []
            with closing(self.loader.batches(self._keys(left))) as batches:
                for batch in batches:
                    self._take(batch)
            self._let_go_of_skipped()
            self.writer.finish()
            self._tell()
            left = self._wait_for_one(self._busy)

    def _keys(self, slides: Sequence[int]) -> Iterator[BagKey]:
        """The bags of slides that are nobody else's, which is found out when they are about to be read."""
        for slide in slides:
            claim = Claim.OURS if slide in self._ours else self._claim(slide)
            if claim is Claim.BUSY:
                self._busy.append(slide)
            if claim is Claim.OURS:
                for bag in range(self.dataset.draw.count(self._patches(slide))):
                    if slide not in self.dataset.skipped:
                        yield BagKey(slide, 0, bag)

    def _claim(self, slide: int) -> Claim:
        """Lock a slide's file, unless somebody else works on it or has made it."""
        target, one = self.targets[slide], self.dataset.instances[slide]
        if slide in self.dataset.skipped or not isinstance(one, SlideInstances):
            return Claim.DONE
        lock = FileLock.take(target.file)
        if lock is None:
            return Claim.BUSY
        self._locks.append(lock)
        try:
            there = target.is_there()
            _ = target.fingerprint  # before the slide is read: if it changes meanwhile, the file will not be current
        except UnreadableSlideError as error:
            lock.release()
            self._bar.total -= len(one)
            self.dataset.skip(slide, error)
            return Claim.DONE
        if there:
            lock.release()
            self.by_others += 1
            self._bar.total -= len(one)
            self._tell()
            return Claim.DONE
        self._ours[slide] = SlideFeatures(target, lock, len(one), one.index.cells.extent)
        return Claim.OURS

    def _take(self, batch: dict[str, Any]) -> None:
        """Run one batch through the network."""
        slide, locations = int(batch["slide"][0]), batch["locations"][0]
        image = batch["image"].to(self.device, non_blocking=True)
        features = self.network(image)[0].transpose(0, 1)  # [n, D]
        if self._ours[slide].add(features, locations):
            self.writer.put(self._ours.pop(slide))
        self.writer.check()
        self._let_go_of_skipped()
        self._bar.update(len(locations))
        self._tell()

    def _let_go_of_skipped(self) -> None:
        for slide in self.dataset.skipped & self._ours.keys():
            features = self._ours.pop(slide)
            features.lock.release()
            self._bar.total -= features.count - features.received

    def _wait_for_one(self, slides: Sequence[int]) -> list[int]:
        """Wait until one of the slides is ours, and put it first, or all are done.

        Returns:
            The slides that are not done, as far as that is known.
        """
        left, pause = list(slides), FIRST_PAUSE
        while left:
            busy: list[int] = []
            for place, slide in enumerate(left):
                claim = self._claim(slide)
                if claim is Claim.OURS:
                    return [slide, *busy, *left[place + 1 :]]
                if claim is Claim.BUSY:
                    busy.append(slide)
            if busy:
                if pause == FIRST_PAUSE:
                    logger.info(
                        "The slides that are left (%d) are in the hands of other processes: waiting.", len(busy)
                    )
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                if pause == LONGEST_PAUSE and not self._warned:
                    self._warned = True
                    logger.warning(
                        "Still waiting. If no other process is at work, remove the hidden .lock files in features_dir."
                    )
            left = busy
        return []

    def _patches(self, slide: int) -> int:
        one = self.dataset.instances[slide]
        return 0 if one is None else len(one)

    def _tell(self) -> None:
        """Show the slides beside the patches; no names."""
        done = self._before + self.by_others + self.written
        per_hour = self.written / (time.monotonic() - self._begin) * 3600
        with suppress(AttributeError):  # a bar that is switched off has fewer parts
            text = f"slides={done}/{len(self.targets)}, {per_hour:.0f} slides/h"
            self._bar.set_postfix_str(text, refresh=False)
