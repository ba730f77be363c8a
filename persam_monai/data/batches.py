# SPDX-License-Identifier: Apache-2.0
"""Bags become a batch: in a worker process, in memory that the training reads from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from persam_monai.data.dataset import BagDataset, BagKey
from persam_monai.data.ring import Ring
from persam_monai.data.workers import Busy
from persam_monai.errors import UserError

Batch = dict[str, Any]

PADDED = ("mask", "locations", "orientation")  # of a batch, besides the pixels: fields [B, N, …]

_rings: WeakValueDictionary[int, Ring] = WeakValueDictionary()  # of this process, by number


def collate_bags(items: Sequence[Mapping[str, Any]]) -> Batch:
    """Stack bags of different sizes, with a mask.

    Args:
        items: items of a :class:`~persam_monai.data.dataset.BagDataset`.

    Returns:
        ``image`` uint8 ``[B, 3, N, H, W]``, a view of memory laid out ``[B, N, H, W, 3]`` so that the first convolution
        finds its channels-last layout without a copy, or features ``[B, D, N]``, a view of ``[B, N, D]``;
        ``mask`` bool ``[B, N]``, true where a patch is; ``clinical`` float32 ``[B, F]``; ``label`` and ``slide`` int64
        ``[B]``; ``locations`` int64 ``[B, N, 2]``; ``orientation`` uint8 ``[B, N]``.
    """
    return to_batch(_pad([item["image"] for item in items]), _rest(items))


def to_batch(image: np.ndarray, rest: Mapping[str, np.ndarray]) -> Batch:
    """A batch of tensors that share the arrays' memory.

    Args:
        image: ``uint8 [B, N, H, W, 3]``, or features ``[B, N, D]``.
        rest: the other fields.
    """
    tensors = {name: torch.from_numpy(array) for name, array in rest.items()}
    return {"image": _seen(torch.from_numpy(image)), **tensors}


def _seen(rows: torch.Tensor) -> torch.Tensor:
    """``[B, N, H, W, 3]`` as the network sees it, ``[B, 3, N, H, W]``; or ``[B, N, D]`` as ``[B, D, N]``."""
    return rows.movedim(-1, 1)


def _rows(image: torch.Tensor) -> torch.Tensor:
    """The reverse."""
    return image.movedim(1, -1)


def without(batch: Batch, slides: set[int]) -> Batch | None:
    """A batch without the bags of some slides; ``None`` if nothing is left."""
    keep = [i for i, slide in enumerate(batch["slide"].tolist()) if slide not in slides]
    if len(keep) == len(batch["slide"]):
        return batch
    if not keep:
        return None
    longest = int(batch["mask"][keep].sum(dim=1).max())  # the bag that needed more room may have gone
    # The pixels stay in the memory layout that they had.
    rows = _rows(batch["image"])[keep, :longest].contiguous()
    kept = {name: value[keep] for name, value in batch.items() if name != "image"}
    return {"image": _seen(rows), **{name: v[:, :longest] if name in PADDED else v for name, v in kept.items()}}


@dataclass
class Parcel:
    """A batch on its way from a worker process. The pixels stay where they are, in a slot of a ring.

    Attributes:
        image: ``uint8 [B, N, H, W, 3]``, unless it lies in a slot; or features ``[B, N, D]``.
        rest: the other fields of the batch.
        failures: slides that could not be read, and why.
        slot: where the pixels lie: number of the ring, of the slot, and their shape.
        batch: ready to use.
    """

    image: np.ndarray | None
    rest: dict[str, np.ndarray]
    failures: list[tuple[int, str]] = field(default_factory=list)
    slot: tuple[int, int, tuple[int, ...]] | None = None
    batch: Batch | None = None

    def open(self) -> Batch | None:
        """The batch, or ``None`` if no bag could be read."""
        if self.batch is None and self.rest:
            image = self.image
            if self.slot is not None:
                ring, slot, shape = self.slot
                image = _rings[ring].received(slot, shape)
            assert image is not None
            self.batch = to_batch(image, self.rest)
            self.image = self.slot = None
        return self.batch

    def pin_memory(self) -> Parcel:
        """The same in page-locked memory; the data loader's thread calls this."""
        batch = self.open()
        if batch is not None:
            rows = _seen(_rows(batch["image"]).pin_memory())
            self.batch = {name: rows if name == "image" else value.pin_memory() for name, value in batch.items()}
        return self


