# SPDX-License-Identifier: Apache-2.0
"""The clinical record alone."""

from __future__ import annotations

import torch
from torch import Tensor

from persam_monai.networks.attention import Attention
from persam_monai.networks.blocks import bag_classifier
from persam_monai.networks.head import Head, unpersonalised


class ClinicalHead(Head):
    """Predicts from the record, and never looks at a patch: what is there to gain from the slides?

    PersAM's clinical encoder makes one token of each group; the tokens, one after another, go into PersAM's classifier.
    Arguments as :class:`~persam_monai.networks.head.Head`; of those, ``feature_dim`` says only what the extractor
    gives, and ``projection_hidden``, ``attention``, ``heads``, ``layers``, ``feedforward``, ``exploratory`` and
    ``relevance`` are not used.
    """

    def _build(self) -> None:
        groups, width = self.settings["clinical_groups"], self.settings["width"]
        self.clinical_encoder = self._make_clinical_encoder()
        self.classifier = bag_classifier(len(groups) * width, width, self.num_classes, self.settings["dropout"])
        self.reads_patches = False

    @torch.jit.export
    def attend(self, features: Tensor, clinical: Tensor | None = None, mask: Tensor | None = None) -> Attention:
        """Class logits; ``pooled`` is 0: no patch has a weight.

        Arguments as in :meth:`persam_monai.networks.head.Head.attend`.
        """
        _, clinical, real = self._checked(features, clinical, mask)
        tokens = self.clinical_encoder(clinical).flatten(1)  # [B, M·R]
        logits = self.classifier(tokens)  # [B, C]
        return unpersonalised(logits, torch.zeros_like(real, dtype=logits.dtype), real)
