# SPDX-License-Identifier: Apache-2.0
"""Whether a backbone is an extractor: three patches tell."""

from __future__ import annotations

import torch
from torch import Tensor

from persam_monai.errors import UserError
from persam_monai.networks.extractor import PatchExtractor
from persam_monai.networks.extractors.identity import extractor_name

# Of a patch's features, between alone and among others. Convolutions of another batch size add up in another order:
# 1e-6 in float32, 1e-3 in half precision. Batch statistics change features by tens of percent.
_TOLERANCE = 0.01


_ONE_SIZE = "Many networks take one size alone: set --patch_extractor#input_size (patches are resized) or --patch_size."
_MANY_ALONE = (
    "It took three patches at once and must take any number: no statistics over the batch, no number of patches that "
    "was fixed by the export."
)


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
    found = together.shape[1]
    if extractor.feature_dim not in (0, found):
        raise UserError(
            f"The extractor {name} gives {found} features per patch; feature_dim says {extractor.feature_dim}. Set "
            f"feature_dim of patch_extractor (and of the head) to {found}."
        )
    extractor.feature_dim = found
    return found


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
        found = extractor.backbone(pixels)
    except UserError:
        raise
    except Exception as error:  # a foreign network: whatever it raises
        raise UserError(
            f"The extractor {name} fails on {count} patches, {pixels.dtype} {list(pixels.shape)} on {pixels.device}; "
            f"{sizes}. It says: {_gist(error)} {_ONE_SIZE if count > 1 else _MANY_ALONE}"
        ) from error
    expected = f"expected a tensor [{count}, D], one row of features for each patch"
    if not isinstance(found, Tensor):
        raise UserError(f"The extractor {name} gives a {type(found).__name__}; {expected}. Wrap it in a module.")
    if found.dim() != 2 or len(found) != count or found.shape[1] == 0:
        raise UserError(
            f"The extractor {name} gives {list(found.shape)} for {list(pixels.shape)}; {expected}. "
            f"{_cure(list(found.shape), count)}"
        )
    if not found.is_floating_point():
        raise UserError(f"The extractor {name} gives {found.dtype}; {expected}, floating.")
    if not found.isfinite().all():
        raise UserError(
            f"The extractor {name} gives NaN or infinite features. Its weights are damaged, or its pixels were to be "
            f"scaled otherwise: mean is {extractor.pixel_mean.tolist()}, std {extractor.pixel_std.tolist()}."
        )
    return found.float()


def _gist(error: Exception) -> str:
    """The line of an error that says what is wrong: TorchScript puts its traceback first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1 if "TorchScript" in lines[0] else 0]


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
