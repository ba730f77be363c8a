# SPDX-License-Identifier: Apache-2.0
"""Patches to feature vectors, in the memory layout in which the decoder handed the pixels out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.nets import ResNet, resnet50
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from persam_monai.errors import UserError

# Of ImageNet's training images scaled to [0, 1]: what pretrained extractors expect, red, green, blue.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Of a patch's features, between alone and among others. Convolutions of another batch size add up in another order:
# 1e-6 in float32, 1e-3 in half precision. Batch statistics change features by tens of percent.
_TOLERANCE = 0.01


def resnet50_backbone() -> nn.Module:
    """MONAI's ResNet50 with torchvision's layers, strides and key names, and without its classifier; random weights."""
    network: nn.Module = resnet50(
        spatial_dims=2,
        n_input_channels=3,
        feed_forward=False,
        conv1_t_size=7,
        conv1_t_stride=2,
        shortcut_type="B",
        bias_downsample=False,
    )
    network.extractor_name = "monai.networks.nets.resnet50"  # type: ignore[assignment]
    return network


class PatchExtractor(nn.Module):
    """Runs a backbone over the real patches of a batch of bags.

    Padded patches never enter the backbone: its batch-norm would count them. Pixels are scaled to [0, 1] and
    standardised here, on whatever device the network is, so bags travel as bytes. A bag that lies in memory as the
    decoder's rows ``[B, N, H, W, 3]`` (seen as ``[B, 3, N, H, W]``) reaches the first convolution as channels-last
    without a change of layout.

    A backbone is any module that keeps to this contract, which :func:`check_extractor` tests:
    it takes ``[n, 3, s, s]``, float32, scaled to [0, 1] and standardised, for any n from 1, and gives ``[n, D]``,
    floating and finite; in eval mode each row depends on its own patch alone. It may say of itself, as attributes:

    * ``pixel_mean``, ``pixel_std``: three numbers each, red, green and blue;
    * ``input_size``: s, where it takes no other;
    * ``feature_dim``: D;
    * ``extractor_name``: what feature files call it;
    * ``weights_sha256``: of the file that its weights come from, where they are not in its state dict;
    * ``brings_weights``: true where they are not random although none were loaded.

    Args:
        backbone: a module that keeps to the contract, as MONAI's ``resnet50`` with ``feed_forward=False``.
        feature_dim: D, what the backbone gives per patch; ``None`` takes the backbone's own, and where it has none,
            whatever it gives. Then ``feature_dim`` of this module is 0 until ``check_extractor`` has found it.
        chunk: at most so many patches go through the backbone at once; ``None`` takes all. It bounds memory at
            inference; in training each chunk has batch-norm statistics of its own.
        mean: of red, green and blue, after scaling to [0, 1]; ``None`` takes the backbone's own, else ImageNet's.
        std: as ``mean``.
        checkpointing: in training, keep of each chunk only its features and compute the rest again when gradients are
            asked for. The gradients are the same, memory is that of one chunk, time about a third more. Worth it with
            ``chunk`` only.
        input_size: side in pixels to which patches of another size are resized (bilinear, with anti-aliasing) before
            they enter the backbone; ``None`` takes the backbone's own, and where it has none, patches as they are.
        frozen: the backbone stays as it is: in eval mode whatever ``train()`` says, and without gradients.

    Raises:
        ValueError: if ``chunk``, ``feature_dim`` or ``input_size`` is less than 1, or ``mean`` and ``std`` are not
            three numbers with ``std`` above 0.
    """

    def __init__(
        self,
        backbone: nn.Module,
        feature_dim: int | None = None,
        chunk: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        checkpointing: bool = False,
        input_size: int | None = None,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        mean = [float(value) for value in _own(mean, backbone, "pixel_mean", IMAGENET_MEAN)]
        std = [float(value) for value in _own(std, backbone, "pixel_std", IMAGENET_STD)]
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"mean and std must be three numbers each, std above 0; got {mean} and {std}.")
        # The weights' layout too, or each convolution converts them anew.
        self.backbone = backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.feature_dim = _at_least_one("feature_dim", _own(feature_dim, backbone, "feature_dim"))
        self.chunk = _at_least_one("chunk", chunk)
        self.input_size = _at_least_one("input_size", _own(input_size, backbone, "input_size"))
        self.checkpointing, self.frozen = checkpointing, frozen
        self.pixel_mean = nn.Buffer(torch.tensor(mean, dtype=torch.float32))
        self.pixel_std = nn.Buffer(torch.tensor(std, dtype=torch.float32))
        if self.frozen:
            self.backbone.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> PatchExtractor:
        """As of every module, but a frozen backbone stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """Features of every patch.

        Args:
            image: ``[B, 3, N, H, W]``, uint8 or floating, 0–255.
            mask: ``[B, N]`` bool, true where there is a patch; ``None`` where all are real.

        Returns:
            ``[B, D, N]`` in the backbone's floating type, zeros at padded places.
        """
        if image.dim() != 5 or image.shape[1] != 3:
            raise ValueError(f"image must be [B, 3, N, H, W], got {image.shape}.")
        bags, places = image.shape[0], image.shape[2]
        patches = image.permute(0, 2, 3, 4, 1).flatten(0, 1)  # [B·N, H, W, 3], the decoder's own order: a view
        if mask is None:
            return self._extract(patches).unflatten(0, [bags, places]).transpose(1, 2)  # [B, D, N]
        if mask.shape[0] != bags or mask.shape[1] != places:
            raise ValueError(f"mask must be [{bags}, {places}] like the image's bags and patches, got {mask.shape}.")
        real = mask.flatten().nonzero().squeeze(1)  # [n]
        if real.shape[0] < bags * places:
            patches = patches[real]  # [n, H, W, 3], indexed before the permutation so that channels stay last
        features = self._extract(patches)  # [n, D]
        everywhere = features.new_zeros((bags * places, features.shape[1]))
        everywhere = everywhere.index_copy(0, real, features)  # [B·N, D]
        return everywhere.unflatten(0, [bags, places]).transpose(1, 2)  # [B, D, N]

    def _extract(self, patches: Tensor) -> Tensor:
        """``[n, H, W, 3]`` pixels to ``[n, D]`` features, without gradients where the backbone is frozen."""
        count = patches.shape[0]
        if count == 0:  # a batch of empty bags; batch-norm refuses to see nothing
            return self.pixel_mean.new_zeros((0, self.feature_dim))
        if not torch.jit.is_scripting() and self.frozen:
            with torch.no_grad():
                return self._in_chunks(patches)
        return self._in_chunks(patches)

    def _in_chunks(self, patches: Tensor) -> Tensor:
        """``[n, H, W, 3]`` pixels to ``[n, D]`` features, chunk by chunk."""
        count = patches.shape[0]
        parts = 1 if self.chunk == 0 else (count + self.chunk - 1) // self.chunk
        step = (count + parts - 1) // parts  # nearly equal parts: a remainder of one has no batch-norm statistics
        features: list[Tensor] = []
        for start in range(0, count, step):
            part = patches[start : start + step]
            if not torch.jit.is_scripting() and self.checkpointing and torch.is_grad_enabled():
                features.append(self._checkpointed(part))
            else:
                features.append(self._features(part))
        return features[0] if len(features) == 1 else torch.cat(features)  # [n, D]

    def _features(self, patches: Tensor) -> Tensor:
        """``[n, H, W, 3]`` pixels to ``[n, D]`` features, in one go."""
        features = self.backbone(self.standardise(patches))
        if features.dim() != 2 or (self.feature_dim > 0 and features.shape[1] != self.feature_dim):
            expected = str(self.feature_dim) if self.feature_dim > 0 else "D"
            raise ValueError(f"The extractor must give [n, {expected}] (feature_dim), got {features.shape}.")
        return features

    @torch.jit.export
    def standardise(self, patches: Tensor) -> Tensor:
        """What the backbone sees.

        Args:
            patches: ``[n, H, W, 3]``, uint8 or floating, 0–255.

        Returns:
            ``[n, 3, s, s]``, standardised and of the backbone's size, in the same memory order if none is changed.
        """
        gain = 1 / (255 * self.pixel_std)  # 255: the brightest byte
        shift = -self.pixel_mean / self.pixel_std
        pixels = torch.addcmul(shift, patches.to(gain.dtype), gain).permute(0, 3, 1, 2)  # [n, 3, H, W], channels last
        size = self.input_size
        if size > 0 and (pixels.shape[2] != size or pixels.shape[3] != size):
            pixels = F.interpolate(pixels, size=[size, size], mode="bilinear", align_corners=False, antialias=True)
        return pixels

    @torch.jit.unused
    def _checkpointed(self, patches: Tensor) -> Tensor:
        """As :meth:`_features`; kept are the bytes, which are a view of the bag, and not even the scaled pixels."""
        features: Tensor = checkpoint(self._features, patches, use_reentrant=False, context_fn=self._contexts)
        return features

    @torch.jit.unused
    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Around the forward pass, and around the second one that the gradients need."""
        return nullcontext(), _untracked(self.backbone)

    @torch.jit.unused
    def set_pixel_statistics(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Replaces the mean and standard deviation of red, green and blue (pixels scaled to [0, 1])."""
        self.pixel_mean.copy_(torch.tensor(mean))
        self.pixel_std.copy_(torch.tensor(std))


