# SPDX-License-Identifier: Apache-2.0
"""Backbones whose network and weights are one file, which is used as it is."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from persam_monai.errors import UserError
from persam_monai.files import sha256
from persam_monai.settings import is_null, or_none

FILE_HASH = "file_sha256"  # the one name in the state dict


class FileBackbone(nn.Module):
    """A backbone that is a file: never trained, and never copied into a model of ours.

    The state dict holds the file's SHA-256 in place of weights, so that ``model.pt`` passes nobody's weights on, and
    another file than the one of the training is refused when ``model.pt`` is loaded.

    Args:
        path: the file.
        name: what feature files call the extractor; ``None`` takes the file's name without its suffix.

    Raises:
        UserError: if there is no such file.
    """

    kind: str  # the first part of the name, such as "onnx"
    example: str  # a file's name, for messages

    def __init__(self, path: str | PathLike[str] | None, name: str | None = None) -> None:
        super().__init__()
        if is_null(path):
            raise UserError(
                f"The extractor is to come from a file of the kind {self.kind}, and none is named. Name it with "
                f"--extractor#path {self.example}."
            )
        self.path = Path(str(path))
        if not self.path.is_file():
            raise UserError(
                f"The extractor's file {self.path} is not there. Name another {self.kind} file with --extractor#path."
            )
        self.extractor_name = f"{self.kind}:{or_none(name) or self.path.stem}"
        self.weights_sha256 = self._sha256()
        digest = torch.tensor(list(bytes.fromhex(self.weights_sha256)), dtype=torch.uint8)
        self.register_buffer(FILE_HASH, digest)

    def _sha256(self) -> str:
        return sha256(self.path)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        """Refuses what was made with another file."""
        found = state_dict.get(prefix + FILE_HASH)
        if isinstance(found, Tensor) and bytes(found.flatten().tolist()).hex() != self.weights_sha256:
            raise UserError(
                f"The model was trained with another extractor file than {self.path}: its SHA-256 is "
                f"{self.weights_sha256}, expected {bytes(found.flatten().tolist()).hex()}. Name the file of the "
                "training with --extractor#path."
            )
        super()._load_from_state_dict(state_dict, prefix, *args)
