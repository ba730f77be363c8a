# SPDX-License-Identifier: Apache-2.0
"""Small networks that several heads begin or end with."""

from __future__ import annotations

from torch import nn

from persam_monai.networks.dropout import Dropout


def patch_projection(feature_dim: int, width: int, hidden: int | None) -> nn.Module:
    """Patch features to tokens: linear D → H, ReLU, linear H → R; or one linear layer.

    Args:
        feature_dim: D, the length of a patch's feature vector.
        width: R, the length of a token.
        hidden: H; ``None`` is one linear layer D → R.
    """
    if hidden is None:
        return nn.Linear(feature_dim, width)
    return nn.Sequential(nn.Linear(feature_dim, hidden), nn.ReLU(), nn.Linear(hidden, width))


def bag_classifier(size: int, width: int, num_classes: int, dropout: float) -> nn.Sequential:
    """What reads a bag: layer-norm, linear S → R/2, ReLU, dropout, linear R/2 → C.

    Args:
        size: S, the length of what describes a bag.
        width: R, the length of a token.
        num_classes: C.
        dropout: probability.
    """
    return nn.Sequential(
        nn.LayerNorm(size),
        nn.Linear(size, width // 2),
        nn.ReLU(),
        Dropout(dropout),
        nn.Linear(width // 2, num_classes),
    )
