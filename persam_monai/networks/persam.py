# SPDX-License-Identifier: Apache-2.0
"""PersAM's head: the record decides with the classes which patches make up the bag."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from persam_monai.networks.encoder import Encoder, TokenAssembly
from persam_monai.networks.head import Attention, Head
from persam_monai.networks.precision import at_least_float32

# Always there, logits of the record learn the training patients by heart: macro AUROC 0.91 where this gives 0.94.
RECORD_LOGITS_DROPOUT = 0.7
READINGS = ("both", "image", "record")


class PersAMHead(Head):
    """The paper's head: attention over patches that changes with the record.

    Patch features are projected to tokens, the record becomes clinical tokens, all of them and the class tokens go
    through a Transformer encoder, the personalised aggregator pools the patches, and a classifier (layer-norm,
    R → R/2, ReLU, dropout, → C) reads the bag. Layers start as PyTorch initialises them.

    Ablations are arguments: without ψ (``exploratory=False``), without φ (``relevance=False``), with
    ``attention="standard"``. Without ψ and φ the record still reaches the attention through the encoder, where patches
    and classes see it; with ``layers=0`` as well, not at all.

    Args:
        num_classes: C, at least 2.
        clinical_groups: how many numbers of the record belong to each group; each group is one token.
        feature_dim: D, the length of a patch's feature vector.
        width: R, the length of a token.
        projection_hidden: hidden units (ReLU) of the two-layer projection of patch features; ``None`` is one linear
            layer.
        attention: ``"balanced"`` or ``"standard"``, see :func:`~persam_monai.networks.encoder.balanced_attention`.
        heads: of the encoder.
        layers: of the encoder; 0 leaves the encoder out.
        feedforward: hidden units of the encoder's feed-forward networks.
        dropout: probability; attention weights of bags above 1024 patches go without.
        exploratory: false takes ψ ≡ 1 in the aggregator: the record does not ask for patches.
        relevance: false takes φ ≡ 1 in the aggregator: the record does not weigh classes.
        missing: ``"median"`` fills gaps of the record with medians, as the paper does; ``"learned"`` also tells the
            network where, see :class:`~persam_monai.networks.clinical_encoder.ClinicalEncoder`.
        clinical_dropout: probability in [0, 1) that training treats a clinical variable, or a whole group, as missing.
        clinical_variables: how many numbers each variable of each group has; ``None`` if each number is a variable.
        reduce_features: k, how many whitened principal components of the training fold's features are used, see
            :class:`~persam_monai.networks.head.FeatureReduction`; for features of an extractor that does not learn.
            ``None`` uses the features as they are.
        values: what the aggregator pools. ``"tokens"``, the paper's, come out of the encoder, where patches have seen
            the record. ``"patches"`` go into it and have not: the record then acts through the attention alone.
        readings: also learns to predict from the record alone, by a classifier of the clinical tokens whose logits are
            added in 30 % of the bags of training. Afterwards the head reads both, as ever, or the image or the record
            alone: what :meth:`read` says, and validation has chosen.

    Raises:
        ValueError: if a size, ``attention``, ``values``, or what is asked for missing values is not possible.
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
        exploratory: bool = True,
        relevance: bool = True,
        missing: str = "median",
        clinical_dropout: float = 0.0,
        clinical_variables: Sequence[Sequence[int]] | None = None,
        reduce_features: int | None = None,
        values: str = "tokens",
        readings: bool = False,
    ) -> None:
        super().__init__(locals())
        if layers < 0:
            raise ValueError(f"layers must be at least 0, got {layers}.")
        if values not in ("tokens", "patches"):
            raise ValueError(f'values must be "tokens" or "patches", got {values!r}.')
        self.values_before_encoder = values == "patches"
        tokens = len(clinical_groups)
        self.clinical_encoder = self._make_clinical_encoder()
        self.projection = self._make_projection()
        self.tokens = TokenAssembly(width, tokens, num_classes, dropout)
        self.encoder = Encoder(layers, width, tokens, num_classes, attention, heads, feedforward, dropout)
        self.aggregator = Aggregator(width, tokens, num_classes, dropout, exploratory, relevance)
        self.classifier = self._make_classifier()
        self.record_classifier = self._make_classifier(tokens) if readings else None
        self.record_logits_dropout = RECORD_LOGITS_DROPOUT
        self.readings: tuple[str, ...] = READINGS if readings else READINGS[:1]
        self.reading = nn.Buffer(torch.tensor(0)) if readings else None

    @torch.jit.unused
    def read(self, reading: str) -> None:
        """Predict from ``"both"``, ``"image"`` (no record is looked at) or ``"record"`` (the classifier of the record).

        Training goes on as ever. Where the record alone is read, attentions are those of both and decide nothing.

        Raises:
            ValueError: if the head has no such reading.
        """
        if reading not in self.readings:
            raise ValueError(f"reading must be one of {', '.join(self.readings)}, got {reading!r}.")
        if self.reading is not None:
            self.reading.fill_(self.readings.index(reading))

    @torch.jit.export
    def attend(self, features: Tensor, clinical: Tensor | None = None, mask: Tensor | None = None) -> Attention:
        """Class logits and attentions; arguments and results as in :meth:`persam_monai.networks.Head.attend`."""
        real = self._real(features, mask)
        patches = self.projection(self._patches(features, mask))  # [B, N, R]
        reading = 0 if self.reading is None or self.training else int(self.reading)
        record = self.clinical_encoder(self._record(features, None if reading == 1 else clinical))  # [B, M, R]
        tokens = self.tokens(patches, record)  # [B, N + M + C, R]
        encoded = self.encoder(tokens, mask)  # [B, N + M + C, R]
        aggregation = self.aggregator(encoded, mask, tokens if self.values_before_encoder else encoded)
        logits = at_least_float32(self.classifier(aggregation.readout))  # [B, C]
        if self.record_classifier is not None and self.training:
            some = torch.rand((logits.shape[0], 1), device=logits.device) >= self.record_logits_dropout
            logits = logits + self._record_logits(record) * some
        if reading == 2:
            logits = self._record_logits(record)
        return Attention(
            logits=logits,
            explanatory=aggregation.explanatory,
            exploratory=aggregation.exploratory,
            class_attention=aggregation.class_attention,
            class_relevance=aggregation.class_relevance,
            pooled=aggregation.pooled,
            mask=real,
        )

    def _record_logits(self, record: Tensor) -> Tensor:
        """Logits ``[B, C]`` of clinical tokens ``[B, M, R]``."""
        assert self.record_classifier is not None
        return at_least_float32(self.record_classifier(record.flatten(1)))


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
        self.dropout = nn.Dropout(dropout)
        self.scale = width**-0.5

    def forward(self, tokens: Tensor, mask: Tensor | None = None, values: Tensor | None = None) -> Aggregation:
        """Readout and attentions.

        Args:
            tokens: ``[B, N + M + C, R]`` in the order patches, clinical, class.
            mask: ``[B, N]`` bool, true where there is a patch; ``None`` where all are real.
            values: tokens in the same order whose patches are pooled; ``None`` pools those of ``tokens``.

        Returns:
            The readout and the attentions, the latter in float32 (float64 where ``tokens`` is).
        """
        patches = tokens.shape[1] - self.clinical_tokens - self.classes
        query = self.query(tokens[:, patches:])  # [B, M + C, R]
        key = self.key(tokens[:, : -self.classes])  # [B, N + M, R]
        value = self.value((tokens if values is None else values)[:, :patches])  # [B, N, R]
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
