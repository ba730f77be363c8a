# SPDX-License-Identifier: Apache-2.0
"""Bags are read in worker processes, batch by batch, and reach the training through shared memory.

The workers decode into memory that is used again and again. PyTorch's own way to hand over a tensor takes new shared
memory for every batch: the pixels are copied once more and every page of them is cleared by the kernel first, which
leaves 5,100 patches/s of 7,200 (JPEG, two workers on two cores).
"""

from __future__ import annotations

import math
import mmap
import os
import weakref
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, get_worker_info

from persam_monai.data.batches import Batch, pad, stack_fields, to_batch, without
from persam_monai.data.dataset import BagDataset, BagKey
from persam_monai.data.draws import generator_for
from persam_monai.data.workers import Busy, WorkerDied, as_it_is, threads_per_worker, watch
from persam_monai.errors import UserError

PREFETCHED = 2  # batches that a worker reads ahead
SLOTS = PREFETCHED + 2  # of memory per worker: what is read ahead, what is being read, what the training holds


_rings: weakref.WeakValueDictionary[int, Ring] = weakref.WeakValueDictionary()  # made in this process, by number


class Ring:
    """Slots of shared memory, each owned by one worker.

    A slot's flag is set by its worker and cleared by the receiving process, so no lock is needed. The memory is an
    anonymous file of the kernel's, for processes forked from this one, and not in ``/dev/shm``, which containers keep
    small.

    Args:
        workers: worker processes.
        slots: of each worker.
        size: bytes of a slot; memory is taken only where it is written.
    """

    def __init__(self, workers: int, slots: int, size: int) -> None:
        self.slots = slots
        self.size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self.number = id(self)
        self._flags = -(-workers * slots // mmap.PAGESIZE) * mmap.PAGESIZE  # bytes before the first slot
        file = os.memfd_create("bags")
        os.ftruncate(file, self._flags + workers * slots * self.size)
        self._memory = mmap.mmap(file, 0)
        os.close(file)
        _rings[self.number] = self

    def take(self, worker: int, size: int) -> int | None:
        """A free slot of a worker's, now taken; ``None`` if there is none, or it has fewer than ``size`` bytes."""
        for slot in range(worker * self.slots, (worker + 1) * self.slots):
            if size <= self.size and self._memory[slot] == 0:
                self._memory[slot] = 1
                return slot
        return None

    def free(self, slot: int) -> None:
        """Give a slot back."""
        self._memory[slot] = 0

    def array(self, slot: int, shape: tuple[int, ...]) -> np.ndarray:
        """A slot's memory as ``uint8`` of ``shape``."""
        begin = self._flags + slot * self.size
        return np.frombuffer(self._memory, np.uint8, math.prod(shape), begin).reshape(shape)

    def received(self, slot: int, shape: tuple[int, ...]) -> np.ndarray:
        """The same; the slot is given back when nothing refers to the array any more."""
        array = self.array(slot, shape)
        weakref.finalize(array.base, self._free_in, os.getpid(), slot)  # views refer to the base, not to the array
        return array

    def _free_in(self, process: int, slot: int) -> None:
        if os.getpid() == process:  # a forked worker inherits the arrays, and must not give back what is not its own
            self.free(slot)


@dataclass
class Parcel:
    """A batch on its way from a worker process. Pixels that lie in a slot of a ring stay there.

    Attributes:
        arrays: fields of the batch, empty if no bag could be read; without ``image`` if that lies in a slot.
        failures: slides that could not be read, and why.
        slot: where the pixels lie: number of the ring, of the slot, and their shape.
        batch: ready to use.
    """

    arrays: dict[str, np.ndarray]
    failures: list[tuple[int, str]] = field(default_factory=list)
    slot: tuple[int, int, tuple[int, ...]] | None = None
    batch: Batch | None = None

    def open(self) -> Batch | None:
        """The batch, or ``None`` if no bag could be read."""
        if self.batch is None and self.arrays:
            if self.slot is not None:
                number, slot, shape = self.slot
                self.arrays["image"] = _rings[number].received(slot, shape)
            self.batch = to_batch(self.arrays)
            self.arrays, self.slot = {}, None
        return self.batch

    def pin_memory(self) -> Parcel:
        """The same in page-locked memory; the data loader's thread calls this."""
        batch = self.open()
        if batch is not None:
            rows = batch["image"].movedim(1, -1).pin_memory()  # pinning keeps no other memory layout
            others = {name: value.pin_memory() for name, value in batch.items() if name != "image"}
            self.batch = {"image": rows.movedim(-1, 1), **others}
        return self


class BagBatches(Dataset[Parcel]):
    """Whole batches of a dataset's bags, as a dataset that worker processes go through.

    Attributes:
        ring: memory for pixels, if there is any.
    """

    def __init__(self, bags: BagDataset, busy: Busy, threads: int) -> None:
        self.bags = bags
        self.busy = busy
        self.threads = threads
        self.ring: Ring | None = None

    def __len__(self) -> int:
        return len(self.bags)

    def __getitems__(self, keys: list[BagKey]) -> Parcel:
        keys = [key for key in keys if key.slide not in self.bags.skipped]
        slot, rows = self._take_slot(keys)
        items: list[dict[str, Any]] = []
        failures: list[tuple[int, str]] = []
        for key, row in zip(keys, rows, strict=True):
            with self.busy.with_item(key.slide):
                try:
                    items.append(self.bags.read(key, self.threads, row))
                except UserError as error:
                    failures.append((key.slide, str(error)))
        fields = stack_fields(items) if items else {}
        if slot is not None and not failures:
            return Parcel(fields, slot=slot)
        if items:
            fields["image"] = pad([item["image"] for item in items])
        if slot is not None and self.ring is not None:  # of its rows some hold nothing, so the others do not stay there
            fields = {name: array.copy() for name, array in fields.items()}
            self.ring.free(slot[1])
        return Parcel(fields, failures)

    def _take_slot(
        self, keys: Sequence[BagKey]
    ) -> tuple[tuple[int, int, tuple[int, ...]] | None, Sequence[np.ndarray | None]]:
        """A free slot of this worker's for the pixels of a batch, and each bag's rows in it; else ``None``."""
        worker = get_worker_info()
        if self.ring is not None and worker is not None and keys:
            sizes = [self.bags.size(key) for key in keys]
            side = self.bags.source.patches.size
            shape = (len(keys), max(sizes), side, side, 3)
            slot = self.ring.take(worker.id, math.prod(shape))
            if slot is not None:
                image = self.ring.array(slot, shape)
                for bag, size in zip(image, sizes, strict=True):
                    bag[size:] = 0
                return (self.ring.number, slot, shape), [bag[:size] for bag, size in zip(image, sizes, strict=True)]
        return None, [None] * len(keys)


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
        self.current: Sequence[BagKey] | None = None  # what a loader is going through

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
        pin_memory: page-locked batches, for faster copies to a GPU; ``None`` where there is one.
        threads: decoding threads of each worker; ``None`` divides this machine's cores among the workers.

    Raises:
        UserError: on iterating, if a slide cannot be read.
    """

    dataset: BagBatches
    batch_size: int

    def __init__(
        self,
        dataset: BagDataset,
        batch_size: int = 1,
        shuffle: bool = False,
        seed: int = 0,
        num_workers: int = 0,
        pin_memory: bool | None = None,
        threads: int | None = None,
    ) -> None:
        self.bags = dataset
        self.epoch_sampler = EpochSampler(dataset, shuffle, seed)
        super().__init__(
            BagBatches(dataset, Busy(num_workers), threads or threads_per_worker(num_workers)),
            batch_size=batch_size,
            sampler=self.epoch_sampler,
            num_workers=num_workers,
            collate_fn=as_it_is,
            pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
            prefetch_factor=PREFETCHED if num_workers else None,
            multiprocessing_context="fork" if num_workers else None,  # workers inherit the ring
            generator=torch.Generator(),  # so that iterating draws nothing from the global generator
        )

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        return self.batches(self.epoch_sampler.order())

    def batches(self, keys: Sequence[BagKey]) -> Generator[Batch, None, None]:
        """Read other bags than an epoch's.

        Args:
            keys: the bags, in order.
        """
        done = 0
        while done < len(keys):
            try:
                for batch in self._batches(keys[done:]):
                    done += self.batch_size
                    if batch is not None:
                        yield batch
            except WorkerDied as death:
                # The borders of the batches stay where they were; the slide's bags are passed over.
                self.bags.skip(*death.blamed(self.bags.entries, "Lower --num_workers or --bag_size."))

    def _batches(self, keys: Sequence[BagKey]) -> Iterator[Batch | None]:
        """The batches of some bags; ``None`` where no bag of a batch can be used."""
        ring = None  # held until the end: the dataset may be given another one in between
        if self.num_workers and self.bags.source.pixels:
            side = self.bags.source.patches.size
            ring = Ring(self.num_workers, SLOTS, self.batch_size * self.bags.draw.bag_size * side * side * 3)
        self.dataset.ring, self.epoch_sampler.current = ring, keys
        try:
            for parcel in watch(self, self.dataset.busy):
                for slide, problem in parcel.failures:
                    self.bags.skip(slide, UserError(problem))
                batch = parcel.open()
                yield None if batch is None else without(batch, self.bags.skipped)
        finally:
            self.dataset.ring = self.epoch_sampler.current = None
