# SPDX-License-Identifier: Apache-2.0
"""PersAM's Transformer without the personalised aggregator."""

from __future__ import annotations

import torch
from torch import Tensor

from persam_monai.networks.attention import Attention
from persam_monai.networks.blocks import bag_classifier, patch_projection
from persam_monai.networks.encoder import Encoder
from persam_monai.networks.head import Head, unpersonalised
from persam_monai.networks.tokens import TokenAssembly


class TransformerHead(Head):
    """Patches, record and classes look at one another in PersAM's encoder; the class tokens are the readout.

    Tokens and encoder are PersAM's. The mean of the encoded class tokens goes into PersAM's classifier. Arguments as
    :class:`~persam_monai.networks.head.Head`; of those, ``exploratory`` and ``relevance`` are not used, and without
    ``layers`` there would be nothing to read.

    Raises:
        ValueError: if a size or ``attention`` is not possible, or ``layers`` is 0.
    """

    def _build(self) -> None:
        groups, width, dropout = (self.settings[name] for name in ("clinical_groups", "width", "dropout"))
        attention, heads, layers, feedforward = (
            self.settings[name] for name in ("attention", "heads", "layers", "feedforward")
        )
        if layers < 1:
            raise ValueError("layers must be at least 1: without an encoder the class tokens read nothing.")
        self.clinical_encoder = self._make_clinical_encoder()
        self.projection = patch_projection(self.feature_dim, width, self.settings["projection_hidden"])
        self.tokens = TokenAssembly(width, len(groups), self.num_classes, dropout)
        self.encoder = Encoder(layers, width, len(groups), self.num_classes, attention, heads, feedforward, dropout)
        self.classifier = bag_classifier(width, width, self.num_classes, dropout)

    @torch.jit.export
    def attend(self, features: Tensor, clinical: Tensor | None = None, mask: Tensor | None = None) -> Attention:
        """Class logits; ``pooled`` is 0: patches are mixed by all tokens of all layers, none has a weight of its own.

        Arguments as in :meth:`persam_monai.networks.head.Head.attend`.
        """
        features, clinical, real = self._checked(features, clinical, mask)
        patches = self.projection(features.transpose(1, 2))  # [B, N, R]
        tokens = self.tokens(patches, self.clinical_encoder(clinical))  # [B, N + M + C, R]
        readout = self.encoder(tokens, mask)[:, -self.num_classes :].mean(dim=1)  # [B, R]
        logits = self.classifier(readout)  # [B, C]
        return unpersonalised(logits, torch.zeros_like(real, dtype=logits.dtype), real)
