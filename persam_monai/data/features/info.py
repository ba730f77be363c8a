# SPDX-License-Identifier: Apache-2.0
"""What is known of a file of features before the features are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any


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
        """The opposite of :meth:`to_dict`; names that are not known are passed over.

        Raises:
            ValueError: names a value that cannot be meant.
        """
        given: dict[str, Any] = {one.name: values.get(one.name) for one in fields(cls)}
        if given["settings"] is None:
            given["settings"] = {}
        kinds: dict[str, tuple[type, ...]] = {"mpp": (float, int), "patch_size": (int,), "settings": (dict,)}
        for name, value in given.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, kinds.get(name, (str,)))):
                raise ValueError(f"{name} is {value!r}")
        return cls(**given)


@dataclass(frozen=True)
class FeatureInfo:
    """The head of a file of features.

    Attributes:
        path: the file.
        form: ``persam_monai``, ``trident``, ``clam``, ``h5`` (datasets ``features`` and ``coords`` by nobody known) or
            ``pt``.
        count: number of patches.
        dim: number of features of a patch.
        dtype: of the features in the file: ``float16``, ``float32``, ``float64`` or ``bfloat16``.
        made: what they were made with.
        extent: width and height of a patch in level-0 pixels, if the file says so.
        fingerprint: of the slide's file that they were made from, if the file says so (ours alone do).
    """

    path: Path
    form: str
    count: int
    dim: int
    dtype: str
    made: Made
    extent: tuple[float, float] | None = None
    fingerprint: str | None = None


def short(value: Any) -> str:
    """A value for a message; of a SHA-256, what tells it apart."""
    return f"{value[:12]}…" if isinstance(value, str) and len(value) == 64 else repr(value)
