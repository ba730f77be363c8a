# SPDX-License-Identifier: Apache-2.0
"""Heads to compare PersAM with. Arguments mean what they mean in :class:`~persam_monai.networks.PersAMHead`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from persam_monai.networks.encoder import Encoder, TokenAssembly
from persam_monai.networks.head import Attention, Head, unpersonalised
from persam_monai.networks.precision import at_least_float32


class TransformerHead(Head):
    """Patches, record and classes look at one another in PersAM's encoder; there is no personalised aggregator.

    Tokens and encoder are PersAM's. The mean of the encoded class tokens goes into PersAM's classifier. Patches are
    mixed by all tokens of all layers and none has a weight of its own, so ``pooled`` is 0.

    Raises:
        ValueError: if a size or ``attention`` is not possible, or ``layers`` is 0: the class tokens would read nothing.
    """

    def __init__(
        self,
        num_classes: int = 3,
        clinical_groups: Sequence[int] = (18, 10),
        feature_dim: int = 2048,
        width: int = 512,
        projection_hidden: int | None = 1024,
        attention: str = "balanced",
        heads: int = 8,
        layers: int = 2,
        feedforward: int = 512,
        dropout: float = 0.1,
        missing: str = "median",
        clinical_dropout: float = 0.0,
        clinical_variables: Sequence[Sequence[int]] | None = None,
        reduce_features: int | None = None,
    ) -> None:
        super().__init__(locals())
        if layers < 1:
            raise ValueError(f"layers must be at least 1, or the class tokens read nothing; got {layers}.")
        tokens = len(clinical_groups)
        self.clinical_encoder = self._make_clinical_encoder()
        self.projection = self._make_projection()
        self.tokens = TokenAssembly(width, tokens, num_classes, dropout)
        self.encoder = Encoder(layers, width, tokens, num_classes, attention, heads, feedforward, dropout)
        self.classifier = self._make_classifier()

    @torch.jit.export
    def attend(self, features: Tensor, clinical: Tensor | None = None, mask: Tensor | None = None) -> Attention:
        """Class logits; arguments as in :meth:`persam_monai.networks.Head.attend`."""
        real = self._real(features, mask)
        patches = self.projection(self._patches(features, mask))  # [B, N, R]
        tokens = self.tokens(patches, self.clinical_encoder(self._record(features, clinical)))  # [B, N + M + C, R]
        readout = self.encoder(tokens, mask)[:, -self.num_classes :].mean(dim=1)  # [B, R]
        logits = self.classifier(readout)  # [B, C]
        return unpersonalised(logits, torch.zeros_like(real, dtype=logits.dtype), real)


class GatedAttention(nn.Module):
    """Pools patches by gated attention (Ilse et al., 2018, arXiv:1802.04712, eq. 9).

    With h_l a patch's token, s_l = w·(tanh(V h_l) ⊙ sigmoid(U h_l)), the softmax a_l of s over the real patches, and
    z = Σ_l a_l h_l. A bag of nothing but padding has z = 0. V h and U h are R/4 long (in the paper 128 for 512).

    Args:
        width: R, the length of a token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(1, width // 4)
        self.value = nn.Linear(width, hidden)
        self.gate = nn.Linear(width, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)  # the softmax would take a bias away again

    def forward(self, patches: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The bag's readout and each patch's weight.

        Args:
            patches: ``[B, N, R]``.
            mask: ``[B, N]`` bool, true where there is a patch.

        Returns:
            z ``[B, R]``, and a_l as a share of the bag's largest, ``[B, N]``, in [0, 1] and 0 at padded locations.
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
    classifier. ``pooled`` is each patch's weight as a share of the bag's largest.

    Raises:
        ValueError: if a size is not possible.
    """

    def __init__(
        self,
        num_classes: int = 3,
        feature_dim: int = 2048,
        width: int = 512,
        projection_hidden: int | None = 1024,
        dropout: float = 0.1,
        reduce_features: int | None = None,
    ) -> None:
        super().__init__(locals())
        self.projection = self._make_projection()
        self.pooling = GatedAttention(width)
        self.classifier = self._make_classifier()

    @torch.jit.export
    def attend(self, features: Tensor, clinical: Tensor | None = None, mask: Tensor | None = None) -> Attention:
        """Class logits and weights; arguments as in :meth:`persam_monai.networks.Head.attend`."""
        real = self._real(features, mask)
        readout, weights = self.pooling(self.projection(self._patches(features, mask)), real)  # [B, R], [B, N]
        return unpersonalised(self.classifier(readout), weights, real)


class LateFusionHead(Head):
    """Gated attention over the patches beside the clinical network: the record does not change the attention.

    The readout of :class:`GatedAttention` and the clinical tokens, one after another, go into PersAM's classifier
    together. ``pooled`` is each patch's weight as a share of the bag's largest.

    Raises:
        ValueError: if a size, or what is asked for missing values, is not possible.
    """

    def __init__(
        self,
        num_classes: int = 3,
        clinical_groups: Sequence[int] = (18, 10),
        feature_dim: int = 2048,
        width: int = 512,
        projection_hidden: int | None = 1024,
        dropout: float = 0.1,
        missing: str = "median",
        clinical_dropout: float = 0.0,
        clinical_variables: Sequence[Sequence[int]] | None = None,
        reduce_features: int | None = None,
    ) -> None:
        super().__init__(locals())
        self.clinical_encoder = self._make_clinical_encoder()
        self.projection = self._make_projection()
        self.pooling = GatedAttention(width)
        self.classifier = self._make_classifier(1 + len(clinical_groups))

    @torch.jit.export
    def attend(self, features: Tensor, clinical: Tensor | None = None, mask: Tensor | None = None) -> Attention:
        """Class logits and weights; arguments as in :meth:`persam_monai.networks.Head.attend`."""
        real = self._real(features, mask)
        readout, weights = self.pooling(self.projection(self._patches(features, mask)), real)  # [B, R], [B, N]
        tokens = self.clinical_encoder(self._record(features, clinical)).flatten(1)  # [B, M·R]
        return unpersonalised(self.classifier(torch.cat([readout, tokens], dim=1)), weights, real)


class ClinicalHead(Head):
    """Predicts from the record, and never looks at a patch: what is there to gain from the slides?

    PersAM's clinical encoder makes one token of each group; the tokens, one after another, go into PersAM's classifier.
    ``pooled`` is 0: no patch has a weight.

    Raises:
        ValueError: if a size, or what is asked for missing values, is not possible.
    """

    def __init__(
        self,
        num_classes: int = 3,
        clinical_groups: Sequence[int] = (18, 10),
        width: int = 512,
        dropout: float = 0.1,
        missing: str = "median",
        clinical_dropout: float = 0.0,
        clinical_variables: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__(locals())
        self.clinical_encoder = self._make_clinical_encoder()
        self.classifier = self._make_classifier(len(clinical_groups))

    @torch.jit.export
    def attend(self, features: Tensor, clinical: Tensor | None = None, mask: Tensor | None = None) -> Attention:
        """Class logits; arguments as in :meth:`persam_monai.networks.Head.attend`, ``features`` of any D."""
        real = self._real(features, mask)
        tokens = self.clinical_encoder(self._record(features, clinical)).flatten(1)  # [B, M·R]
        logits = self.classifier(tokens)  # [B, C]
        return unpersonalised(logits, torch.zeros_like(real, dtype=logits.dtype), real)
