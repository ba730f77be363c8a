# SPDX-License-Identifier: Apache-2.0
"""Which extractor made a feature: its name, and the SHA-256 of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from monai.networks.nets import ResNet
from monai.networks.nets.resnet import ResNetBottleneck
from torch import Tensor, nn

from persam_monai.networks.extractors.file import FILE_HASH

# MONAI's functions resnet10 … resnet200 all make a ResNet; bottleneck or not, and blocks by layer, say which.
_RESNETS = {
    (False, (1, 1, 1, 1)): "resnet10",
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
    (True, (3, 24, 36, 3)): "resnet200",
}


def extractor_name(backbone: nn.Module) -> str:
    """What a feature file calls the backbone.

    Returns:
        The backbone's own ``extractor_name``; of MONAI's ResNets the function that makes them; of others the class.

    Example:
        >>> from persam_monai.networks import resnet50_backbone
        >>> extractor_name(resnet50_backbone())
        'monai.networks.nets.resnet50'
    """
    own = getattr(backbone, "extractor_name", None)
    if isinstance(own, str):
        return own
    if type(backbone) is ResNet:
        layers = [getattr(backbone, f"layer{number}") for number in range(1, 5)]
        form = isinstance(layers[0][0], ResNetBottleneck), tuple(len(layer) for layer in layers)
        if form in _RESNETS:
            return f"monai.networks.nets.{_RESNETS[form]}"
    return f"{type(backbone).__module__}.{type(backbone).__qualname__}"


def weights_sha256(backbone: nn.Module) -> str:
    """SHA-256 of the weights, in hexadecimal: of two backbones the same exactly if the weights are.

    Of a backbone that is a file (TorchScript, ONNX) it is the file's, of others that of the state dict.
    """
    own = getattr(backbone, "weights_sha256", None)
    return own if isinstance(own, str) else state_sha256(backbone.state_dict())


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of a backbone's state dict, in hexadecimal.

    It is over name, type, shape and bytes of each tensor, sorted by name and in row-major order, wherever and in
    whatever layout they lie. The counts ``num_batches_tracked`` are left out, for they change no feature. Where a file
    stands for the weights (:class:`~persam_monai.networks.extractors.file.FileBackbone`), it is the file's.
    """
    if set(state) == {FILE_HASH}:
        return bytes(state[FILE_HASH].tolist()).hex()
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        if not name.endswith("num_batches_tracked"):
            digest.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
            rows = tensor.detach().cpu().contiguous().flatten()
            digest.update(rows.view(torch.uint8).numpy().data)  # bytes, for NumPy does not know bfloat16
    return digest.hexdigest()


def brings_weights(backbone: nn.Module) -> bool:
    """Whether the backbone has weights already: a file has, and a timm network that is pretrained or was given some."""
    file = isinstance(getattr(backbone, "weights_sha256", None), str)
    return file or getattr(backbone, "brings_weights", False) is True
