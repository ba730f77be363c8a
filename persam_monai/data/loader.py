# SPDX-License-Identifier: Apache-2.0
"""Bags on their way to the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, DistributedSampler

from persam_monai.data.dataset import BagDataset, BagKey, SafeItems
from persam_monai.data.randomness import generator_for
from persam_monai.errors import UserError

Batch = dict[str, Any]


def collate_bags(items: Sequence[dict[str, Any] | UserError]) -> Batch | UserError:
    """Stack bags of different sizes, with a mask.

    Args:
        items: items of a :class:`~persam_monai.data.dataset.BagDataset`.

    Returns:
        ``image`` uint8 ``[B, 3, N, H, W]``, a view of memory laid out ``[B, N, H, W, 3]`` so that the first convolution
        finds its channels-last layout without a copy; ``mask`` bool ``[B, N]``, true where a patch is;
        ``clinical`` float32 ``[B, F]``; ``label`` and ``slide`` int64 ``[B]``; ``locations`` int64 ``[B, N, 2]``;
        ``orientation`` uint8 ``[B, N]``. If an item is an error, that error.
    """
    bags = []
    for item in items:
        if isinstance(item, UserError):
            return item
        bags.append(item)
    sizes = [len(bag["image"]) for bag in bags]
    mask = torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]  # [B, N]
    return {
        "image": _pad([bag["image"] for bag in bags], max(sizes)).permute(0, 4, 1, 2, 3),  # [B, 3, N, H, W]
        "mask": mask,
        "clinical": torch.from_numpy(np.stack([bag["clinical"] for bag in bags])),
        "label": torch.tensor([bag["label"] for bag in bags], dtype=torch.int64),
        "slide": torch.tensor([bag["slide"] for bag in bags], dtype=torch.int64),
        "locations": _pad([bag["locations"] for bag in bags], max(sizes)),
        "orientation": _pad([bag["orientation"] for bag in bags], max(sizes)),
    }


def _pad(arrays: list[np.ndarray], length: int) -> torch.Tensor:
    """Stack arrays [n, …] to [B, length, …], filled up with zeros."""
    if len(arrays) == 1:
        return torch.from_numpy(np.ascontiguousarray(arrays[0]))[None]
    stacked = torch.zeros((len(arrays), length, *arrays[0].shape[1:]), dtype=torch.from_numpy(arrays[0]).dtype)
    for row, array in zip(stacked, arrays, strict=True):
        row[: len(array)] = torch.from_numpy(np.ascontiguousarray(array))
    return stacked


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

    def __iter__(self) -> Iterator[BagKey]:
        keys = self.bags.keys(self.epoch)
        order = (
            generator_for(self.seed, "order", self.epoch).permutation(len(keys)) if self.shuffle else range(len(keys))
        )
        return (keys[int(i)] for i in order)

    def __len__(self) -> int:
        return len(self.bags)


class BagLoader(DataLoader[Any]):
    """Reads bags in worker processes.

    Args:
        dataset: the bags; call its ``prepare()`` before iterating.
        batch_size: bags in a batch.
        shuffle: whether to mix the slides' bags.
        seed: seed of the order.
        num_workers: worker processes; 0 reads in the calling process.
        pin_memory: page-locked batches, for faster copies to a GPU.

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
    ) -> None:
        super().__init__(
            SafeItems(dataset),
            batch_size=batch_size,
            sampler=EpochSampler(dataset, shuffle, seed),
            num_workers=num_workers,
            collate_fn=collate_bags,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # so that iterating draws nothing from the global generator
        )
        self.bags = dataset

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, UserError):
                raise batch
            yield batch
