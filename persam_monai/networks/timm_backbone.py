# SPDX-License-Identifier: Apache-2.0
"""Backbones of the timm library, among them most of the pathology foundation models."""

from __future__ import annotations

from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from persam_monai.errors import UserError, did_you_mean
from persam_monai.networks.extractor_weights import load_extractor_weights
from persam_monai.settings import NO, YES, is_null, is_yes, or_none


class TimmBackbone(nn.Module):
    """A network of timm without its classifier; pixel statistics and input size are those of timm's data config.

    Args:
        name: of the network, as ``timm.create_model`` takes it: ``"vit_small_patch16_224"``, ``"hf-hub:…"``.
        weights: path of a file with its state dict (``.safetensors`` or what ``torch.save`` wrote), or ``None``.
        pretrained: fetch the weights that timm names, where ``weights`` is ``None``.
        options: more arguments of ``timm.create_model``, such as ``init_values=1e-5`` or ``dynamic_img_size=True``.

    Raises:
        UserError: if timm cannot be imported, has no such network, cannot fetch its weights, or ``weights`` does not
            fit.
    """

    def __init__(
        self,
        name: str | None,
        weights: str | PathLike[str] | None = None,
        pretrained: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        if is_null(name):
            raise UserError(
                "No network of timm is named. Name it with --extractor#name, such as vit_small_patch16_224; "
                "timm.list_models() lists them."
            )
        timm, own = _timm(), not is_null(weights)
        try:
            self.model: nn.Module = timm.create_model(
                str(name), pretrained=is_yes(pretrained) and not own, **{"num_classes": 0, **_as_meant(options)}
            )
        except Exception as error:  # of timm, of the network, of the hub's client: each has its own
            raise UserError(_reason(timm, str(name), error, is_yes(pretrained))) from error
        config = timm.data.resolve_model_data_config(self.model)
        self.extractor_name = f"timm:{name}"
        self.pixel_mean, self.pixel_std = tuple(config["mean"]), tuple(config["std"])
        self.input_size = int(config["input_size"][-1])
        self.feature_dim = int(getattr(self.model, "head_hidden_size", None) or self.model.num_features)
        classifier = getattr(self.model, "pretrained_cfg", {}).get("classifier") or ()
        self.weights_prefix = "model."  # load_extractor_weights: what the names of a file lack
        self.weights_dropped = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        self.brings_weights = own or is_yes(pretrained)
        if own:
            load_extractor_weights(self, or_none(weights))

    def forward(self, pixels: Tensor) -> Tensor:
        """``[n, 3, s, s]`` to ``[n, D]``."""
        features: Tensor = self.model(pixels)
        return features


def _as_meant(options: dict[str, Any]) -> dict[str, Any]:
    """The command line hands over true and false as text, and text is true."""
    words = dict.fromkeys(YES[:2], True) | dict.fromkeys(NO[:2], False)
    return {key: words.get(value.lower(), value) if isinstance(value, str) else value for key, value in options.items()}


def _timm() -> Any:
    try:
        import timm
        import timm.data
    except (ImportError, RuntimeError, AttributeError) as error:  # torchvision built for another torch raises each
        raise UserError(
            f"Networks of timm need timm and torchvision, which cannot be imported: {error}. Install them by "
            "pip install '.[timm]' in the repository, or pip install timm torchvision. torchvision must be built for "
            f"the PyTorch that is here ({torch.__version__}); for a CPU build that is pip install torchvision "
            "--index-url https://download.pytorch.org/whl/cpu. Or export the network as TorchScript or ONNX elsewhere."
        ) from error
    return timm


def _reason(timm: Any, name: str, error: Exception, pretrained: bool) -> str:
    """Why a network could not be made."""
    text = next(iter(str(error).splitlines()), "") or type(error).__name__
    if "Unknown model" in text:
        return f"timm {timm.__version__} has no network {name!r}.{did_you_mean(name, timm.list_models())}"
    if not pretrained:
        return f"timm could not make {name!r} with the arguments of the block extractor: {text}"
    return (
        f"timm could not make {name!r}: {text} If its weights could not be fetched (no network, or a licence to accept "
        "first), fetch them elsewhere and give the file with --extractor#weights."
    )
