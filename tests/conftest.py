# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from scipy.ndimage import gaussian_filter
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort
from persam_monai.cohort.reading import SlideEntry
from persam_monai.synthetic import write_pyramid

settings.register_profile("same", derandomize=True)  # the same examples everywhere: what passed here passes there
settings.load_profile("same")

# Before any test imports cuCIM: without a GPU its nvImageCodec complains about every CUDA library that it misses.
if "NVIMGCODEC_EXTENSIONS_PATH" not in os.environ and shutil.which("nvidia-smi") is None:
    _no_extensions = tempfile.TemporaryDirectory(prefix="no-extensions-")  # removed when the tests end
    os.environ["NVIMGCODEC_EXTENSIONS_PATH"] = _no_extensions.name

# What tests find in slides is not kept among the user's own.
_cache_home = tempfile.TemporaryDirectory(prefix="cache-home-")
os.environ["XDG_CACHE_HOME"] = _cache_home.name

# PyTorch looks every five seconds whether workers are alive; tests in which they die need not wait so long.
_MultiProcessingDataLoaderIter._try_get_data.__defaults__ = (0.2,)

WriteSlide = Callable[..., Path]


@pytest.fixture(scope="session")
def picture() -> Callable[[int, int, int], np.ndarray]:
    """Paints stained-looking pictures [height, width, 3] in which no two places are alike."""

    def paint(height: int, width: int, seed: int = 0) -> np.ndarray:
        noise = np.random.default_rng(seed).normal(size=(height // 4 + 1, width // 4 + 1, 3))
        colour = gaussian_filter(noise, (6, 6, 0)) * 500 + np.array([190, 120, 180])
        detail = np.random.default_rng(seed + 1).normal(size=(height, width, 1))
        fine = colour.repeat(4, axis=0).repeat(4, axis=1)[:height, :width] + gaussian_filter(detail, (2, 2, 0)) * 150
        return np.clip(fine, 0, 255).astype(np.uint8)

    return paint


@pytest.fixture(scope="session")
def schema() -> ClinicalSchema:
    """Two classes, an interview group of three numbers and a blood group of one."""
    return ClinicalSchema.from_dict(
        {
            "classes": ["DLBCL", "FL"],
            "groups": {
                "interview": {"age": {"kind": "numeric"}, "sex": {"kind": "categorical", "levels": ["female", "male"]}},
                "blood": {"ldh": {"kind": "numeric"}},
            },
        }
    )


@pytest.fixture(scope="session")
def cohort(
    tmp_path_factory: pytest.TempPathFactory, schema: ClinicalSchema, picture: Callable[..., np.ndarray]
) -> Cohort:
    """Three slides of two patients, all tissue: 16, 16 and 4 tiles of 256 pixels."""
    folder = tmp_path_factory.mktemp("slides")
    entries = []
    for i, (name, patient, label, side) in enumerate(
        [("a.tif", "P1", 1, 1024), ("b.tif", "P2", 0, 1024), ("c.tif", "P2", 0, 512)]
    ):
        write_pyramid(folder / name, picture(side, side, i), mpp=0.25)
        clinical = schema.encode({"age": 60 + i // 2 if label else 40, "sex": "male", "ldh": None}, name)
        entries.append(SlideEntry(name, folder / name, patient, label, clinical, None, None, i + 2))
    return Cohort(tuple(entries), schema, "cohort.csv")
