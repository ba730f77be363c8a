# SPDX-License-Identifier: Apache-2.0
"""PersAM, the personalised attention mechanism, from bags and records to class logits and attentions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from persam_monai.networks.aggregator import Aggregator
from persam_monai.networks.attention import Attention
from persam_monai.networks.clinical_encoder import ClinicalEncoder
from persam_monai.networks.encoder import Encoder
from persam_monai.networks.extractor import PatchExtractor
from persam_monai.networks.precision import at_least_float32
from persam_monai.networks.tokens import TokenAssembly


class PersAMHead(nn.Module):
    """Everything after the extractor: patch features and clinical record to class logits and attentions.

    Patch features are projected to tokens, the record becomes clinical tokens, all of them and the class tokens go
    through a Transformer encoder, the personalised aggregator pools the patches, and a classifier (layer-norm,
    R → R/2, ReLU, dropout, → C) reads the bag. Layers start as PyTorch initialises them.

    Args:
        num_classes: C, at least 2.
        clinical_groups: number of clinical variables of each group; each group is one token.
        feature_dim: D, the length of a patch's feature vector.
        width: R, the length of a token.
        projection_hidden: hidden units (ReLU) of the two-layer projection of patch features; ``None`` is one linear
            layer.
        attention: ``"balanced"`` or ``"standard"``, see :mod:`persam_monai.networks.token_attention`.
        heads: of the encoder.
        layers: of the encoder.
        feedforward: hidden units of the encoder's feed-forward networks.
        dropout: probability; attention weights of bags above 1024 patches go without.

    Attributes:
        settings: the arguments it was built with, JSON-able; ``PersAMHead(**head.settings)`` builds its like.

    Raises:
        ValueError: if a size or ``attention`` is not possible.
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
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}.")
        self.settings = {
            "num_classes": num_classes,
            "clinical_groups": list(clinical_groups),
            "feature_dim": feature_dim,
            "width": width,
            "projection_hidden": projection_hidden,
            "attention": attention,
            "heads": heads,
            "layers": layers,
            "feedforward": feedforward,
            "dropout": dropout,
        }
        groups = len(clinical_groups)
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        self.clinical_encoder = ClinicalEncoder(clinical_groups, width)
        self.projection: nn.Module = nn.Linear(feature_dim, width)
        if projection_hidden is not None:
            self.projection = nn.Sequential(
                nn.Linear(feature_dim, projection_hidden), nn.ReLU(), nn.Linear(projection_hidden, width)
            )
        self.tokens = TokenAssembly(width, groups, num_classes, dropout)
        self.encoder = Encoder(layers, width, groups, num_classes, attention, heads, feedforward, dropout)
        self.aggregator = Aggregator(width, groups, num_classes, dropout)
        self.classifier = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, width // 2),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width // 2, num_classes),
        )

    def forward(self, features: Tensor, clinical: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Class logits ``[B, C]``; arguments as in :meth:`attend`."""
        return self.attend(features, clinical, mask).logits

    @torch.jit.export
    def attend(self, features: Tensor, clinical: Tensor | None = None, mask: Tensor | None = None) -> Attention:
        """Class logits and attentions.

        Args:
            features: ``[B, D, N]``; what stands at padded places does not matter.
            clinical: ``[B, sum(clinical_groups)]``, NaN where missing; ``None`` is a record with nothing in it.
            mask: ``[B, N]`` bool, true where there is a patch; ``None`` where all are real.

        Returns:
            Logits and attentions in float32 (float64 where the weights are). A bag of nothing but padding has finite
            logits, attentions of 0, and a row of ``mask`` without a true.

        Raises:
            ValueError: if an argument has another shape.
            RuntimeError: if a record is given and the clinical encoder's statistics were never fitted.
        """
        if features.dim() != 3 or features.shape[1] != self.feature_dim or features.shape[2] == 0:
            raise ValueError(f"features must be [B, {self.feature_dim}, N] with N at least 1, got {features.shape}.")
        bags, places = features.shape[0], features.shape[2]
        if clinical is None:
            clinical = torch.full((bags, self.clinical_encoder.variables), float("nan"), device=features.device)
        if clinical.shape[0] != bags:
            raise ValueError(f"There must be one record per bag: got {clinical.shape[0]} records for {bags} bags.")
        real = torch.ones((bags, places), dtype=torch.bool, device=features.device)
        if mask is not None:
            if mask.shape != real.shape or mask.dtype != torch.bool:
                raise ValueError(f"mask must be bool [{bags}, {places}], got {mask.dtype} {mask.shape}.")
            real = mask
            features = torch.where(mask[:, None], features, 0.0)
        patches = self.projection(features.transpose(1, 2))  # [B, N, R]
        tokens = self.tokens(patches, self.clinical_encoder(clinical))  # [B, N + M + C, R]
        found = self.aggregator(self.encoder(tokens, mask), mask)
        return Attention(
            logits=at_least_float32(self.classifier(found.readout)),  # [B, C]
            explanatory=found.explanatory,
            exploratory=found.exploratory,
            class_attention=found.class_attention,
            class_relevance=found.class_relevance,
            pooled=found.pooled,
            mask=real,
        )


class PersAM(nn.Module):
    """The whole network: bags of patches and clinical record to class logits and attentions.

    Args:
        extractor: a :class:`PatchExtractor`, or a bare backbone ``[n, 3, H, W]`` → ``[n, D]``, which then gets one
            with ImageNet's pixel statistics.
        head: a :class:`PersAMHead` with that D as its ``feature_dim``.

    Raises:
        ValueError: if extractor and head do not agree on D.
    """

    def __init__(self, extractor: nn.Module, head: PersAMHead) -> None:
        super().__init__()
        if not isinstance(extractor, PatchExtractor):
            extractor = PatchExtractor(extractor, feature_dim=head.feature_dim)
        if extractor.feature_dim != head.feature_dim:
            raise ValueError(
                f"feature_dim must agree: the extractor gives {extractor.feature_dim}, the head takes "
                f"{head.feature_dim}."
            )
        self.extractor = extractor
        self.head = head

    def forward(self, image: Tensor, clinical: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Class logits ``[B, C]``; arguments as in :meth:`attend`."""
        return self.attend(image, clinical, mask).logits

    @torch.jit.export
    def attend(self, image: Tensor, clinical: Tensor | None = None, mask: Tensor | None = None) -> Attention:
        """Class logits and attentions.

        Args:
            image: ``[B, 3, N, H, W]``, uint8 or floating, 0–255.
            clinical: ``[B, sum(clinical_groups)]``, NaN where missing; ``None`` is a record with nothing in it.
            mask: ``[B, N]`` bool, true where there is a patch; ``None`` where all are real.

        Returns:
            As :meth:`PersAMHead.attend`.
        """
        return self.head.attend(self.extractor(image, mask), clinical, mask)
