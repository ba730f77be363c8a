# SPDX-License-Identifier: Apache-2.0
"""Which parts of the arithmetic stay in single precision under ``torch.autocast``."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """``values`` in float32, or in float64 where they were: half precision rounds attentions near 0 and 1 away."""
    return values if values.dtype == torch.float64 else values.to(torch.float32)
