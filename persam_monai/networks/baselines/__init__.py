# SPDX-License-Identifier: Apache-2.0
"""Heads to compare PersAM with, each with PersAM's arguments and results."""

from persam_monai.networks.baselines.clinical import ClinicalHead
from persam_monai.networks.baselines.gated_attention import GatedAttention, GatedAttentionMILHead
from persam_monai.networks.baselines.late_fusion import LateFusionHead
from persam_monai.networks.baselines.transformer import TransformerHead

__all__ = ["ClinicalHead", "GatedAttention", "GatedAttentionMILHead", "LateFusionHead", "TransformerHead"]
