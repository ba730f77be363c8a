# SPDX-License-Identifier: Apache-2.0
"""Features on one scale, whatever extractor they come from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LIMIT = 10.0  # deviations; a feature that the training patches hardly ever had would decide everything else
LEAST = 1e-3  # of the features' median deviation: below, it is rounding


class FeatureScaling(nn.Module):
    """Standardises each feature with the mean and standard deviation of the training patches.

    Features of an extractor with random weights, and many of a pretrained one, hardly differ between patches beside
    what they have in common: a network that has to learn that first learns slowly, or never. The statistics are
    buffers, saved with the weights.

    Args:
        feature_dim: D.
    """

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.zeros(feature_dim))
        self.scale = nn.Buffer(torch.ones(feature_dim))
        self.fitted = nn.Buffer(torch.tensor(False))
        self.limit = LIMIT

    def forward(self, features: Tensor) -> Tensor:
        """``[B, D, N]`` to the same in standard deviations, at most 10 of them.

        Raises:
            RuntimeError: if the statistics were never fitted.
        """
        if not bool(self.fitted):
            raise RuntimeError(
                "The features' statistics are unknown: call fit_features(features) with those of the training fold, or "
                "load trained weights."
            )
        return ((features - self.mean[:, None]) / self.scale[:, None]).clamp(-self.limit, self.limit)

    @torch.jit.unused
    def fit(self, features: Tensor) -> None:
        """Take mean and standard deviation of features ``[n, D]``; one that hardly changes keeps its scale.

        Raises:
            ValueError: if they have another D, or are fewer than two.
        """
        if features.dim() != 2 or features.shape[0] < 2 or features.shape[1] != len(self.mean):
            raise ValueError(f"features must be [n, {len(self.mean)}] with n at least 2, got {features.shape}.")
        scale, mean = torch.std_mean(features.double(), dim=0, correction=0)
        least = torch.maximum(1e-6 * mean.abs(), LEAST * scale.median())
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(scale > least, scale, 1.0))
        self.fitted.fill_(True)