class BagBatches(Dataset[Parcel]):
    """Whole batches of a dataset's bags.

    Args:
        bags: the dataset.
        busy: where to note which slide is being read.
        threads: decoding threads.
    """

    def __init__(self, bags: BagDataset, busy: Busy, threads: int) -> None:
        self.bags = bags
        self.busy = busy
        self.threads = threads
        self.ring: Ring | None = None
        self.number = 0

    def __len__(self) -> int:
        return len(self.bags)

    def use(self, ring: Ring | None) -> None:
        """Take the memory for pixels from ``ring`` from now on."""
        self.ring = ring
        self.number = id(ring)
        if ring is not None:
            _rings[self.number] = ring

    def __getitems__(self, keys: list[BagKey]) -> Parcel:
        keys = [key for key in keys if key.slide not in self.bags.skipped]
        if not keys:
            return Parcel(None, {})
        if not self.bags.source.pixels:
            items, _, failures = self._read(keys, [None] * len(keys))
            image = _pad([item["image"] for item in items]) if items else None
            return Parcel(image, _rest(items) if items else {}, failures)
        sizes = [self.bags.size(key) for key in keys]
        side = self.bags.source.patches.size
        image, slot = self._memory((len(keys), max(sizes), side, side, 3))
        items, good, failures = self._read(keys, [image[i, :size] for i, size in enumerate(sizes)])
        for i, size in enumerate(sizes):
            image[i, size:] = 0
        if len(good) < len(keys):  # some rows hold nothing: what is left moves together
            if slot is not None and self.ring is not None:
                image = image.copy()
                self.ring.free(slot)
                slot = None
            image = np.ascontiguousarray(image[good, : max((sizes[i] for i in good), default=0)])
        place = None if slot is None else (self.number, slot, image.shape)
        return Parcel(image if slot is None else None, _rest(items) if items else {}, failures, place)

    def _read(
        self, keys: list[BagKey], places: Sequence[np.ndarray | None]
    ) -> tuple[list[dict[str, Any]], list[int], list[tuple[int, str]]]:
        """The items that can be read, which they are, and the slides that cannot, with the reasons."""
        items, good, failures = [], [], []
        for i, (key, place) in enumerate(zip(keys, places, strict=True)):
            with self.busy.with_item(key.slide, str(self.bags.entries[key.slide].path)):
                try:
                    items.append(self.bags.read(key, self.threads, place))
                    good.append(i)
                except UserError as error:
                    failures.append((key.slide, str(error)))
        return items, good, failures

    def _memory(self, shape: tuple[int, ...]) -> tuple[np.ndarray, int | None]:
        """Room for the pixels of a batch: a slot of this worker's if one is free, else memory of its own."""
        worker = get_worker_info()
        if self.ring is not None and worker is not None:
            slot = self.ring.take(worker.id, int(np.prod(shape)))
            if slot is not None:
                return self.ring.array(slot, shape), slot
        return np.empty(shape, np.uint8), None


def _rest(items: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """All fields of a batch but the pixels."""
    sizes = np.array([len(item["locations"]) for item in items])
    return {
        "mask": np.arange(sizes.max()) < sizes[:, None],
        "clinical": np.stack([item["clinical"] for item in items]),
        "label": np.array([item["label"] for item in items], np.int64),
        "slide": np.array([item["slide"] for item in items], np.int64),
        "locations": _pad([item["locations"] for item in items]),
        "orientation": _pad([item["orientation"] for item in items]),
    }


def _pad(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Stack arrays [n, …] to [B, N, …] of the largest n, filled up with zeros."""
    if len(arrays) == 1:
        return np.ascontiguousarray(arrays[0])[None]
    shape = (len(arrays), max(map(len, arrays)), *arrays[0].shape[1:])
    stacked = np.zeros(shape, np.result_type(*arrays))  # features may be of two precisions
    for row, array in zip(stacked, arrays, strict=True):
        row[: len(array)] = array
    return stacked
