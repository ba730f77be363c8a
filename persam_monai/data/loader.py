# SPDX-License-Identifier: Apache-2.0
"""Bags on their way to the device."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sized
from typing import Any

import torch
from torch.utils.data import DataLoader, DistributedSampler

from persam_monai.data.batches import BagBatches, Batch, without
from persam_monai.data.dataset import BagDataset, BagKey
from persam_monai.data.randomness import generator_for
from persam_monai.data.ring import Ring
from persam_monai.data.workers import Busy, WorkerDied, as_it_is, threads_per_worker, watch
from persam_monai.errors import UserError

PREFETCHED = 2  # batches that a worker reads ahead
SLOTS = PREFETCHED + 2  # of memory per worker: what is read ahead, what is being read, what the training holds


class Order:
    """Bags to read, in order, each looked up only when it is about to be read.

    Args:
        keys: the bags; may be a generator, which then decides at the last moment.
    """

    def __init__(self, keys: Iterable[BagKey]) -> None:
        self._ahead = iter(keys)
        self._handed_out: deque[BagKey] = deque()  # and not received yet
        self._received = 0
        self._total = len(keys) if isinstance(keys, Sized) else None

    @property
    def left(self) -> int | None:
        """How many bags have not been received; ``None`` if nobody knows."""
        return None if self._total is None else self._total - self._received

    def __iter__(self) -> Iterator[BagKey]:
        """All that has not been received; what has been handed out before is handed out again."""
        yield from list(self._handed_out)
        for key in self._ahead:
            self._handed_out.append(key)
            yield key

    def receive(self, most: int) -> None:
        """Note that the next ``most`` bags, or as many as there are, have come."""
        for _ in range(min(most, len(self._handed_out))):
            self._handed_out.popleft()
            self._received += 1


class EpochSampler(DistributedSampler[BagKey]):
    """The bags of an epoch, in an order that depends on the seed and the epoch alone.

    A :class:`~torch.utils.data.DistributedSampler`, since MONAI's engines tell every such sampler the epoch.

    Args:
        dataset: the bags.
        shuffle: whether to mix the slides' bags.
        seed: seed of the order.
    """

    def __init__(self, dataset: BagDataset, shuffle: bool, seed: int) -> None:
        # DistributedSampler counts the items when it is built; ours are counted only after prepare().
        self.bags = dataset
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0
        self.current: Order | None = None  # what a loader is going through

    def order(self) -> list[BagKey]:
        """All bags of the epoch."""
        keys = self.bags.keys(self.epoch)
        if not self.shuffle:
            return keys
        return [keys[i] for i in generator_for(self.seed, "order", self.epoch).permutation(len(keys)).tolist()]

    def __iter__(self) -> Iterator[BagKey]:
        return iter(self.order() if self.current is None else self.current)

    def __len__(self) -> int:
        return len(self.bags)


class BagLoader(DataLoader[Any]):
    """Reads bags in worker processes.

    Where the dataset skips bad slides, a slide leaves the epoch, and all that follow, with the first of its bags that
    cannot be read: fewer bags come then than ``len()`` said before. A worker that crashes on a slide is replaced.

    Args:
        dataset: the bags; call its ``prepare()`` before iterating.
        batch_size: bags in a batch.
        shuffle: whether to mix the slides' bags.
        seed: seed of the order.
        num_workers: worker processes; 0 reads in the calling process.
        pin_memory: page-locked batches, for faster copies to a GPU.
        threads: decoding threads of each worker; ``None`` divides this machine's cores among the workers.

    Raises:
        UserError: on iterating, if a slide cannot be read.
    """

    def __init__(
        self,
        dataset: BagDataset,
        batch_size: int = 1,
        shuffle: bool = False,
        seed: int = 0,
        num_workers: int = 0,
        pin_memory: bool = False,
        threads: int | None = None,
    ) -> None:
        self.bags = dataset
        with warnings.catch_warnings():
            # More workers than cores: as was asked for.
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            super().__init__(
                BagBatches(dataset, Busy(num_workers), threads or threads_per_worker(num_workers)),
                batch_size=batch_size,
                sampler=EpochSampler(dataset, shuffle, seed),
                num_workers=num_workers,
                collate_fn=as_it_is,
                pin_memory=pin_memory,
                prefetch_factor=PREFETCHED if num_workers else None,
                generator=torch.Generator(),  # so that iterating draws nothing from the global generator
            )

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        assert isinstance(self.sampler, EpochSampler)
        return self.batches(self.sampler.order())

    def batches(self, keys: Iterable[BagKey]) -> Generator[Batch, None, None]:
        """Read other bags than an epoch's.

        Args:
            keys: the bags, in order; taken one by one, a few batches before they are needed.
        """
        assert isinstance(self.sampler, EpochSampler)
        assert self.batch_size is not None
        order = Order(keys)
        while True:
            self.sampler.current = order
            try:
                for batch in self._batches(order):
                    order.receive(self.batch_size)
                    if batch is not None:
                        yield batch
                return
            except WorkerDied as death:
                slide = death.item
                if slide is None or not death.its_fault:
                    raise self._cannot_go_on(death) from death
                # The borders of the batches stay where they were; the slide's bags are passed over.
                self.bags.skip(slide, f"Slide {self.bags.entries[slide].path} cannot be read: {death}")
            finally:
                self.sampler.current = None

    def _batches(self, order: Order) -> Iterator[Batch | None]:
        """The batches of ``order``, which the sampler names; ``None`` where no bag of a batch can be used."""
        assert isinstance(self.dataset, BagBatches)
        assert self.batch_size is not None
        ring = self._ring()  # held until the end: the dataset may be given another one in between
        self.dataset.use(ring)
        try:
            expected = None if order.left is None else -(-order.left // self.batch_size)
            for parcel in watch(self, self.dataset.busy, expected):
                for slide, problem in parcel.failures:
                    self.bags.skip(slide, UserError(problem))
                batch = parcel.open()
                yield None if batch is None else without(batch, self.bags.skipped)
        finally:
            self.dataset.use(None)

    def _cannot_go_on(self, death: WorkerDied) -> UserError:
        slide = "" if death.item is None else f" The slide was {self.bags.entries[death.item].path}."
        return UserError(f"Slides can no longer be read: {death}{slide} Lower --num_workers or --bag_size.")

    def _ring(self) -> Ring | None:
        if not self.num_workers or not self.bags.source.pixels:
            return None
        assert self.batch_size is not None
        side = self.bags.source.patches.size
        return Ring(self.num_workers, SLOTS, self.batch_size * self.bags.draw.bag_size * side * side * 3)
