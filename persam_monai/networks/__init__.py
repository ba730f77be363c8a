# SPDX-License-Identifier: Apache-2.0
"""Networks: from bags of patches and clinical records to class logits and attentions."""

from persam_monai.networks.backbones import OnnxBackbone, TimmBackbone, TorchScriptBackbone
from persam_monai.networks.baselines import ClinicalHead, GatedAttentionMILHead, LateFusionHead, TransformerHead
from persam_monai.networks.extractor import PatchExtractor, resnet50_backbone
from persam_monai.networks.head import Attention, Head
from persam_monai.networks.network import (
    AttendingNetwork,
    PersAM,
    PersAMOnFeatures,
    build_head,
    build_network,
    describe_head,
    parameter_groups,
    seed_weights,
)
from persam_monai.networks.persam import PersAMHead
from persam_monai.networks.precision import resolve_precision
from persam_monai.networks.weights import load_extractor_weights, save_extractor_weights

__all__ = [
    "AttendingNetwork",
    "Attention",
    "ClinicalHead",
    "GatedAttentionMILHead",
    "Head",
    "LateFusionHead",
    "OnnxBackbone",
    "PatchExtractor",
    "PersAM",
    "PersAMHead",
    "PersAMOnFeatures",
    "TimmBackbone",
    "TorchScriptBackbone",
    "TransformerHead",
    "build_head",
    "build_network",
    "describe_head",
    "load_extractor_weights",
    "parameter_groups",
    "resnet50_backbone",
    "resolve_precision",
    "save_extractor_weights",
    "seed_weights",
]
