# SPDX-License-Identifier: Apache-2.0
"""The network as the engines drive it."""

from __future__ import annotations

import torch
from torch import nn

from persam_monai.networks import AUTOCAST, Attention, PersAM, PersAMOnFeatures, resolve_precision


class AttendingNetwork(nn.Module):
    """Lets ``forward`` give logits and attentions, under autocast for the device it is on.

    Training needs both, and a single ``forward`` is what data-parallel training can drive. MONAI's own ``amp=True``
    stays in float32 on a CPU without saying so.

    Args:
        network: has ``attend``; checkpoints hold it, not this wrapper.
        precision: ``float32``, ``bf16`` or ``auto``; see :func:`persam_monai.networks.resolve_precision`.
        device: where the network goes.

    Raises:
        UserError: if ``precision`` is unknown.
    """

    def __init__(
        self, network: PersAM | PersAMOnFeatures, precision: str = "auto", device: torch.device | str = "cpu"
    ) -> None:
        super().__init__()
        self.network = network.to(device)
        self.precision = resolve_precision(precision, device)

    def forward(
        self, image: torch.Tensor, clinical: torch.Tensor | None = None, mask: torch.Tensor | None = None
    ) -> Attention:
        """Logits and attentions; arguments as in :meth:`persam_monai.networks.PersAM.attend`."""
        dtype = AUTOCAST[self.precision]
        with torch.autocast(image.device.type, dtype=dtype, enabled=dtype is not None):
            return self.network.attend(image, clinical, mask)
