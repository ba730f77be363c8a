# SPDX-License-Identifier: Apache-2.0
"""Personalised attention in digital pathology: whole-slide images and the clinical record, in one MONAI bundle."""

from __future__ import annotations

import importlib
from types import ModuleType

__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
    """Import a module when it is first named: configs ``import persam_monai`` and write ``persam_monai.cohort``."""
    full = f"{__name__}.{name}"
    if not name.startswith("_"):
        try:
            return importlib.import_module(full)
        except ModuleNotFoundError as error:
            if error.name != full:
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
