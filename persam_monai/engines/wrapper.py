# SPDX-License-Identifier: Apache-2.0
"""The network as the engines drive it."""

from __future__ import annotations

import torch
from torch import nn

from persam_monai.networks import Attention, PersAM, PersAMOnFeatures
from persam_monai.settings import check_settings

PRECISIONS = {"float32": None, "bf16": torch.bfloat16}


class AttendingNetwork(nn.Module):
    """Lets ``forward`` give logits and attentions, under autocast for the device it is on.

    Training needs both, and a single ``forward`` is what data-parallel training can drive. MONAI's own ``amp=True``
    stays in float32 on a CPU without saying so.

    Args:
        network: has ``attend``; checkpoints hold it, not this wrapper.
        precision: ``float32``, or ``bf16`` for bfloat16 autocast.

    Raises:
        UserError: if ``precision`` is unknown.
    """

    def __init__(self, network: PersAM | PersAMOnFeatures, precision: str = "float32") -> None:
        super().__init__()
        check_settings({"precision": precision})
        self.network = network
        self.precision = precision

    def forward(
        self, image: torch.Tensor, clinical: torch.Tensor | None = None, mask: torch.Tensor | None = None
    ) -> Attention:
        """Logits and attentions; arguments as in :meth:`persam_monai.networks.PersAM.attend`."""
        dtype = PRECISIONS[self.precision]
        with torch.autocast(image.device.type, dtype=dtype, enabled=dtype is not None):
            return self.network.attend(image, clinical, mask)
