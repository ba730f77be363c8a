# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the paper authors' public code, loaded into our network."""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping
from itertools import count, takewhile
from typing import Any

import torch
from torch import Tensor, nn

from persam_monai.errors import UserError, raise_together
from persam_monai.networks.network import PersAM
from persam_monai.networks.persam import PersAMHead
from persam_monai.networks.weights import misfits

logger = logging.getLogger(__name__)

# Our modules of the head and what the public code calls them. `{}` is a clinical group or encoder layer: the public
# code counts from 1, we from 0.
_MODULES = {
    "projection": "attention.fc",
    "tokens.patch_norm": "attention.norm_img",
    "tokens.patch_embedding_norm": "attention.norm_img_emb",
    "tokens.patch_sum_norm": "attention.norm_img_all",
    "tokens.clinical_norm": "attention.norm_table",
    "tokens.clinical_embedding_norm": "attention.norm_table_emb",
    "tokens.clinical_sum_norm": "attention.norm_table_all",
    "tokens.class_norm": "attention.norm_cls_token",
    "classifier.0": "attention.norm1",
    "classifier.1": "attention.classifier.0",
    "classifier.4": "attention.classifier.3",
}
_LAYER_MODULES = {
    "query_key_value": "self_attn.to_qkv",
    "attention_out": "self_attn.to_out.0",
    "attention_norm": "norm1",
    "feedforward.0": "ffn.net.0",
    "feedforward.3": "ffn.net.3",
    "feedforward_norm": "norm2",
}
_TOKENS = {
    "tokens.patch_embedding": "attention.pos_embedding_1",
    "tokens.clinical_embedding": "attention.pos_embedding_2",
    "tokens.class_tokens": "attention.cls_token",
}
# The public code's extractor is a ResNet50 as a sequence; places 2, 3 and 8 (ReLU and poolings) hold no weights.
_EXTRACTOR = "feature_ex.feature_ex."
_EXTRACTOR_PLACES = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}


