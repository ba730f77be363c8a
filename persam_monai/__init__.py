# SPDX-License-Identifier: Apache-2.0
"""Personalised attention in digital pathology: whole-slide images and the clinical record, in one MONAI bundle."""

from __future__ import annotations

import importlib
from types import ModuleType

__version__ = "0.1.0"

_ROOMS = frozenset(
    {
        "clinical",
        "cohort",
        "commandline",
        "conversion",
        "data",
        "description",
        "drafting",
        "engines",
        "errors",
        "files",
        "handlers",
        "losses",
        "metrics",
        "model",
        "networks",
        "settings",
        "slides",
        "summary",
        "synthetic",
        "text_table",
    }
)


def __getattr__(name: str) -> ModuleType:
    """Import a room when it is first named: configs ``import persam_monai`` and write ``persam_monai.cohort``."""
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
