# SPDX-License-Identifier: Apache-2.0
"""Features that other programs made: attributes of their HDF5 files, and files of torch.

TRIDENT (https://github.com/mahmoodlab/TRIDENT) keeps the patches' size and magnification with ``coords``, and with
``features`` their folder and, in later versions, the encoder's name. CLAM (https://github.com/mahmoodlab/CLAM) keeps
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from persam_monai.data.feature_made import Made
from persam_monai.errors import UserError
from persam_monai.files import read_tensors

MPP_AT_1X = 10.0  # µm per pixel: TRIDENT's rule, by which 20x is 0.5 and 40x is 0.25
FOLDER = "features_"  # TRIDENT's folder of features, followed by the encoder's name
# What else says how patches were made. Names and folders, which attributes hold as well, are left out.
KEPT = ("overlap", "target_magnification", "level0_magnification", "patch_level", "custom_downsample")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Attributes(NamedTuple):
    """What the attributes of a file say."""

    form: str
    made: Made
    extent: tuple[float, float] | None


def attributes_of_others(features: Mapping[str, Any], coords: Mapping[str, Any], folder: Path) -> Attributes:
    """Understand the attributes of another program's file."""
    trident = "target_magnification" in coords or "savetodir" in features or "encoder" in features
    clam = not features and (not coords or "patch_level" in coords)
    encoder = _value(features, "encoder")
    if encoder is None and trident and folder.name.startswith(FOLDER):
        encoder = folder.name.removeprefix(FOLDER)
    magnification, size = _number(coords, "target_magnification"), _number(coords, "patch_size")
    extent = _number(coords, "patch_size_level0")
    made = Made(
        extractor=None if encoder is None else str(encoder),
        mpp=MPP_AT_1X / magnification if magnification else None,
        patch_size=None if size is None else int(size),
        settings={name: value for name in KEPT if (value := _number(coords, name)) is not None},
    )
    form = "trident" if trident else "clam" if clam else "h5"
    return Attributes(form, made, None if extent is None else (extent, extent))


def _value(attributes: Mapping[str, Any], name: str) -> Any:
    value = attributes.get(name)
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return None if isinstance(value, str) and value in ("", "None") else value  # TRIDENT writes None as text


def _number(attributes: Mapping[str, Any], name: str) -> float | None:
    value = _value(attributes, name)
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the attribute {name} is {value!r}; expected a number") from error


def load_tensor(path: Path) -> torch.Tensor:
    """The features ``[n, D]`` of a ``.pt`` file; their values stay in the file until they are used."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # of torch before 1.6, or damaged, which is found out by reading
        content = read_tensors(
            path,
            "Make it anew, or copy it again. If it holds more than a tensor, such as a numpy array: in a Python that "
            "trusts it, write torch.save(torch.as_tensor(features), path).",
        )
    if isinstance(content, torch.Tensor) and content.dtype in FLOATS and content.layout == torch.strided:
        tensor = content[0] if content.ndim == 3 and len(content) == 1 else content
        if tensor.ndim == 2 and tensor.numel():
            return tensor.detach()
    description = type(content).__name__
    if isinstance(content, torch.Tensor):
        description = f"{content.layout} tensor of {content.dtype} {list(content.shape)}"
    raise UserError(
        f"{path} holds a {description}; expected one tensor [n, D] of floating-point numbers. Save the features alone: "
        "torch.save(features, path)."
    )


def read_tensor(path: Path, chosen: np.ndarray | None = None) -> np.ndarray:
    """All or chosen rows ``[n, D]`` of a ``.pt`` file: float16 as they are, else float32; the caller's own."""
    tensor = load_tensor(path)
    rows = tensor.clone() if chosen is None else tensor[torch.from_numpy(chosen)]
    return rows.to(torch.float16 if tensor.dtype == torch.float16 else torch.float32).contiguous().numpy()
