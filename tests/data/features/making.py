# SPDX-License-Identifier: Apache-2.0
"""Small files of features, in the forms that programs write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from persam_monai.cohort.reading import SlideEntry
from persam_monai.data import Made, write_features

MADE = Made("resnet50", "ab" * 32, 0.25, 224, {"min_tissue": 0.5, "pixel_std": [1.0, 1.0, 1.0]}, "0.1.0")


def values(count: int = 12, dim: int = 5, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    """Features [count, dim]."""
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(dtype)


def positions(count: int = 12) -> np.ndarray:
    """Positions [count, 2], no two alike."""
    return np.stack([np.arange(count) * 224, 7 + np.arange(count) * 448], axis=1)


def entry(slide: str, row: int = 2) -> SlideEntry:
    """A slide of the table; its pixels are never looked at."""
    return SlideEntry(slide, Path("/nowhere", slide), f"P{row}", 0, np.zeros(1, np.float32), None, None, row)


def write_features_file(
    path: Path, count: int = 12, dim: int = 5, seed: int = 0, made: Made = MADE, dtype: Any = "f4"
) -> Path:
    """A file of our own."""
    write_features(path, values(count, dim, dtype, seed), positions(count), made, (224.0, 224.0))
    return path


def write_h5(
    path: Path,
    datasets: Mapping[str, np.ndarray],
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
    chunk: int | None = 1,
    **settings: Any,
) -> Path:
    """Datasets that can grow in chunks of rows, as TRIDENT (1 row) and CLAM (1 or 32 rows) write them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, array in datasets.items():
            rows: dict[str, Any] = {}
            if chunk is not None:
                rows = {"chunks": (*[chunk][: array.ndim], *array.shape[1:]), "maxshape": (None, *array.shape[1:])}
            dataset = file.create_dataset(name, data=array, **rows, **settings)
            dataset.attrs.update((attributes or {}).get(name, {}))
    return path


def write_trident(path: Path, features: np.ndarray, encoder: str | None = "uni_v1", **coords: Any) -> Path:
    """A file as TRIDENT writes it; early versions do not name the encoder."""
    about = {
        "patch_size": 256,
        "patch_size_level0": 512,
        "level0_magnification": 40,
        "target_magnification": 20,
        "overlap": 0,
        "name": path.stem,
        "savetodir": "/data/ward-seven",
    }
    of_features = {"name": path.stem, "savetodir": "/data/ward-seven"}
    return write_h5(
        path,
        {"features": features, "coords": positions(features.shape[-2])},
        {"features": of_features | ({} if encoder is None else {"encoder": encoder}), "coords": about | coords},
    )


def write_clam(folder: Path, name: str, features: np.ndarray) -> None:
    """Both files that CLAM writes of a slide."""
    coords = positions(len(features)).astype(np.int32)
    write_h5(folder / "h5_files" / f"{name}.h5", {"features": features, "coords": coords}, chunk=32)
    save(folder / "pt_files" / f"{name}.pt", torch.from_numpy(features))


def save(path: Path, content: Any, **settings: Any) -> Path:
    """A file of torch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path, **settings)
    return path
