# SPDX-License-Identifier: Apache-2.0
"""Late fusion: image and record are read apart and put side by side at the end."""

from __future__ import annotations

import torch
from torch import Tensor

from persam_monai.networks.attention import Attention
from persam_monai.networks.baselines.gated_attention import GatedAttention
from persam_monai.networks.blocks import bag_classifier, patch_projection
from persam_monai.networks.head import Head, unpersonalised


class LateFusionHead(Head):
    """Gated attention over the patches beside the clinical network: the record does not change the attention.

    The readout of :class:`~persam_monai.networks.baselines.GatedAttention` and the clinical tokens, one after another,
    go into PersAM's classifier together. Arguments as :class:`~persam_monai.networks.head.Head`; of those,
    ``attention``, ``heads``, ``layers``, ``feedforward``, ``exploratory`` and ``relevance`` are not used.
    """

    def _build(self) -> None:
        groups, width = self.settings["clinical_groups"], self.settings["width"]
        self.clinical_encoder = self._make_clinical_encoder()
        self.projection = patch_projection(self.feature_dim, width, self.settings["projection_hidden"])
        self.pooling = GatedAttention(width)
        self.classifier = bag_classifier((1 + len(groups)) * width, width, self.num_classes, self.settings["dropout"])

    @torch.jit.export
    def attend(self, features: Tensor, clinical: Tensor | None = None, mask: Tensor | None = None) -> Attention:
        """Class logits, and as ``pooled`` each patch's weight as a share of the bag's largest.

        Arguments as in :meth:`persam_monai.networks.head.Head.attend`.
        """
        features, clinical, real = self._checked(features, clinical, mask)
        readout, weights = self.pooling(self.projection(features.transpose(1, 2)), real)  # [B, R], [B, N]
        tokens = self.clinical_encoder(clinical).flatten(1)  # [B, M·R]
        return unpersonalised(self.classifier(torch.cat([readout, tokens], dim=1)), weights, real)
