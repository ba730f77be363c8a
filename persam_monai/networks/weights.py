# SPDX-License-Identifier: Apache-2.0
"""Weights of the extractor: which they are, loaded from pretrained files and trained models, and saved again."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from persam_monai.errors import UserError, raise_together
from persam_monai.files import read_tensors, replacing
from persam_monai.networks.extractor import PatchExtractor

logger = logging.getLogger(__name__)

# torchvision's ResNet50 weights IMAGENET1K_V1, the last part of the name being the start of the file's SHA-256.
IMAGENET_URL = "https://download.pytorch.org/models/resnet50-0676ba61.pth"

_CURE = "For the extractor, expected what torch.save(model.state_dict(), path) writes."

# Where model.pt keeps the extractor.
_PREFIX = "extractor.backbone."
_STATISTICS = ("extractor.pixel_mean", "extractor.pixel_std")

FILE_HASH = "file_sha256"  # in the state dict of a backbone that is a file, in place of weights


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


def load_extractor_weights(extractor: nn.Module, source: str | PathLike[str] | None) -> None:
    """Loads weights into an extractor, dropping the classifier (``fc.*``, or what timm says it is).

    Args:
        extractor: a backbone with the keys of the file, as MONAI's ``resnet50`` with ``spatial_dims=2``,
            ``feed_forward=False`` and ``bias_downsample=False`` has those of torchvision's ResNet50; or a
            :class:`~persam_monai.networks.PatchExtractor` around one, which then also takes over the pixel statistics
            that one of our models was trained with.
        source: ``"imagenet"`` (fetched once, then kept in PyTorch Hub's cache); the path of a file with a state dict
            (of ImageNet, of pathology, of :func:`save_extractor_weights`, ``.safetensors`` too), or of a trained
            ``model.pt``, whose extractor alone is taken; or ``None``, which leaves the weights as they are.

    Raises:
        UserError: if the file is missing, cannot be fetched, is no state dict of tensors, or does not fit, or the
            extractor is a file that brings its weights; nothing is loaded then.
    """
    backbone = extractor.backbone if isinstance(extractor, PatchExtractor) else extractor
    if source is None:
        own = brings_weights(backbone)
        logger.info("The extractor %s.", "brings its own weights" if own else "starts from random weights")
        return
    _refuse_file(backbone, "Leave extractor_weights out, or take another extractor.")
    name, state = _imagenet() if source == "imagenet" else _read(Path(str(source)))
    weights = _weights_of_backbone(backbone, state)
    if not weights:
        raise UserError(
            f"{name} holds no extractor. A model that was trained on extracted features has none: name the file that "
            "its features were extracted with."
        )
    expected = backbone.state_dict()
    needed = {
        key: value for key, value in expected.items() if key in weights or not key.endswith("num_batches_tracked")
    }
    raise_together(f"{name} does not fit the extractor", misfits(needed, weights))
    backbone.load_state_dict(weights, strict=False)  # all is checked but batch counts, which old files lack
    logger.info("The extractor starts from %s (%d tensors).", name, len(weights))
    if isinstance(extractor, PatchExtractor) and all(key in state for key in _STATISTICS):
        _take_statistics(extractor, name, *(state[key].tolist() for key in _STATISTICS))


def save_extractor_weights(extractor: nn.Module, path: str | PathLike[str]) -> None:
    """Writes a backbone's state dict, whole or not at all, for :func:`load_extractor_weights`.

    Args:
        extractor: a backbone, or a :class:`~persam_monai.networks.PatchExtractor` around one.
        path: the file's place; its folder is made.

    Raises:
        UserError: if the file cannot be written, or the extractor is itself a file.
    """
    backbone = extractor.backbone if isinstance(extractor, PatchExtractor) else extractor
    _refuse_file(backbone, "Keep that file.")
    state = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in backbone.state_dict().items()
    }
    with replacing(path) as partial:
        torch.save(state, partial)


def misfits(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Why tensors do not fit, one line for each that is missing, unexpected or of another shape."""
    problems = [f"missing: {name}" for name in expected if name not in given]
    problems += [f"unexpected: {name}" for name in given if name not in expected]
    problems += [
        f"{name}: expected shape {list(tensor.shape)}, found {list(given[name].shape)}"
        for name, tensor in expected.items()
        if name in given and given[name].shape != tensor.shape
    ]
    return problems


def _refuse_file(backbone: nn.Module, cure: str) -> None:
    """Raise where the backbone is a file, whose weights are neither loaded nor saved."""
    if isinstance(getattr(backbone, "weights_sha256", None), str):
        name = getattr(backbone, "extractor_name", "")
        raise UserError(f"The extractor {name} is a file that brings its own weights. {cure}")


def _weights_of_backbone(backbone: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's part of a file's state dict, by the backbone's own names."""
    if any(key.startswith(_PREFIX) for key in state):
        return {key.removeprefix(_PREFIX): value for key, value in state.items() if key.startswith(_PREFIX)}
    expected, prefix = backbone.state_dict(), getattr(backbone, "weights_prefix", "")
    if any(key in state for key in expected):
        prefix = ""  # the names of save_extractor_weights
    classifier = tuple(f"{prefix}{part}." for part in getattr(backbone, "weights_dropped", ("fc",)))
    named = {f"{prefix}{key}": value for key, value in state.items()}
    weights = {key: value for key, value in named.items() if key in expected or not key.startswith(classifier)}
    is_head_alone = all(key.startswith("head.") for key in state)  # of a model that was trained on features
    return {} if is_head_alone else weights


def _take_statistics(extractor: PatchExtractor, name: str, mean: list[float], std: list[float]) -> None:
    """Standardise pixels as the trained model did, and report a change."""
    own = extractor.pixel_mean.tolist(), extractor.pixel_std.tolist()
    extractor.set_pixel_statistics(mean, std)
    if not torch.allclose(torch.tensor(own), torch.tensor((mean, std))):
        logger.warning(
            "%s was trained with pixels of mean %s and std %s, which replace %s and %s.", name, mean, std, *own
        )


def _imagenet() -> tuple[str, Mapping[str, Tensor]]:
    """Name and state dict of torchvision's ImageNet weights, from the cache or the network."""
    cache = Path(torch.hub.get_dir()) / "checkpoints" / Path(IMAGENET_URL).name
    try:
        if not cache.exists():
            torch.hub.load_state_dict_from_url(
                IMAGENET_URL, map_location="cpu", progress=False, check_hash=True, weights_only=True
            )
    except (OSError, RuntimeError) as error:  # no network, no home to write to, or a hash that differs
        raise UserError(
            f"The ImageNet weights could not be fetched from {IMAGENET_URL} ({error}). Put that file at {cache}, or "
            "give the path of a file with ResNet50 weights instead of imagenet."
        ) from error
    return _read(cache)


def _read(path: Path) -> tuple[str, Mapping[str, Tensor]]:
    """Name and state dict of a file."""
    if not path.is_file():
        raise UserError(
            f"The extractor's weights {path} are not a file. Expected a path to a state dict that fits the extractor "
            '(.pth, .safetensors) or to a trained model.pt, "imagenet", or null for none.'
        )
    state = _read_safetensors(path) if path.suffix == ".safetensors" else read_tensors(path, _CURE)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        content = f"keys {list(state)[:5]}" if isinstance(state, Mapping) else type(state).__name__
        raise UserError(f"The extractor's weights {path} are no state dict: expected tensors by name, found {content}.")
    return str(path), state


def _read_safetensors(path: Path) -> Mapping[str, Tensor]:
    """State dict of a file in the format of Hugging Face's hub."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise UserError(
            f"{path} needs the library safetensors, which is not installed: pip install safetensors."
        ) from error
    try:
        state: Mapping[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read as safetensors: {error}. Copy it anew.") from error
    return state
