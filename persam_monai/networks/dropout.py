# SPDX-License-Identifier: Apache-2.0
"""Dropout that is quick on a CPU too."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def dropout(values: Tensor, probability: float) -> Tensor:
    """Sets elements to zero by chance and scales the others so that the mean stays.

    PyTorch draws one number per element, which on a CPU takes longer than the network's matrix products in bfloat16.
    Here one draw of 64 bits serves four elements. On other devices PyTorch's own is fused and stays, as it does in
    TorchScript.

    Args:
        values: any shape.
        probability: of an element to become zero, from 0 to 1; on a CPU rounded to 1/65536.

    Returns:
        Like ``values``; ``values`` themselves where ``probability`` is 0.
    """
    if probability == 0:
        return values
    if torch.jit.is_scripting() or values.device.type != "cpu" or probability == 1:
        return functional.dropout(values, probability)
    steps = 65536  # 16 random bits decide about an element
    lost = min(int(probability * steps + 0.5), steps - 1)
    draws = torch.empty([(values.numel() + 3) // 4], dtype=torch.int64, device=values.device)
    lowest = -9223372036854775807 - 1  # of 64 bits
    bits = draws.random_(lowest, None).view(torch.int16)[: values.numel()]  # uniform from −32768 to 32767
    kept = (bits >= lost - steps // 2).to(values.dtype).mul_(steps / (steps - lost))
    return values * kept.view(values.shape)


class Dropout(nn.Dropout):
    """:func:`dropout` while training, nothing otherwise."""

    def forward(self, values: Tensor) -> Tensor:
        """Like ``values``."""
        return dropout(values, self.p) if self.training else values
