# SPDX-License-Identifier: Apache-2.0
"""Three ways to read pixels: the file's own tiles, cuCIM and OpenSlide. They give the same pixels."""

from persam_monai.slides.backends.backend import Backend
from persam_monai.slides.backends.choice import BACKENDS, choose_backend, open_backend
from persam_monai.slides.backends.tables import TileTable, Unsuitable, Unsupported, read_tiff

__all__ = [
    "BACKENDS",
    "Backend",
    "TileTable",
    "Unsuitable",
    "Unsupported",
    "choose_backend",
    "open_backend",
    "read_tiff",
]
