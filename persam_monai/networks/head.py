# SPDX-License-Identifier: Apache-2.0
"""What every head has in common: its settings, its inputs and outputs, and the layers that several heads share."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from persam_monai.networks.clinical_encoder import ClinicalEncoder
from persam_monai.networks.precision import at_least_float32

LARGEST_DEVIATION = 10.0  # a component that the training patches hardly ever had would decide everything else
LEAST_VARIANCE = 1e-9  # of the largest component's: below, it is rounding


class Attention(NamedTuple):
    """The logits and every attention of the paper, for B bags of N patches and C classes.

    Attentions lie in [0, 1] and are exactly 0 at padded locations. A head without personalised attention (a baseline)
    has ``logits``, ``pooled`` and ``mask`` alone: its ``explanatory`` and ``class_attention`` are ``[B, 0, N]``, of no
    class, its ``exploratory`` and ``class_relevance`` ``[B, 0]``.
    """

    logits: Tensor
    """Class logits, ``[B, C]``."""
    explanatory: Tensor
    """a′_lc = a_lc φ_c ψ_l, how much patch l speaks for class c given the record, ``[B, C, N]``."""
    exploratory: Tensor
    """ψ_l, how much the record asks to look at patch l, ``[B, N]``."""
    class_attention: Tensor
    """a_lc, how much class c looks at patch l, ``[B, C, N]``."""
    class_relevance: Tensor
    """φ_c, how much class c has to do with the record, ``[B, C]``."""
    pooled: Tensor
    """max over classes of a′_lc, the weight (before normalisation) of patch l in the bag, ``[B, N]``."""
    mask: Tensor
    """True where there is a patch, ``[B, N]`` bool; a row without any is a bag in which nothing was seen."""


class Head(nn.Module):
    """Everything after the extractor: patch features and clinical record to class logits and attentions.

    A subclass takes the arguments that it uses, hands them all to this constructor, makes its layers and defines
    ``attend``. Arguments of the same name mean the same in every head; :class:`~persam_monai.networks.PersAMHead`
    explains them all.

    Args:
        arguments: ``locals()`` of the subclass's constructor; ``num_classes`` is always one of its arguments. A head
            with ``feature_dim`` reads patches, one with ``clinical_groups`` reads the record.

    Attributes:
        settings: the arguments it was built with, JSON-able; ``type(head)(**head.settings)`` builds its like.
        feature_dim: D, the length of a patch's feature vector; ``None`` if it reads no patch.
        reads_patches: false where features do not matter; a :class:`~persam_monai.networks.PersAM` then does not run
            its extractor.

    Raises:
        ValueError: if ``num_classes`` is below 2, or a switch is neither true nor false.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        super().__init__()
        settings = {name: arguments[name] for name in inspect.signature(type(self)).parameters}
        if settings["num_classes"] < 2:
            raise ValueError(f"num_classes must be at least 2, got {settings['num_classes']}.")
        for name in {"exploratory", "relevance", "readings"} & settings.keys():
            if not isinstance(settings[name], bool):
                raise ValueError(f"{name} must be true or false, got {settings[name]!r}.")
        if "clinical_groups" in settings:
            settings["clinical_groups"] = list(settings["clinical_groups"])
        if settings.get("clinical_variables") is not None:
            settings["clinical_variables"] = [list(sizes) for sizes in settings["clinical_variables"]]
        self.settings = settings
        self.num_classes: int = settings["num_classes"]
        self.record_size: int = sum(settings.get("clinical_groups", ()))
        self.feature_dim: int | None = settings.get("feature_dim")
        self.reads_patches = self.feature_dim is not None
        components = settings.get("reduce_features")
        self.reduction = nn.Identity() if components is None else FeatureReduction(settings["feature_dim"], components)

    def _make_clinical_encoder(self) -> ClinicalEncoder:
        names = ("clinical_groups", "width", "missing", "clinical_dropout", "clinical_variables")
        return ClinicalEncoder(*(self.settings[name] for name in names))

    def _make_projection(self) -> nn.Module:
        """Patch features, or their k components, to tokens: linear D → H, ReLU, linear H → R; or one linear layer."""
        features, hidden, width = (self.settings[name] for name in ("feature_dim", "projection_hidden", "width"))
        features = self.settings["reduce_features"] or features
        if hidden is None:
            return nn.Linear(features, width)
        return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def _make_classifier(self, tokens: int = 1) -> nn.Sequential:
        """Bags, described by so many tokens one after another, to logits; R → R/2 → C where it is one token."""
        width, hidden = self.settings["width"], self.settings["width"] // 2
        return nn.Sequential(
            nn.LayerNorm(tokens * width),
            nn.Linear(tokens * width, hidden),
            nn.ReLU(),
            nn.Dropout(self.settings["dropout"]),
            nn.Linear(hidden, self.num_classes),
        )

    def forward(self, features: Tensor, clinical: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Class logits ``[B, C]``; arguments as in :meth:`attend`."""
        return self.attend(features, clinical, mask).logits

    def attend(self, features: Tensor, clinical: Tensor | None = None, mask: Tensor | None = None) -> Attention:
        """Class logits and attentions.

        Args:
            features: ``[B, D, N]``; values at padded locations do not matter.
            clinical: ``[B, sum(clinical_groups)]``, NaN where missing; ``None`` is a record with nothing in it.
            mask: ``[B, N]`` bool, true where there is a patch; ``None`` where all are real.

        Returns:
            Logits and attentions in float32 (float64 where the weights are). A bag of nothing but padding has finite
            logits, attentions of 0, and a row of ``mask`` without a true.

        Raises:
            ValueError: if an argument that the head reads has another shape.
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
        """Take the principal components of the training fold's features, if they are reduced.

        Args:
            features: ``[n, D]``, one row per patch.
        """
        if isinstance(self.reduction, FeatureReduction):
            self.reduction.fit(features)

    def _real(self, features: Tensor, mask: Tensor | None) -> Tensor:
        """Which locations hold a patch, bool ``[B, N]``."""
        if features.dim() != 3 or features.shape[2] == 0:
            raise ValueError(f"features must be [B, D, N] with N at least 1, got {features.shape}.")
        bags, patches = features.shape[0], features.shape[2]
        if mask is None:
            return torch.ones((bags, patches), dtype=torch.bool, device=features.device)
        if mask.shape[0] != bags or mask.shape[1] != patches or mask.dtype != torch.bool:
            raise ValueError(f"mask must be bool [{bags}, {patches}], got {mask.dtype} {mask.shape}.")
        return mask

    def _patches(self, features: Tensor, mask: Tensor | None) -> Tensor:
        """Features, reduced where asked for and 0 at padded locations, as rows ``[B, N, D]`` or ``[B, N, k]``."""
        size = self.feature_dim
        if size is not None and features.shape[1] != size:
            raise ValueError(f"features must be [B, {size}, N], got {features.shape}.")
        features = self.reduction(features)
        if mask is not None:
            features = torch.where(mask[:, None], features, 0.0)
        return features.transpose(1, 2)

    def _record(self, features: Tensor, clinical: Tensor | None) -> Tensor:
        """Records ``[B, sum(clinical_groups)]``, NaN where there are none."""
        bags = features.shape[0]
        if clinical is None:
            return torch.full((bags, self.record_size), float("nan"), device=features.device)
        if clinical.shape[0] != bags:
            raise ValueError(f"There must be one record per bag: got {clinical.shape[0]} records for {bags} bags.")
        if clinical.dim() != 2 or clinical.shape[1] != self.record_size:
            raise ValueError(f"clinical must be [B, {self.record_size}], got {clinical.shape}.")
        return clinical


class FeatureReduction(nn.Module):
    """Whitened principal components of the training patches' features.

    Thousands of features drown a few hundred patients: a network finds in them whatever tells the training patients
    apart. The first k components hold what differs most between patches; each is brought to variance 1, since the
    first ones (stain, brightness) would otherwise outweigh the rest. The components are buffers, saved with the
    weights.

    Args:
        feature_dim: D.
        components: k, between 1 and D.

    Raises:
        ValueError: if k is not possible.
    """

    def __init__(self, feature_dim: int, components: int) -> None:
        super().__init__()
        if isinstance(components, bool) or not 1 <= components <= feature_dim:
            raise ValueError(f"reduce_features must be between 1 and the {feature_dim} features, got {components!r}.")
        self.mean = nn.Buffer(torch.zeros(feature_dim))
        self.components = nn.Buffer(torch.zeros(components, feature_dim))
        self.fitted = nn.Buffer(torch.tensor(False))
        self.limit = LARGEST_DEVIATION

    def forward(self, features: Tensor) -> Tensor:
        """``[B, D, N]`` to components ``[B, k, N]``, in standard deviations of the training patches, at most 10.

        Raises:
            RuntimeError: if the components were never fitted.
        """
        if not bool(self.fitted):
            raise RuntimeError(
                "The components of the features are unknown: call fit_features(features) with features of the training "
                "fold, or load trained weights."
            )
        # Small components are differences of large numbers, and autocast leaves float64 as it is.
        deviations = features.double() - self.mean.double()[:, None]
        reduced = self.components.double() @ deviations  # [B, k, N]
        return reduced.clamp(-self.limit, self.limit).to(at_least_float32(features).dtype)

    @torch.jit.unused
    def fit(self, features: Tensor) -> None:
        """Take the components of features ``[n, D]``; where they vary in fewer than k directions, the rest are 0.

        Raises:
            ValueError: if they have another D, or are fewer than two.
        """
        if features.dim() != 2 or features.shape[0] < 2 or features.shape[1] != len(self.mean):
            raise ValueError(f"features must be [n, {len(self.mean)}] with n at least 2, got {features.shape}.")
        mean = features.mean(dim=0, dtype=torch.float64)
        deviations = features.double() - mean
        variances, directions = torch.linalg.eigh(deviations.T @ deviations / len(features))  # ascending
        k = len(self.components)
        variances, directions = variances.flip(0)[:k], directions.T.flip(0)[:k]
        # The sign of an eigenvector is arbitrary: that of its largest entry is positive on every machine.
        largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
        scale = torch.where(variances > LEAST_VARIANCE * variances[0], variances.clamp(min=0).sqrt(), torch.inf)
        self.mean.copy_(mean)
        self.components.copy_(directions * largest.sign() / scale[:, None])
        self.fitted.fill_(True)


def unpersonalised(logits: Tensor, pooled: Tensor, mask: Tensor) -> Attention:
    """The :class:`Attention` of a head without personalised attention: no class, and no record, looks at patches.

    Args:
        logits: ``[B, C]``.
        pooled: the weight of each patch in the bag, ``[B, N]`` in [0, 1].
        mask: ``[B, N]`` bool, true where there is a patch.

    Returns:
        ``logits``, ``pooled`` and ``mask``; the other fields hold no element.
    """
    bags, patches = mask.shape[0], mask.shape[1]
    logits, pooled = at_least_float32(logits), at_least_float32(pooled)
    return Attention(
        logits=logits,
        explanatory=pooled.new_zeros((bags, 0, patches)),
        exploratory=pooled.new_zeros((bags, 0)),
        class_attention=pooled.new_zeros((bags, 0, patches)),
        class_relevance=pooled.new_zeros((bags, 0)),
        pooled=pooled,
        mask=mask,
    )
