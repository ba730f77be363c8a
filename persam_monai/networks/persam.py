# SPDX-License-Identifier: Apache-2.0
"""PersAM, the personalised attention mechanism, from bags and records to class logits and attentions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from persam_monai.networks.aggregator import Aggregator
from persam_monai.networks.attention import Attention
from persam_monai.networks.blocks import bag_classifier, patch_projection
from persam_monai.networks.encoder import Encoder
from persam_monai.networks.extractor import PatchExtractor
from persam_monai.networks.head import Head
from persam_monai.networks.precision import at_least_float32
from persam_monai.networks.tokens import TokenAssembly


class PersAMHead(Head):
    """The paper's head: attention over patches that changes with the record.

    Patch features are projected to tokens, the record becomes clinical tokens, all of them and the class tokens go
    through a Transformer encoder, the personalised aggregator pools the patches, and a classifier (layer-norm,
    R → R/2, ReLU, dropout, → C) reads the bag. Layers start as PyTorch initialises them.

    Arguments as :class:`~persam_monai.networks.head.Head`, all of them used. Ablations are arguments: without ψ
    (``exploratory=False``), without φ (``relevance=False``), with ``attention="standard"``. Without ψ and φ the record
    still reaches the attention through the encoder, where patches and classes see it; with ``layers=0`` as well, not
    at all.
    """

    def _build(self) -> None:
        groups, width, dropout = (self.settings[name] for name in ("clinical_groups", "width", "dropout"))
        attention, heads, layers, feedforward = (
            self.settings[name] for name in ("attention", "heads", "layers", "feedforward")
        )
        tokens = len(groups)
        self.clinical_encoder = self._make_clinical_encoder()
        self.projection = patch_projection(self.feature_dim, width, self.settings["projection_hidden"])
        self.tokens = TokenAssembly(width, tokens, self.num_classes, dropout)
        self.encoder = Encoder(layers, width, tokens, self.num_classes, attention, heads, feedforward, dropout)
        exploratory, relevance = self.settings["exploratory"], self.settings["relevance"]
        self.aggregator = Aggregator(width, tokens, self.num_classes, dropout, exploratory, relevance)
        self.classifier = bag_classifier(width, width, self.num_classes, dropout)

    @torch.jit.export
    def attend(self, features: Tensor, clinical: Tensor | None = None, mask: Tensor | None = None) -> Attention:
        """Class logits and attentions; arguments and results as in :meth:`persam_monai.networks.head.Head.attend`."""
        features, clinical, real = self._checked(features, clinical, mask)
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
        head: a :class:`PersAMHead`, or one of the baselines, with that D as its ``feature_dim``.

    Raises:
        ValueError: if extractor and head do not agree on D.
    """

    def __init__(self, extractor: nn.Module, head: Head) -> None:
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
            As :meth:`persam_monai.networks.head.Head.attend`.
        """
        if self.head.reads_patches:
            features = self.extractor(image, mask)  # [B, D, N]
        else:
            features = torch.zeros((image.shape[0], self.head.feature_dim, image.shape[2]), device=image.device)
        return self.head.attend(features, clinical, mask)


class PersAMOnFeatures(nn.Module):
    """The network without its extractor, for features that were extracted before.

    What it has learnt is named as in :class:`PersAM`, so that an extractor can be put before it afterwards.

    Args:
        head: as of :class:`PersAM`.
    """

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, image: Tensor, clinical: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Class logits ``[B, C]``; arguments as in :meth:`attend`."""
        return self.attend(image, clinical, mask).logits

    @torch.jit.export
    def attend(self, image: Tensor, clinical: Tensor | None = None, mask: Tensor | None = None) -> Attention:
        """Class logits and attentions.

        Args:
            image: features ``[B, D, N]`` of any floating type.
            clinical: as of :meth:`PersAM.attend`.
            mask: as of :meth:`PersAM.attend`.

        Returns:
            As :meth:`persam_monai.networks.head.Head.attend`.
        """
        return self.head.attend(at_least_float32(image), clinical, mask)
