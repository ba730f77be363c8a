# SPDX-License-Identifier: Apache-2.0
"""What features were made with, and the comparison that training, extraction and inference share."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

# Without these settings of our own an extractor is another: mean, standard deviation and size of its input's pixels.
PIXELS = ("pixel_mean", "pixel_std", "input_size")
EXTRACTOR = ("extractor", "weights", *PIXELS)
TOLERANCE = 0.01  # relative, of mpp: 0.33 stands for a third


@dataclass(frozen=True)
class Made:
    """What features were made with. ``None`` stands for what a file does not say.

    Args:
        extractor: its name, such as ``monai.networks.nets.resnet50`` or ``uni_v1``.
        weights: SHA-256 of its weights, in hexadecimal.
        mpp: µm per pixel that was asked for.
        patch_size: side of a patch in pixels of that resolution.
        settings: what else was set, as JSON knows it (a tuple becomes a list).
        version: of the program.
    """

    extractor: str | None = None
    weights: str | None = None
    mpp: float | None = None
    patch_size: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    version: str | None = None

    def __post_init__(self) -> None:
        # As a file gives them back, so that what was read equals what was written.
        object.__setattr__(self, "settings", json.loads(json.dumps(self.settings)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Made:
        """The opposite of :meth:`to_dict`; unknown names are passed over."""
        known = {item.name: values[item.name] for item in fields(cls) if values.get(item.name) is not None}
        return cls(**known)

    def facts(self) -> dict[str, Any]:
        """All that is known and can be compared, by name, the settings beside the rest."""
        names = ("extractor", "weights", "mpp", "patch_size")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None} | self.settings

    def of_extractor(self) -> dict[str, Any]:
        """What identifies the extractor and its patches, for the description of a model; JSON-able."""
        settings = {name: self.settings[name] for name in PIXELS if name in self.settings}
        return {
            "extractor": self.extractor,
            "weights": self.weights,
            "mpp": self.mpp,
            "patch_size": self.patch_size,
            "settings": settings,
        }


@dataclass(frozen=True)
class FeatureInfo:
    """What is known of a file of features before the features are read.

    Attributes:
        path: the file.
        form: ``persam_monai``, ``trident``, ``clam``, ``h5`` (datasets ``features`` and ``coords`` of another program)
            or ``pt``.
        count: number of patches.
        dim: number of features of a patch.
        dtype: of the features in the file: ``float16``, ``float32``, ``float64`` or ``bfloat16``.
        made: what they were made with.
        extent: width and height of a patch in level-0 pixels, if the file says so.
        fingerprint: of the slide's file that they were made from, if the file says so (``run extracting`` does).
    """

    path: Path
    form: str
    count: int
    dim: int
    dtype: str
    made: Made
    extent: tuple[float, float] | None = None
    fingerprint: str | None = None


def differences(
    actual: Mapping[str, Any], expected: Mapping[str, Any], names: Iterable[str] | None = None
) -> dict[str, tuple[Any, Any]]:
    """In what two ways of making features differ.

    Args:
        actual: see :meth:`Made.facts`.
        expected: the same of the other.
        names: what is compared, as far as both sides know it; mpp within 1 %. ``None``: all that either side knows,
            exactly.
    """
    if names is None:
        compared, tolerance = list({**expected, **actual}), 0.0
    else:
        compared, tolerance = [name for name in names if name in actual and name in expected], TOLERANCE
    pairs = {name: (actual.get(name), expected.get(name)) for name in compared}
    return {name: pair for name, pair in pairs.items() if not _equal(name, *pair, tolerance)}


def _equal(name: str, actual: Any, expected: Any, tolerance: float) -> bool:
    if name == "mpp" and tolerance:
        return math.isclose(actual, expected, rel_tol=tolerance)
    return bool(actual == expected)


def short(value: Any) -> str:
    """A value for a message; of a SHA-256 its first digits."""
    return f"{value[:12]}…" if isinstance(value, str) and len(value) == 64 else repr(value)
