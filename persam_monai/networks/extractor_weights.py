# SPDX-License-Identifier: Apache-2.0
"""Pretrained weights for the extractor."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from persam_monai.errors import UserError, raise_together
from persam_monai.files import read_tensors
from persam_monai.settings import is_null

logger = logging.getLogger(__name__)

# torchvision's ResNet50 weights IMAGENET1K_V1, the last part of the name being the start of the file's SHA-256.
IMAGENET_URL = "https://download.pytorch.org/models/resnet50-0676ba61.pth"


def load_extractor_weights(backbone: nn.Module, source: str | PathLike[str] | None) -> None:
    """Loads torchvision-style ResNet50 weights into ``backbone``, dropping the classifier ``fc.*``.

    Args:
        backbone: MONAI's ``resnet50`` with ``spatial_dims=2``, ``feed_forward=False`` and ``bias_downsample=False``,
            or another module with the keys of the file.
        source: ``"imagenet"`` (fetched once, then kept in PyTorch Hub's cache), the path of a file with a state dict
            (of ImageNet, of pathology), or ``None``, which leaves ``backbone`` as it is.

    Raises:
        UserError: if the file is missing, cannot be fetched, is no state dict of tensors, or does not fit; nothing is
            loaded then.
    """
    if is_null(source):
        logger.info("The extractor starts from random weights.")
        return
    name, state = _imagenet() if source == "imagenet" else _read(Path(str(source)))
    weights = {key: value for key, value in state.items() if not key.startswith("fc.")}
    raise_together(f"{name} does not fit the extractor", _problems(backbone.state_dict(), weights))
    backbone.load_state_dict(weights, strict=False)  # all is checked but batch counts, which old files lack
    logger.info("The extractor starts from %s (%d tensors).", name, len(weights))


def _imagenet() -> tuple[str, Mapping[str, Tensor]]:
    """Name and state dict of torchvision's ImageNet weights, from the cache or the network."""
    cache = Path(torch.hub.get_dir()) / "checkpoints" / Path(IMAGENET_URL).name
    if cache.exists():
        return _read(cache)
    try:
        torch.hub.load_state_dict_from_url(
            IMAGENET_URL, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:  # no network, no such file, or a hash that differs
        raise UserError(
            f"The ImageNet weights could not be fetched from {IMAGENET_URL} ({error}). Put that file at {cache}, or "
            "give the path of a file with ResNet50 weights instead of imagenet."
        ) from error
    return _read(cache)


def _read(path: Path) -> tuple[str, Mapping[str, Tensor]]:
    """Name and state dict of a file."""
    if not path.is_file():
        raise UserError(
            f"The extractor's weights {path} are not a file. Expected a path to a torchvision-style ResNet50 state "
            'dict (.pth), "imagenet", or null for random weights.'
        )
    state = read_tensors(path, "For the extractor, expected what torch.save(model.state_dict(), path) writes.")
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        found = f"keys {list(state)[:5]}" if isinstance(state, Mapping) else type(state).__name__
        raise UserError(f"The extractor's weights {path} are no state dict: expected tensors by name, found {found}.")
    return str(path), state


def _problems(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """What does not fit, one line each."""
    problems = [f"missing: {key}" for key in expected if key not in weights and not key.endswith("num_batches_tracked")]
    problems += [f"unexpected: {key}" for key in weights if key not in expected]
    problems += [
        f"{key}: expected shape {list(expected[key].shape)}, found {list(value.shape)}"
        for key, value in weights.items()
        if key in expected and value.shape != expected[key].shape
    ]
    return problems