def _own(given: Any, backbone: nn.Module, name: str, default: Any = None) -> Any:
    """An argument, or what the backbone says of itself where none is given."""
    return getattr(backbone, name, default) if given is None else given


def _at_least_one(name: str, value: int | None) -> int:
    """``value``, or 0 where there is none: what TorchScript needs a number for."""
    if value is not None and (not isinstance(value, int) or value < 1):
        raise ValueError(f"{name} must be at least 1 or None, got {value!r}.")
    return value or 0


@contextmanager
def _untracked(network: nn.Module) -> Iterator[None]:
    """Batch-norms count in copies of their running statistics: they have seen these patches already."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    statistics = [dict(norm.named_buffers(recurse=False)) for norm in norms]
    for norm, buffers in zip(norms, statistics, strict=True):
        for name, buffer in buffers.items():
            setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, buffers in zip(norms, statistics, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)


def extractor_name(backbone: nn.Module) -> str:
    """What a feature file calls the backbone: its own ``extractor_name``, else its class; of a ResNet its blocks.

    Example:
        >>> from persam_monai.networks import resnet50_backbone
        >>> extractor_name(resnet50_backbone())
        'monai.networks.nets.resnet50'
    """
    own = getattr(backbone, "extractor_name", None)
    if isinstance(own, str):
        return own
    if isinstance(backbone, ResNet):
        layers = [getattr(backbone, f"layer{number}") for number in range(1, 5)]
        return f"monai.networks.nets.resnet.{type(layers[0][0]).__name__}{[len(layer) for layer in layers]}"
    return f"{type(backbone).__module__}.{type(backbone).__qualname__}"


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
    pixels = extractor.standardise(patches)
    try:
        features = extractor.backbone(pixels)
    except UserError:
        raise
    except Exception as error:  # a foreign network: whatever it raises
        raise UserError(
            f"The extractor {name} fails on {count} patches, {pixels.dtype} {list(pixels.shape)} on {pixels.device}; "
            f"patch_size is {patch_size}, input_size {extractor.input_size or 'not set'}. It says: {_gist(error)} Many "
            "networks take one size alone: set --patch_extractor#input_size (patches are resized) or --patch_size. "
            "Any number of patches must pass, also one."
        ) from error
    is_tensor = isinstance(features, Tensor)
    if not is_tensor or features.dim() != 2 or len(features) != count or not features.is_floating_point():
        given = f"{features.dtype} {list(features.shape)}" if is_tensor else f"a {type(features).__name__}"
        raise UserError(
            f"The extractor {name} gives {given} for {list(pixels.shape)}; expected a floating tensor [{count}, D], "
            "one row of features for each patch. Tokens [n, T, D] and feature maps [n, D, h, w] must be pooled in the "
            "network, by the class token or the mean (of timm: --extractor#global_pool token, or avg)."
        )
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
