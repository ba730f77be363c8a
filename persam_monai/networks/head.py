# SPDX-License-Identifier: Apache-2.0
"""What every head has in common: its arguments, and what it takes and gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from persam_monai.networks.attention import Attention
from persam_monai.networks.clinical_encoder import ClinicalEncoder
from persam_monai.networks.feature_scaling import FeatureScaling
from persam_monai.networks.missing import check_missing, variable_sizes
from persam_monai.networks.precision import at_least_float32
from persam_monai.settings import is_no, is_yes, or_none


class Head(nn.Module):
    """Everything after the extractor: patch features and clinical record to class logits and attentions.

    All heads take the same arguments, so that a config exchanges one for another by ``_target_`` alone; each says in
    its docstring which of them it does not use. A subclass makes its layers in ``_build`` from ``settings``, and
    defines ``attend``.

    Args:
        num_classes: C, at least 2.
        clinical_groups: how many numbers of the record belong to each group; each group is one token.
        feature_dim: D, the length of a patch's feature vector.
        width: R, the length of a token.
        projection_hidden: hidden units (ReLU) of the two-layer projection of patch features; ``None`` is one linear
            layer.
        attention: ``"balanced"`` or ``"standard"``, see :mod:`persam_monai.networks.token_attention`.
        heads: of the encoder.
        layers: of the encoder; 0 leaves the encoder out.
        feedforward: hidden units of the encoder's feed-forward networks.
        dropout: probability; attention weights of bags above 1024 patches go without.
        exploratory: false takes ψ ≡ 1 in the aggregator: the record does not ask for patches.
        relevance: false takes φ ≡ 1 in the aggregator: the record does not weigh classes.
        missing: ``"median"`` fills gaps of the record with medians, as the paper does; ``"learned"`` also tells the
            network where, see :class:`~persam_monai.networks.ClinicalEncoder`.
        clinical_dropout: probability in [0, 1) that training treats a clinical variable, or a whole group, as missing.
        clinical_variables: how many numbers each variable of each group has; ``None`` if each number is a variable.
        standardise_features: whether features are standardised with statistics of the training fold, see
            :class:`~persam_monai.networks.feature_scaling.FeatureScaling`; for features of an extractor that does not
            learn.

    Attributes:
        settings: the arguments it was built with, JSON-able; ``type(head)(**head.settings)`` builds its like.
        reads_patches: false where features do not matter; a :class:`~persam_monai.networks.PersAM` then spares the
            extractor.

    Raises:
        ValueError: if a size, ``attention``, or what is said about missing values is not possible.
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
        standardise_features: bool = False,
    ) -> None:
        super().__init__()
        if layers < 0:
            raise ValueError(f"layers must be at least 0, got {layers}.")
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}.")
        for name, value in (
            ("exploratory", exploratory),
            ("relevance", relevance),
            ("standardise_features", standardise_features),
        ):
            if not (is_yes(value) or is_no(value)):
                raise ValueError(f"{name} must be true or false, got {value!r}.")
        check_missing(missing, clinical_dropout)
        clinical_variables = or_none(clinical_variables)
        if clinical_variables is not None:
            clinical_variables = variable_sizes(clinical_groups, clinical_variables)
        settings: dict[str, Any] = {
            "num_classes": num_classes,
            "clinical_groups": list(clinical_groups),
            "feature_dim": feature_dim,
            "width": width,
            "projection_hidden": or_none(projection_hidden),
            "attention": attention,
            "heads": heads,
            "layers": layers,
            "feedforward": feedforward,
            "dropout": dropout,
            "exploratory": is_yes(exploratory),  # the command line hands over words
            "relevance": is_yes(relevance),
            "missing": missing,
            "clinical_dropout": clinical_dropout,
            "clinical_variables": clinical_variables,
            "standardise_features": is_yes(standardise_features),
        }
        self.settings = settings
        self.num_classes = num_classes
        self.feature_dim = feature_dim
        self.record_size = sum(clinical_groups)
        self.reads_patches = True
        self.feature_scaling = FeatureScaling(feature_dim) if is_yes(standardise_features) else nn.Identity()
        self._build()

    def _build(self) -> None:
        """Make the layers that ``settings`` describe."""
        raise NotImplementedError(f"{type(self).__name__} defines no _build.")

    def _make_clinical_encoder(self) -> ClinicalEncoder:
        """What reads the record, for :meth:`_build`."""
        names = ("clinical_groups", "width", "missing", "clinical_dropout", "clinical_variables")
        return ClinicalEncoder(*(self.settings[name] for name in names))

    def forward(self, features: Tensor, clinical: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Class logits ``[B, C]``; arguments as in :meth:`attend`."""
        return self.attend(features, clinical, mask).logits

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
            RuntimeError: if a record is given that the head reads, and its statistics were never fitted.
        """
        raise NotImplementedError

    @torch.jit.unused
    def fit_records(self, records: Tensor) -> None:
        """Take median, mean and scale of the training fold's records; a head that reads none takes nothing.

        Args:
            records: ``[P, sum(clinical_groups)]``, one row per patient; NaN where missing.
        """
        encoder = getattr(self, "clinical_encoder", None)
        if isinstance(encoder, ClinicalEncoder):
            encoder.fit(records)

    @torch.jit.unused
    def fit_features(self, features: Tensor) -> None:
        """Take mean and scale of the training fold's features, if they are standardised.

        Args:
            features: ``[n, D]``, one row per patch.
        """
        if isinstance(self.feature_scaling, FeatureScaling):
            self.feature_scaling.fit(features)

    def _checked(self, features: Tensor, clinical: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Features (standardised if asked for, 0 at padded places), records (NaN where none) and mask of a batch."""
        fits = not self.reads_patches or features.shape[1] == self.feature_dim
        if features.dim() != 3 or features.shape[2] == 0 or not fits:
            raise ValueError(f"features must be [B, {self.feature_dim}, N] with N at least 1, got {features.shape}.")
        bags, places = features.shape[0], features.shape[2]
        if clinical is None:
            clinical = torch.full((bags, self.record_size), float("nan"), device=features.device)
        if clinical.shape[0] != bags:
            raise ValueError(f"There must be one record per bag: got {clinical.shape[0]} records for {bags} bags.")
        if clinical.dim() != 2 or clinical.shape[1] != self.record_size:
            raise ValueError(f"clinical must be [B, {self.record_size}], got {clinical.shape}.")
        if self.reads_patches:
            features = self.feature_scaling(features)
        if mask is None:
            return features, clinical, torch.ones((bags, places), dtype=torch.bool, device=features.device)
        if mask.shape[0] != bags or mask.shape[1] != places or mask.dtype != torch.bool:
            raise ValueError(f"mask must be bool [{bags}, {places}], got {mask.dtype} {mask.shape}.")
        return torch.where(mask[:, None], features, 0.0), clinical, mask


def unpersonalised(logits: Tensor, pooled: Tensor, mask: Tensor) -> Attention:
    """The :class:`Attention` of a head without personalised attention: no class, and no record, looks at patches.

    Args:
        logits: ``[B, C]``.
        pooled: the weight of each patch in the bag, ``[B, N]`` in [0, 1].
        mask: ``[B, N]`` bool, true where there is a patch.

    Returns:
        ``logits``, ``pooled`` and ``mask``; the other fields hold no element.
    """
    bags, places = mask.shape[0], mask.shape[1]
    logits, pooled = at_least_float32(logits), at_least_float32(pooled)
    return Attention(
        logits=logits,
        explanatory=pooled.new_zeros((bags, 0, places)),
        exploratory=pooled.new_zeros((bags, 0)),
        class_attention=pooled.new_zeros((bags, 0, places)),
        class_relevance=pooled.new_zeros((bags, 0)),
        pooled=pooled,
        mask=mask,
    )
