# SPDX-License-Identifier: Apache-2.0
"""Bags become a batch: collated with a mask on the host, turned and put to the network's arguments on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from persam_monai.data.dataset import ORIENTATIONS

Batch = dict[str, Any]

PADDED = ("mask", "locations", "orientation")  # of a batch, besides the pixels: fields [B, N, …]


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
    return to_batch({"image": pad([item["image"] for item in items]), **stack_fields(items)})


def to_batch(arrays: Mapping[str, np.ndarray]) -> Batch:
    """A batch of tensors that share the arrays' memory; ``image`` is ``[B, N, H, W, 3]`` or ``[B, N, D]`` before."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return {**tensors, "image": tensors["image"].movedim(-1, 1)}


def stack_fields(items: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """All fields of a batch but the pixels."""
    sizes = np.array([len(item["locations"]) for item in items])
    return {
        "mask": np.arange(sizes.max()) < sizes[:, None],
        "clinical": np.stack([item["clinical"] for item in items]),
        "label": np.array([item["label"] for item in items], np.int64),
        "slide": np.array([item["slide"] for item in items], np.int64),
        "locations": pad([item["locations"] for item in items]),
        "orientation": pad([item["orientation"] for item in items]),
    }


def pad(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Stack arrays [n, …] to [B, N, …] of the largest n, filled up with zeros; a single one is not copied."""
    if len(arrays) == 1:
        return np.ascontiguousarray(arrays[0])[None]
    shape = (len(arrays), max(map(len, arrays)), *arrays[0].shape[1:])
    stacked = np.zeros(shape, np.result_type(*arrays))  # features may be of two precisions
    for row, array in zip(stacked, arrays, strict=True):
        row[: len(array)] = array
    return stacked


def without(batch: Batch, slides: set[int]) -> Batch | None:
    """A batch without the bags of some slides; ``None`` if nothing is left."""
    keep = [i for i, slide in enumerate(batch["slide"].tolist()) if slide not in slides]
    if len(keep) == len(batch["slide"]):
        return batch
    if not keep:
        return None
    longest = int(batch["mask"][keep].sum(dim=1).max())  # the bag that needed more room may have gone
    kept = {name: value[keep, :longest] if name in PADDED else value[keep] for name, value in batch.items()}
    rows = batch["image"].movedim(1, -1)[keep, :longest].contiguous()  # the pixels keep their memory layout
    return {**kept, "image": rows.movedim(-1, 1)}


def prepare_bags(
    batch: dict[str, Any], device: str | torch.device | None, non_blocking: bool = False, **kwargs: Any
) -> tuple[torch.Tensor, torch.Tensor, tuple[()], dict[str, torch.Tensor]]:
    """``prepare_batch`` of MONAI's engines for bags.

    Args:
        batch: what :func:`collate_bags` returns.
        device: where to put it.
        non_blocking: copy asynchronously from pinned memory.
        kwargs: further arguments of :meth:`torch.Tensor.to`.

    Returns:
        image ``[B, 3, N, H, W]`` with its patches turned, label ``[B]``, no positional arguments, and the network's
        keyword arguments ``clinical`` and, if a bag is padded, ``mask``.
    """

    def put(name: str) -> torch.Tensor:
        return batch[name].to(device=device, non_blocking=non_blocking, **kwargs)

    # Decided by what is on the host: asking a GPU would make it wait for every copy.
    inputs = {"clinical": put("clinical")}
    if not bool(batch["mask"].all()):
        inputs["mask"] = put("mask")
    return turn_patches(put("image"), batch["orientation"]), put("label"), (), inputs


def turn_patches(image: torch.Tensor, orientation: torch.Tensor) -> torch.Tensor:
    """Rotate and flip each patch by its own code.

    Args:
        image: ``[B, 3, N, H, W]`` with H = W.
        orientation: ``[B, N]`` on the host, 0 to 7: code % 4 quarter turns counter-clockwise, then a left–right
            flip from 4 on.

    Returns:
        ``[B, 3, N, H, W]``, in the memory layout of the input.
    """
    if not bool(orientation.any()):
        return image
    patches = image.permute(0, 2, 3, 4, 1).flatten(0, 1)  # [B·N, H, W, 3], a view
    turned = torch.empty_like(patches)
    for code in range(ORIENTATIONS):
        chosen = (orientation.flatten() == code).nonzero().squeeze(1).to(image.device, non_blocking=True)  # [n]
        some = torch.rot90(patches[chosen], code % 4, dims=(1, 2))  # [n, H, W, 3]
        turned[chosen] = some.flip(2) if code >= 4 else some
    return turned.unflatten(0, list(orientation.shape)).permute(0, 4, 1, 2, 3)  # [B, 3, N, H, W]
