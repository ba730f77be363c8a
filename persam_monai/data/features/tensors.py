# SPDX-License-Identifier: Apache-2.0
"""Features in files of torch, without positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from persam_monai.data.features.info import FeatureInfo, Made
from persam_monai.data.features.problems import ANEW, HDF5, cannot_open
from persam_monai.errors import UserError
from persam_monai.files import read_tensors

SHOWN = 5  # keys of a dictionary in a message
KINDS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def tensor_info(path: Path) -> FeatureInfo:
    """The head of a ``.pt`` file.

    Raises:
        UserError: says what is wrong with it.
    """
    try:
        tensor = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # the form of torch before 1.6 cannot be mapped, and is read
        tensor = _read(path)
    count, dim = _checked(path, tensor).shape
    return FeatureInfo(path, "pt", count, dim, str(tensor.dtype).removeprefix("torch."), Made())


def read_tensor(path: Path) -> np.ndarray:
    """The features ``[n, D]`` of a ``.pt`` file: float16 as they are, else float32."""
    tensor = _checked(path, _read(path)).detach()
    return tensor.to(torch.float16 if tensor.dtype == torch.float16 else torch.float32).contiguous().numpy()


def _read(path: Path) -> Any:
    try:
        if path.stat().st_size == 0 or path.is_dir():
            raise cannot_open(path, "")
        with path.open("rb") as file:
            if file.read(len(HDF5)) == HDF5:
                raise cannot_open(path, "")
    except OSError as error:
        raise cannot_open(path, error) from error
    return read_tensors(
        path,
        "It is unfinished or damaged, or holds more than a tensor, such as a numpy array: in a Python that trusts it, "
        "write torch.save(torch.as_tensor(features), path).",
    )


def _checked(path: Path, tensor: Any) -> torch.Tensor:
    """The tensor ``[n, D]`` that a file should hold."""
    expected = "expected one tensor [n, D] of floating-point numbers"
    if isinstance(tensor, dict):
        keys = ", ".join(map(str, list(tensor)[:SHOWN])) + (" …" if len(tensor) > SHOWN else "") or "none"
        raise UserError(
            f"{path} holds a dictionary with the keys {keys}; {expected}. Save the one that is the features: "
            "torch.save(content[key], path)."
        )
    if not isinstance(tensor, torch.Tensor):
        raise UserError(f"{path} holds a {type(tensor).__name__}; {expected}. {ANEW}")
    if tensor.dtype not in KINDS or tensor.layout != torch.strided:
        kind = str(tensor.dtype).removeprefix("torch.")
        layout = "" if tensor.layout == torch.strided else f" ({tensor.layout})"
        raise UserError(f"{path} holds a tensor of {kind}{layout}; {expected}. {ANEW}")
    shape = list(tensor.shape)
    if len(shape) == 3 and shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim != 2:
        raise UserError(f"{path} holds a tensor of the shape {shape}; {expected}. {ANEW}")
    if 0 in tensor.shape:
        raise UserError(
            f"{path} holds a tensor of the shape {shape}: there is no patch. Look whether the slide shows tissue; make "
            "the file anew, or take the slide's row out of the table."
        )
    return tensor
