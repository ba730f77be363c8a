# SPDX-License-Identifier: Apache-2.0
"""Extractors of others: networks of timm, TorchScript and ONNX files, what they are called and whether they fit."""

from persam_monai.networks.extractors.checking import check_extractor
from persam_monai.networks.extractors.identity import brings_weights, extractor_name, state_sha256, weights_sha256
from persam_monai.networks.extractors.onnx import OnnxBackbone
from persam_monai.networks.extractors.timm import TimmBackbone
from persam_monai.networks.extractors.torchscript import TorchScriptBackbone

__all__ = [
    "OnnxBackbone",
    "TimmBackbone",
    "TorchScriptBackbone",
    "brings_weights",
    "check_extractor",
    "extractor_name",
    "state_sha256",
    "weights_sha256",
]
