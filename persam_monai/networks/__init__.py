# SPDX-License-Identifier: Apache-2.0
"""Networks: from bags of patches and clinical records to class logits and attentions."""

from persam_monai.networks.backbones import OnnxBackbone, TimmBackbone, TorchScriptBackbone
from persam_monai.networks.baselines import (
    ClinicalHead,
    GatedAttention,
    GatedAttentionMILHead,
    LateFusionHead,
    TransformerHead,
)
from persam_monai.networks.clinical_encoder import ClinicalEncoder
from persam_monai.networks.encoder import Encoder, EncoderLayer, TokenAssembly
from persam_monai.networks.extractor import PatchExtractor, check_extractor, extractor_name, resnet50_backbone
from persam_monai.networks.head import Attention, Head
from persam_monai.networks.network import (
    HEADS,
    AttendingNetwork,
    PersAM,
    PersAMOnFeatures,
    build_head,
    build_network,
    describe_head,
    parameter_groups,
    seed_weights,
)
from persam_monai.networks.persam import Aggregator, PersAMHead
from persam_monai.networks.precision import resolve_precision
from persam_monai.networks.reference import load_reference_state_dict, reference_settings
from persam_monai.networks.weights import load_extractor_weights, save_extractor_weights, weights_sha256

__all__ = [
    "HEADS",
    "Aggregator",
    "AttendingNetwork",
    "Attention",
    "ClinicalEncoder",
    "ClinicalHead",
    "Encoder",
    "EncoderLayer",
    "GatedAttention",
    "GatedAttentionMILHead",
    "Head",
    "LateFusionHead",
    "OnnxBackbone",
    "PatchExtractor",
    "PersAM",
    "PersAMHead",
    "PersAMOnFeatures",
    "TimmBackbone",
    "TokenAssembly",
    "TorchScriptBackbone",
    "TransformerHead",
    "build_head",
    "build_network",
    "check_extractor",
    "describe_head",
    "extractor_name",
    "load_extractor_weights",
    "load_reference_state_dict",
    "parameter_groups",
    "reference_settings",
    "resnet50_backbone",
    "resolve_precision",
    "save_extractor_weights",
    "seed_weights",
    "weights_sha256",
]
