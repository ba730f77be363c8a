# SPDX-License-Identifier: Apache-2.0
"""Backbones saved by ``torch.jit.save``."""

from __future__ import annotations

from os import PathLike

import torch
from torch import Tensor, nn

from persam_monai.errors import UserError
from persam_monai.networks.extractors.file import FileBackbone


class TorchScriptBackbone(FileBackbone):
    """A TorchScript file as a backbone, in eval mode and without gradients.

    A TorchScript file is a program: use files only of whom you trust.

    Args:
        path: what ``torch.jit.save`` wrote, of a module that keeps to the contract of
            :class:`~persam_monai.networks.PatchExtractor`.
        name: what feature files call it; ``None`` takes the file's name without its suffix.

    Raises:
        UserError: if there is no such file, or it is no TorchScript.
    """

    kind = "torchscript"
    example = "model.ts"

    def __init__(self, path: str | PathLike[str] | None, name: str | None = None) -> None:
        super().__init__(path, name)
        self._loaded = [self._load(torch.device("cpu"))]  # a list: its weights are no part of the state dict
        self._device = torch.device("cpu")

    def forward(self, pixels: Tensor) -> Tensor:
        """``[n, 3, s, s]`` to whatever the file gives."""
        if pixels.device != self._device:  # anew: what was folded into constants does not move with a module
            self._loaded, self._device = [self._load(pixels.device)], pixels.device
        with torch.no_grad():
            # A traced network may see a convolution's output as rows, which channels-last memory does not allow.
            features: Tensor = self._loaded[0](pixels.contiguous())
        return features

    def _load(self, device: torch.device) -> nn.Module:
        try:
            module: nn.Module = torch.jit.load(str(self.path), map_location=device)
        except (RuntimeError, ValueError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(
                f"{self.path} cannot be read as TorchScript: {reason} Expected what torch.jit.save(module, path) "
                "writes. A state dict goes to --extractor_weights instead; an .onnx file to extractors/onnx.json."
            ) from error
        return module.eval()
