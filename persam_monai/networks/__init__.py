# SPDX-License-Identifier: Apache-2.0
"""Networks: from bags of patches and clinical records to class logits and attentions."""

from persam_monai.networks.aggregator import Aggregation, Aggregator
from persam_monai.networks.attention import Attention
from persam_monai.networks.clinical_encoder import ClinicalEncoder
from persam_monai.networks.encoder import Encoder, EncoderLayer
from persam_monai.networks.extractor import PatchExtractor
from persam_monai.networks.extractor_weights import load_extractor_weights
from persam_monai.networks.optimiser import parameter_groups
from persam_monai.networks.persam import PersAM, PersAMHead
from persam_monai.networks.reference import load_reference_state_dict
from persam_monai.networks.tokens import TokenAssembly

__all__ = [
    "Aggregation",
    "Aggregator",
    "Attention",
    "ClinicalEncoder",
    "Encoder",
    "EncoderLayer",
    "PatchExtractor",
    "PersAM",
    "PersAMHead",
    "TokenAssembly",
    "load_extractor_weights",
    "load_reference_state_dict",
    "parameter_groups",
]
