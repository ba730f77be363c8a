# SPDX-License-Identifier: Apache-2.0
"""From a collated batch on the host to the network's inputs on the device."""

from __future__ import annotations

from typing import Any

import torch

from persam_monai.data.dataset import ORIENTATIONS


def prepare_bags(
    batch: dict[str, Any], device: str | torch.device | None, non_blocking: bool = False, **kwargs: Any
) -> tuple[torch.Tensor, torch.Tensor, tuple[()], dict[str, torch.Tensor]]:
    """``prepare_batch`` of MONAI's engines for bags.

    Args:
        batch: what :func:`~persam_monai.data.batches.collate_bags` returns.
        device: where to put it.
        non_blocking: copy asynchronously from pinned memory.
        kwargs: further arguments of :meth:`torch.Tensor.to`.

    Returns:
        image ``[B, 3, N, H, W]`` with its patches turned, label ``[B]``, no positional arguments, and the network's
        keyword arguments ``clinical`` and, if a place is padded, ``mask``.
    """

    def put(name: str) -> torch.Tensor:
        return batch[name].to(device=device, non_blocking=non_blocking, **kwargs)

    # What decides the way is looked at on the host: asking a GPU would make it wait for every copy.
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
        places = (orientation.flatten() == code).nonzero().squeeze(1).to(image.device, non_blocking=True)  # [n]
        some = torch.rot90(patches[places], code % 4, dims=(1, 2))  # [n, H, W, 3]
        turned[places] = some.flip(2) if code >= 4 else some
    return turned.unflatten(0, list(orientation.shape)).permute(0, 4, 1, 2, 3)  # [B, 3, N, H, W]
