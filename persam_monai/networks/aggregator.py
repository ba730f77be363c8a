# SPDX-License-Identifier: Apache-2.0
"""The personalised aggregator: the record decides with the classes which patches make up the bag."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from persam_monai.networks.dropout import Dropout
from persam_monai.networks.precision import at_least_float32


class Aggregation(NamedTuple):
    """The bag's readout and the attentions that made it."""

    readout: Tensor
    """z, ``[B, R]``."""
    explanatory: Tensor
    """a′_lc, ``[B, C, N]``."""
    exploratory: Tensor
    """ψ_l, ``[B, N]``."""
    class_attention: Tensor
    """a_lc, ``[B, C, N]``."""
    class_relevance: Tensor
    """φ_c, ``[B, C]``."""
    pooled: Tensor
    """max over classes of a′_lc, ``[B, N]``."""


class Aggregator(nn.Module):
    """Pools patches by how class and record together look at them.

    With one head, linear q, k, v with bias, σ(x) the sigmoid of x/√R, l a patch, m a clinical and c a class token:

        a_lc = σ(q_c·k_l)                 class attention
        ψ_l  = mean_m σ(q_m·k_l)          exploratory attention, of the record
        φ_c  = mean_m σ(q_c·k_m)          relevance of the class to the record
        a′_lc = a_lc φ_c ψ_l              explanatory attention, personalised
        a′_l = max_c a′_lc,   z = Σ_l a′_l / (Σ_ρ a′_ρ + 1e-6) v_l

    As ablations, ψ_l ≡ 1 or φ_c ≡ 1; with both, the clinical tokens that come out of the encoder do not matter here.
    Only class × patch, clinical × patch and class × clinical are computed. Padded patches have attention 0; a bag of
    nothing but padding has z = 0.

    Args:
        width: R, the length of a token.
        clinical_tokens: M.
        classes: C.
        dropout: probability, on the patches' normalised weights.
        exploratory: false takes ψ ≡ 1.
        relevance: false takes φ ≡ 1.
    """

    def __init__(
        self,
        width: int,
        clinical_tokens: int,
        classes: int,
        dropout: float = 0.1,
        exploratory: bool = True,
        relevance: bool = True,
    ) -> None:
        super().__init__()
        self.with_exploratory = exploratory
        self.with_relevance = relevance
        self.clinical_tokens = clinical_tokens
        self.classes = classes
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.dropout = Dropout(dropout)
        self.scale = width**-0.5

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Aggregation:
        """Readout and attentions.

        Args:
            tokens: ``[B, N + M + C, R]`` in the order patches, clinical, class.
            mask: ``[B, N]`` bool, true where there is a patch; ``None`` where all are real.

        Returns:
            The readout and the attentions, the latter in float32 (float64 where ``tokens`` is).
        """
        patches = tokens.shape[1] - self.clinical_tokens - self.classes
        query = self.query(tokens[:, patches:])  # [B, M + C, R]
        key = self.key(tokens[:, : -self.classes])  # [B, N + M, R]
        value = self.value(tokens[:, :patches])  # [B, N, R]
        attention = at_least_float32(query @ key.transpose(1, 2)).mul(self.scale).sigmoid()  # [B, M + C, N + M]
        if mask is not None:
            always = torch.ones_like(attention[:, 0, patches:], dtype=torch.bool)  # [B, M]
            attention = torch.where(torch.cat([mask, always], dim=1)[:, None], attention, 0.0)
        class_attention = attention[:, -self.classes :, :patches]  # [B, C, N]
        exploratory = attention[:, : -self.classes, :patches].mean(dim=1)  # [B, N]
        if not self.with_exploratory:
            exploratory = torch.ones_like(exploratory) if mask is None else mask.to(exploratory.dtype)
        class_relevance = attention[:, -self.classes :, patches:].mean(dim=2)  # [B, C]
        if not self.with_relevance:
            class_relevance = torch.ones_like(class_relevance)
        explanatory = class_attention * class_relevance[:, :, None] * exploratory[:, None]  # [B, C, N]
        pooled = explanatory.amax(dim=1)  # [B, N]
        weights = pooled / (pooled.sum(dim=1, keepdim=True) + 1e-6)  # 1e-6: a bag of no attention is no division by 0
        weights = self.dropout(weights).to(value.dtype)
        readout = (weights[:, None] @ value).squeeze(1)  # [B, R]
        return Aggregation(readout, explanatory, exploratory, class_attention, class_relevance, pooled)
