# SPDX-License-Identifier: Apache-2.0
"""What the attributes of other programs' files say.

TRIDENT (https://github.com/mahmoodlab/TRIDENT) keeps the patches' size and magnification with ``coords``, and with
``features`` where it put them and, in later versions, the encoder's name. CLAM (https://github.com/mahmoodlab/CLAM)
keeps nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from persam_monai.data.features.info import Made

MPP_AT_1X = 10.0  # µm per pixel: TRIDENT's rule, by which 20x is 0.5 and 40x is 0.25
FOLDER = "features_"  # TRIDENT's folder of features, followed by the encoder's name
# What else says how patches were made. Names and folders, which attributes hold as well, stay where they are.
KEPT = ("overlap", "target_magnification", "level0_magnification", "patch_level", "custom_downsample")


class About(NamedTuple):
    """What is known of features that another program made."""

    form: str
    made: Made
    extent: tuple[float, float] | None


def made_elsewhere(features: Mapping[str, Any], coords: Mapping[str, Any], folder: Path) -> About:
    """Understand the attributes.

    Args:
        features: of the dataset ``features``.
        coords: of the dataset ``coords``.
        folder: where the file lies; its name may be that of the encoder.

    Raises:
        ValueError: names an attribute that cannot be meant.
    """
    form = _form(features, coords)
    encoder = _text(features, "encoder")
    if encoder is None and form == "trident" and folder.name.startswith(FOLDER):
        encoder = folder.name.removeprefix(FOLDER)
    magnification, size = _number(coords, "target_magnification"), _number(coords, "patch_size")
    if size is not None and size != int(size):
        raise ValueError(f"the attribute patch_size is {size:g}; expected a whole number")
    extent = _number(coords, "patch_size_level0")
    made = Made(
        extractor=encoder,
        mpp=None if magnification is None else MPP_AT_1X / magnification,
        patch_size=None if size is None else int(size),
        settings={name: value for name in KEPT if (value := _number(coords, name, least=0)) is not None},
    )
    return About(form, made, None if extent is None else (extent, extent))


def _form(features: Mapping[str, Any], coords: Mapping[str, Any]) -> str:
    if "target_magnification" in coords or "savetodir" in features or "encoder" in features:
        return "trident"
    return "clam" if not features and (not coords or "patch_level" in coords) else "h5"


def _value(attributes: Mapping[str, Any], name: str) -> Any:
    value = attributes.get(name)
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return None if isinstance(value, str) and value in ("", "None") else value  # TRIDENT writes None as text


def _text(attributes: Mapping[str, Any], name: str) -> str | None:
    value = _value(attributes, name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"the attribute {name} is {value!r}; expected text")
    return None if value is None else str(value)


def _number(attributes: Mapping[str, Any], name: str, least: float = math.ulp(0.0)) -> float | None:
    value = _value(attributes, name)
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not least <= number < math.inf:
        raise ValueError(f"the attribute {name} is {value!r}; expected a number above {least:.0f}")
    return number