def load_reference_state_dict(network: PersAM | PersAMHead, state: Mapping[str, Tensor]) -> None:
    """Loads a checkpoint of the public code, so that ``network`` computes what that code does.

    Since the public code standardises neither records nor pixels inside the network, the clinical statistics become
    the identity and the pixels' mean and standard deviation 0 and 1: give standardised records.

    Args:
        network: a :class:`PersAM`, or a :class:`PersAMHead`, for which the checkpoint's extractor is ignored; built
            with ``projection_hidden=None``, and ``attention`` as the checkpoint was trained.
        state: the checkpoint's tensors by name. It may be without the extractor; a :class:`PersAM` then keeps the
            extractor it has, and a warning says so.

    Raises:
        UserError: if a key is missing, unexpected, or of another shape. Nothing is loaded then.
    """
    state = {key.removeprefix("module."): torch.as_tensor(value) for key, value in state.items()}
    head = network.head if isinstance(network, PersAM) else network
    if not isinstance(head, PersAMHead):
        raise UserError(f"The public code's head is our PersAMHead; this network has a {type(head).__name__}.")
    expected = _head_keys(head)
    if isinstance(network, PersAM) and any(key.startswith(_EXTRACTOR) for key in state):
        expected |= _extractor_keys(network.extractor.backbone)
    else:
        state = {key: value for key, value in state.items() if not key.startswith(_EXTRACTOR)}
        if isinstance(network, PersAM):
            logger.warning("The checkpoint holds no extractor (%s*): the network keeps its own.", _EXTRACTOR)
    for key in _TOKENS.values():
        if key in state and state[key].dim() == 3:
            state[key] = state[key].squeeze(0)  # [1, tokens, R] → [tokens, R]
    stacked = {key: torch.cat(tensors) if len(tensors) > 1 else tensors[0] for key, tensors in expected.items()}
    raise_together("The checkpoint of the public code does not fit the network", misfits(stacked, state))
    for key, tensors in expected.items():
        parts = state[key].chunk(len(tensors)) if len(tensors) > 1 else [state[key]]
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.data.copy_(part)
    head.clinical_encoder.assume_standardised()
    if isinstance(network, PersAM):
        network.extractor.set_pixel_statistics((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def reference_settings(state: Mapping[str, Tensor], attention: str = "balanced", heads: int = 8) -> dict[str, Any]:
    """The arguments of the :class:`PersAMHead` that a checkpoint of the public code fits.

    Args:
        state: the checkpoint's tensors by name.
        attention: as the checkpoint was trained; its tensors do not tell.
        heads: of the encoder; its tensors do not tell.

    Raises:
        UserError: if the tensors that tell the sizes are missing or of an unexpected shape.
    """
    shapes = {key.removeprefix("module."): list(value.shape) for key, value in state.items()}
    layer = "attention.transformer_encoder{}.ffn.net.0.weight"
    group = "MLP_fc{}.fc1.0.weight"
    needed = {"attention.fc.weight": 2, "attention.cls_token": 3, group.format(1): 2, layer.format(1): 2}
    raise_together(
        "This is no checkpoint of the public code",
        [
            f"{key}: expected a tensor of {dimensions} dimensions, found {shapes.get(key, 'nothing')}"
            for key, dimensions in needed.items()
            if len(shapes.get(key, [])) != dimensions
        ],
    )
    width, feature_dim = shapes["attention.fc.weight"]
    if heads < 1 or width % heads:
        raise UserError(f"heads must divide the checkpoint's width {width}, got {heads}.")
    return {
        "num_classes": shapes["attention.cls_token"][1],
        "clinical_groups": [shapes[group.format(number)][1] for number in _numbers(group, shapes)],
        "feature_dim": feature_dim,
        "width": width,
        "projection_hidden": None,
        "attention": attention,
        "heads": heads,
        "layers": len(_numbers(layer, shapes)),
        "feedforward": shapes[layer.format(1)][0],
    }


def has_extractor(state: Mapping[str, Tensor]) -> bool:
    """Whether a checkpoint of the public code holds its extractor."""
    return any(key.removeprefix("module.").startswith(_EXTRACTOR) for key in state)


def _numbers(pattern: str, names: Container[str]) -> list[int]:
    """1, 2, … for as long as ``pattern`` with that number is among ``names``."""
    return list(takewhile(lambda number: pattern.format(number) in names, count(1)))


def _head_keys(head: PersAMHead) -> dict[str, list[Tensor]]:
    """The public code's keys for ``head``, each with our tensors that it fills, one after the other."""
    if not isinstance(head.projection, nn.Linear):
        raise UserError(
            "The public code projects patch features with one linear layer, this network has a hidden layer there: "
            "build it with projection_hidden=None (in a configuration: null)."
        )
    modules = dict(_MODULES)
    for group in range(len(head.clinical_encoder.groups)):
        for place in (0, 2):
            modules[f"clinical_encoder.networks.{group}.{place}"] = f"MLP_fc{group + 1}.fc1.{place}"
    for layer in range(len(head.encoder.layers)):
        for ours, theirs in _LAYER_MODULES.items():
            modules[f"encoder.layers.{layer}.{ours}"] = f"attention.transformer_encoder{layer + 1}.{theirs}"
    tensors = dict(head.named_parameters())
    keys: dict[str, list[Tensor]] = {theirs: [tensors[ours]] for ours, theirs in _TOKENS.items()}
    for suffix in ("weight", "bias"):
        for ours, theirs in modules.items():
            keys[f"{theirs}.{suffix}"] = [tensors[f"{ours}.{suffix}"]]
        stacked: list[Tensor] = [tensors[f"aggregator.{name}.{suffix}"] for name in ("query", "key", "value")]
        keys[f"attention.attention.to_qkv.{suffix}"] = stacked
    return keys


def _extractor_keys(backbone: nn.Module) -> dict[str, list[Tensor]]:
    """The public code's keys for the extractor, each with our tensor that it fills."""
    keys: dict[str, list[Tensor]] = {}
    for ours, tensor in backbone.state_dict().items():
        module, _, rest = ours.partition(".")
        keys[f"{_EXTRACTOR}{_EXTRACTOR_PLACES.get(module, module)}.{rest}"] = [tensor]
    return keys
