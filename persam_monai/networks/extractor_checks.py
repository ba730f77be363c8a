# SPDX-License-Identifier: Apache-2.0
"""Which extractor made a feature (its name, and the SHA-256 of its weights), and whether a backbone is an extractor."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from monai.networks.nets import ResNet
from monai.networks.nets.resnet import ResNetBottleneck
from torch import Tensor, nn

from persam_monai.errors import UserError
from persam_monai.networks.backbones import FILE_HASH
from persam_monai.networks.extractor import PatchExtractor

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
# Of a patch's features, between alone and among others. Convolutions of another batch size add up in another order:
# 1e-6 in float32, 1e-3 in half precision. Batch statistics change features by tens of percent.
_TOLERANCE = 0.01
_ONE_SIZE = "Many networks take one size alone: set --patch_extractor#input_size (patches are resized) or --patch_size."
_MANY_ALONE = (
    "It took three patches at once and must take any number: no statistics over the batch, no number of patches that "
    "was fixed by the export."
)


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
    stands for the weights (:class:`~persam_monai.networks.backbones.FileBackbone`), it is the file's.
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


def check_extractor(extractor: PatchExtractor, patch_size: int, device: torch.device | str = "cpu") -> int:
    """Runs three patches through the extractor, one of them also alone, and makes sure that it keeps to the contract.

    Args:
        extractor: it is moved to ``device``; its ``feature_dim`` is set where it was not given. Its mode stays.
        patch_size: side of a patch in pixels, before any resizing.
        device: where features will be extracted.

    Returns:
        D, the number of features per patch.

    Raises:
        UserError: says how the backbone breaks the contract, and what to do.
    """
    extractor.to(torch.device(device))
    modes = {module: module.training for module in extractor.modules()}
    extractor.eval()
    try:
        with torch.no_grad():
            patches = _patches(patch_size).to(device)
            together = _features(extractor, patches, patch_size)
            alone = _features(extractor, patches[:1], patch_size)
    finally:
        for module, mode in modes.items():
            module.training = mode
    name = extractor_name(extractor.backbone)
    difference = (together[0] - alone[0]).norm()
    if difference > _TOLERANCE * alone.norm():
        raise UserError(
            f"The extractor {name} mixes patches: the features of one patch differ by {difference / alone.norm():.0%} "
            "between alone and beside two others, in eval mode. A row must depend on its own patch: use running "
            "statistics in its batch-norms, and nothing that is computed over the batch."
        )
    size = together.shape[1]
    if extractor.feature_dim not in (0, size):
        raise UserError(
            f"The extractor {name} gives {size} features per patch; feature_dim says {extractor.feature_dim}. Set "
            f"feature_dim of patch_extractor (and of the head) to {size}."
        )
    extractor.feature_dim = size
    return size


def _patches(size: int) -> Tensor:
    """Bytes ``[3, size, size, 3]`` that no extractor takes for the same: noise, nearly white, rather bright."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (3, size, size, 3), generator=generator, dtype=torch.uint8)
    return torch.stack([noise[0], 255 - noise[1] // 16, 160 + noise[2] // 4])


def _features(extractor: PatchExtractor, patches: Tensor, patch_size: int) -> Tensor:
    """What the backbone gives, as float32, if that is one finite row for each patch."""
    name, count = extractor_name(extractor.backbone), len(patches)
    sizes = f"patch_size is {patch_size}, input_size {extractor.input_size or 'not set'}"
    pixels = extractor.standardise(patches)
    try:
        features = extractor.backbone(pixels)
    except UserError:
        raise
    except Exception as error:  # a foreign network: whatever it raises
        raise UserError(
            f"The extractor {name} fails on {count} patches, {pixels.dtype} {list(pixels.shape)} on {pixels.device}; "
            f"{sizes}. It says: {_gist(error)} {_ONE_SIZE if count > 1 else _MANY_ALONE}"
        ) from error
    expected = f"expected a tensor [{count}, D], one row of features for each patch"
    if not isinstance(features, Tensor):
        raise UserError(f"The extractor {name} gives a {type(features).__name__}; {expected}. Wrap it in a module.")
    if features.dim() != 2 or len(features) != count or features.shape[1] == 0:
        raise UserError(
            f"The extractor {name} gives {list(features.shape)} for {list(pixels.shape)}; {expected}. "
            f"{_cure(list(features.shape), count)}"
        )
    if not features.is_floating_point():
        raise UserError(f"The extractor {name} gives {features.dtype}; {expected}, floating.")
    if not features.isfinite().all():
        raise UserError(
            f"The extractor {name} gives NaN or infinite features. Its weights are damaged, or its pixels were to be "
            f"scaled otherwise: mean is {extractor.pixel_mean.tolist()}, std {extractor.pixel_std.tolist()}."
        )
    return features.float()


def _gist(error: Exception) -> str:
    """The lines of an error that say what is wrong: TorchScript puts its traceback first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if "TorchScript" in lines[0] else " ".join(lines[:4])


def _cure(shape: list[int], count: int) -> str:
    """What to do about a shape, where the shape tells."""
    if len(shape) == 3 and shape[0] == count:
        return (
            "These look like tokens: pool them in the network, by the class token or the mean (of timm: "
            "--extractor#global_pool token, or avg)."
        )
    if len(shape) == 4 and shape[0] == count:
        return "This looks like a feature map: pool it in the network, by the mean over rows and columns."
    return "Wrap the network in a module that gives that."
