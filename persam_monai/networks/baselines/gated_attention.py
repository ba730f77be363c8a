# SPDX-License-Identifier: Apache-2.0
"""Gated attention over patches: the image alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from persam_monai.networks.attention import Attention
from persam_monai.networks.blocks import bag_classifier, patch_projection
from persam_monai.networks.head import Head, unpersonalised
from persam_monai.networks.precision import at_least_float32


class GatedAttention(nn.Module):
    """Pools patches by gated attention (Ilse et al., 2018, arXiv:1802.04712, eq. 9).

    With h_l a patch's token, s_l = w·(tanh(V h_l) ⊙ sigmoid(U h_l)), the softmax a_l of s over the real patches, and
    z = Σ_l a_l h_l. A bag of nothing but padding has z = 0.

    Args:
        width: R, the length of a token.
        hidden: length of V h and U h; R/4 where ``None`` (in the paper 128 for 512).
    """

    def __init__(self, width: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = max(1, width // 4) if hidden is None else hidden
        self.value = nn.Linear(width, hidden)
        self.gate = nn.Linear(width, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)  # the softmax would take a bias away again

    def forward(self, patches: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The bag's readout and each patch's weight.

        Args:
            patches: ``[B, N, R]``.
            mask: ``[B, N]`` bool, true where there is a patch.

        Returns:
            z ``[B, R]``, and a_l as a share of the bag's largest, ``[B, N]``, in [0, 1] and 0 at padded places.
        """
        gated = torch.tanh(self.value(patches)) * torch.sigmoid(self.gate(patches))  # [B, N, R/4]
        scores = at_least_float32(self.score(gated).squeeze(2))  # [B, N]
        scores = scores.masked_fill(~mask, -1e30)  # below any score, yet finite: a bag may be empty
        weights = scores.softmax(dim=1) * mask  # [B, N]
        readout = (weights.to(patches.dtype)[:, None] @ patches).squeeze(1)  # [B, R]
        largest = scores.amax(dim=1, keepdim=True)  # [B, 1]
        return readout, torch.exp(scores - largest) * mask


class GatedAttentionMILHead(Head):
    """Attention-based multiple-instance learning: predicts from the patches, and never looks at the record.

    Patch features are projected to tokens as in PersAM, pooled by :class:`GatedAttention`, and classified by PersAM's
    classifier. Arguments as :class:`~persam_monai.networks.head.Head`; of those, ``clinical_groups`` says only how long
    a record is, and ``attention``, ``heads``, ``layers``, ``feedforward``, ``exploratory``, ``relevance``, ``missing``,
    ``clinical_dropout`` and ``clinical_variables`` are not used.
    """

    def _build(self) -> None:
        width, dropout = self.settings["width"], self.settings["dropout"]
        self.projection = patch_projection(self.feature_dim, width, self.settings["projection_hidden"])
        self.pooling = GatedAttention(width)
        self.classifier = bag_classifier(width, width, self.num_classes, dropout)

    @torch.jit.export
    def attend(self, features: Tensor, clinical: Tensor | None = None, mask: Tensor | None = None) -> Attention:
        """Class logits, and as ``pooled`` each patch's weight as a share of the bag's largest.

        Arguments as in :meth:`persam_monai.networks.head.Head.attend`.
        """
        features, _, real = self._checked(features, clinical, mask)
        readout, weights = self.pooling(self.projection(features.transpose(1, 2)), real)  # [B, R], [B, N]
        return unpersonalised(self.classifier(readout), weights, real)
