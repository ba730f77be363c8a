# SPDX-License-Identifier: Apache-2.0
"""Our own files of features."""

from __future__ import annotations

import json
import os
import uuid

import h5py
import numpy as np

from persam_monai.data.features.finite import first_bad_row
from persam_monai.data.features.info import Made
from persam_monai.errors import UserError
from persam_monai.files import replacing

FORMAT = "persam_monai features"
FORMAT_VERSION = 1  # whoever changes what a file holds counts on
# The oldest form of HDF5 keeps no date of the root group, and every program reads it.
LIBRARY = ("earliest", "v110")


def write_features(
    path: str | os.PathLike[str],
    features: np.ndarray,
    coords: np.ndarray,
    made: Made,
    extent: tuple[float, float] | None = None,
    fingerprint: str | None = None,
) -> None:
    """Write a slide's features, whole or not at all. The same input gives the same bytes.

    Args:
        path: the file; its folder is made.
        features: ``[n, D]`` float16 or float32.
        coords: ``[n, 2]`` integers: level-0 positions (x, y) of the patches' upper-left corners.
        made: what they were made with.
        extent: width and height of a patch in level-0 pixels.
        fingerprint: of the slide's file.

    Raises:
        ValueError: if the arrays have another shape or type.
        UserError: if a feature is not finite, or the file cannot be written.
    """
    if features.ndim != 2 or features.dtype not in (np.float16, np.float32) or not features.size:
        raise ValueError(f"features are {features.dtype} {list(features.shape)}; expected float16 or float32 [n, D]")
    if coords.shape != (len(features), 2) or coords.dtype.kind not in "iu":
        raise ValueError(f"coords are {coords.dtype} {list(coords.shape)}; expected integers [{len(features)}, 2]")
    row = first_bad_row(features)
    if row is not None:
        cure = "Some exceed 65,504, the largest number of float16: add --features_dtype float32."
        raise UserError(
            f"{path} is not written: row {row} of the features holds NaN or infinity. "
            + (cure if features.dtype == np.float16 else "Look at the extractor and its weights.")
        )
    # Text without variable length lies in the attribute itself, in ASCII.
    about = {"format": np.bytes_(FORMAT), "format_version": FORMAT_VERSION, "made": np.bytes_(_json(made.to_dict()))}
    if fingerprint is not None:
        about["fingerprint"] = np.bytes_(fingerprint)
    # Made in memory: HDF5 that meets a full disk while it writes crashes later, when Python clears up behind it.
    # HDF5 takes files of one name for one file, and other threads may be writing theirs; no name gets into the bytes.
    name = f"features-{uuid.uuid4().hex}"
    with h5py.File(name, "w", driver="core", backing_store=False, libver=LIBRARY) as file:
        file.attrs.update(about)
        file.create_dataset("features", data=features, track_times=False)
        written = file.create_dataset("coords", data=coords.astype(np.int64), track_times=False)
        if extent is not None:
            written.attrs["extent"] = np.array(extent, np.float64)
        file.flush()
        content = file.id.get_file_image()
    with replacing(path) as partial:
        partial.write_bytes(content)


def _json(values: dict[str, object]) -> str:
    return json.dumps(values, sort_keys=True, allow_nan=False)
