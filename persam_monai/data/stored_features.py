# SPDX-License-Identifier: Apache-2.0
"""A file of features: written whole or not at all, looked into, read whole or by rows."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from persam_monai.data.feature_made import FeatureInfo, Made
from persam_monai.data.feature_others import Attributes, attributes_of_others, load_tensor, read_tensor
from persam_monai.errors import UserError
from persam_monai.files import replacing

FORMAT = "persam_monai features"
FORMAT_VERSION = 1  # to be raised by whoever changes what a file holds
# The oldest form of HDF5 keeps no date of the root group, and every program reads it.
LIBRARY = ("earliest", "v110")
FLOATS = ("float16", "float32", "float64")
BLOCK = 1 << 18  # values that are checked at once: the temporary arrays stay in the processor's cache
UNKNOWN = -1  # both coordinates of a patch in files that have none
ANEW = "Make it anew with the program that made it (run extracting), or copy it again."

Identity = tuple[int, int]  # size in bytes and time of the last change in ns: another one when the file has changed


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
    row = _first_bad_row(features)
    if row is not None:
        raise UserError(
            f"{path} is not written: row {row} of the features holds NaN or infinity. Numbers above 65,504 do not fit "
            "into float16: add --features_dtype float32. If that does not help, check the extractor, its weights and "
            "--precision."
        )
    # Text of fixed length is kept in the attribute itself, in ASCII.
    made_text = json.dumps(made.to_dict(), sort_keys=True, allow_nan=False)
    about = {"format": np.bytes_(FORMAT), "format_version": FORMAT_VERSION, "made": np.bytes_(made_text)}
    if fingerprint is not None:
        about["fingerprint"] = np.bytes_(fingerprint)
    # Made in memory: HDF5 that meets a full disk while it writes crashes later, when Python clears up behind it.
    # HDF5 takes files of one name for one file, and other threads may be writing theirs; no name gets into the bytes.
    name = f"features-{uuid.uuid4().hex}"
    with h5py.File(name, "w", driver="core", backing_store=False, libver=LIBRARY) as file:
        file.attrs.update(about)
        file.create_dataset("features", data=features, track_times=False)
        positions = file.create_dataset("coords", data=coords.astype(np.int64), track_times=False)
        if extent is not None:
            positions.attrs["extent"] = np.array(extent, np.float64)
        file.flush()
        content = file.id.get_file_image()
    with replacing(path) as partial:
        partial.write_bytes(content)


@dataclass(frozen=True)
class StoredFeatures:
    """A file of features that has been looked into. Plain values: it can be sent to another process.

    Attributes:
        info: what is in it.
        identity: of the file when it was looked into.
    """

    info: FeatureInfo
    identity: Identity

    @property
    def dtype(self) -> np.dtype:
        """Of what is read: float16 if the file's is, else float32."""
        return np.dtype(np.float16 if self.info.dtype == "float16" else np.float32)

    @property
    def nbytes(self) -> int:
        """Memory that all rows take, with their positions."""
        return self.info.count * (self.info.dim * self.dtype.itemsize + 2 * np.dtype(np.int64).itemsize)

    def read(self, chosen: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Features, float16 or float32 ``[n, D]``, and positions int64 ``[n, 2]`` (−1 where the file has none).

        Args:
            chosen: ``[n]`` indices of rows; ``None`` reads all.

        Raises:
            UserError: if the file cannot be read or has changed, or a feature is not finite.
        """
        path = self.info.path
        with _errors_of(path):
            if _identity(path) != self.identity:
                raise UserError(f"{path} has changed since this run began. Start again when nothing writes there.")
            if self.info.form == "pt":
                features = read_tensor(path, chosen)
                coords = np.full((len(features), 2), UNKNOWN)
            else:
                with _open(path) as file:
                    features, coords = (_rows(file[name], chosen) for name in ("features", "coords"))
        with np.errstate(over="ignore"):  # what becomes infinite in float32 is noticed right away
            features = features.astype(self.dtype, copy=False)
        bad = _first_bad_row(features)
        if bad is not None:
            raise UserError(
                f"{path}: row {bad if chosen is None else chosen[bad]} of the features holds NaN or infinity. Make the "
                "file anew; if it is float16, in float32 (--features_dtype float32)."
            )
        return features, coords.astype(np.int64, copy=False)


def open_features(path: str | os.PathLike[str]) -> StoredFeatures:
    """Look into a file of features without reading them: HDF5, or torch's if its name ends in ``.pt``.

    Raises:
        UserError: says what is wrong with the file.
    """
    path = Path(path)
    with _errors_of(path):
        identity = _identity(path)
        if path.suffix == ".pt":
            tensor = load_tensor(path)
            dtype = str(tensor.dtype).removeprefix("torch.")
            return StoredFeatures(FeatureInfo(path, "pt", len(tensor), tensor.shape[1], dtype, Made()), identity)
        with _open(path) as file:
            features, coords = (file.get(name) for name in ("features", "coords"))
            problem = _problem(file, features, coords)
            if problem:
                raise UserError(f"{path}: {problem}")
            attributes, fingerprint = _attributes(path, file, features, coords)
            count, dim = features.shape[-2:]
            dtype = features.dtype.newbyteorder("=").name
            info = FeatureInfo(
                path, attributes.form, count, dim, dtype, attributes.made, attributes.extent, fingerprint
            )
            return StoredFeatures(info, identity)


def read_info(path: str | os.PathLike[str]) -> FeatureInfo:
    """What a file of features says of itself; see :func:`open_features`."""
    return open_features(path).info


def _identity(path: Path) -> Identity:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _rows(dataset: h5py.Dataset, chosen: np.ndarray | None) -> np.ndarray:
    """All or chosen rows ``[n, width]`` of a dataset ``[n, width]`` or ``[1, n, width]``."""
    if chosen is None:
        return np.asarray(dataset[()]).reshape(-1, dataset.shape[-1])
    rows, places = np.unique(chosen, return_inverse=True)  # HDF5 wants them in order, each once
    read: np.ndarray = dataset[rows] if dataset.ndim == 2 else dataset[0, rows]
    return read[places]


def _open(path: Path) -> h5py.File:
    # Nothing writes into a complete file, and network shares may refuse locks or wait for them.
    return h5py.File(path, "r", locking=False)


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Turns what libraries raise into one message that names the file."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, EOFError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UserError(f"{path} cannot be read as a file of features ({reason}). {ANEW}") from error


def _problem(file: h5py.File, features: Any, coords: Any) -> str | None:
    """What is wrong with the datasets of a file."""
    if not isinstance(features, h5py.Dataset) or not isinstance(coords, h5py.Dataset):
        return (
            f"it holds {', '.join(file) or 'nothing'}; expected the datasets features [n, D] and coords [n, 2]. Name "
            "another --features_dir, or convert the file as bundle/docs/features.md shows."
        )
    shape, positions = list(features.shape or ()), list(coords.shape or ())
    if features.dtype.name not in FLOATS or len(shape) not in (2, 3) or shape[:-2] not in ([], [1]) or 0 in shape:
        return f"features are {features.dtype} {shape}; expected floating-point numbers [n, D], n at least 1. {ANEW}"
    if coords.dtype.kind not in "iu" or positions not in ([shape[-2], 2], [1, shape[-2], 2]):
        return (
            f"coords are {coords.dtype} {positions}; expected whole level-0 pixels [{shape[-2]}, 2]. "
            "bundle/docs/features.md shows how to convert."
        )
    for dataset in (features, coords):
        stored, expected = dataset.id.get_storage_size(), dataset.size * dataset.dtype.itemsize
        if stored == 0 or (_is_plain(dataset) and stored < expected):  # HDF5 would read zeros
            return f"{dataset.name.lstrip('/')} are unfinished: {stored} of {expected} bytes were written. {ANEW}"
    return None


def _is_plain(dataset: h5py.Dataset) -> bool:
    """Whether the values are stored in this file as they are, not compressed."""
    return not dataset.id.get_create_plist().get_nfilters() and not dataset.external and not dataset.is_virtual


def _attributes(
    path: Path, file: h5py.File, features: h5py.Dataset, coords: h5py.Dataset
) -> tuple[Attributes, str | None]:
    """What a file says of itself, and the fingerprint of its slide."""
    try:
        if _text(file.attrs.get("format")) != FORMAT:
            return attributes_of_others(dict(features.attrs), dict(coords.attrs), path.absolute().parent), None
        version = int(file.attrs["format_version"])
        if version > FORMAT_VERSION:
            raise UserError(
                f"{path} was written by a later version of persam_monai (format {version}; this one reads up to "
                f"{FORMAT_VERSION}). Install that version."
            )
        made = Made.from_dict(json.loads(_text(file.attrs["made"]) or ""))
        extent = coords.attrs.get("extent")
        extent = None if extent is None else (float(extent[0]), float(extent[1]))
        return Attributes("persam_monai", made, extent), _text(file.attrs.get("fingerprint"))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(f"{path}: its attributes are damaged ({error}). {ANEW}") from error


def _text(value: Any) -> str | None:
    return value.decode() if isinstance(value, bytes) else None if value is None else str(value)


def _first_bad_row(features: np.ndarray) -> int | None:
    """The first row ``[D]`` that holds NaN or infinity."""
    step = max(1, BLOCK // features.shape[1])
    for begin in range(0, len(features), step):
        block = features[begin : begin + step]
        if block.dtype == np.float16:
            # NaN and infinity have all bits of the exponent set. Numpy's isfinite takes five times as long for float16.
            bits = np.ascontiguousarray(block).view(np.uint16) & np.uint16(0x7FFF)
            finite = bits.max() < np.uint16(0x7C00)
        else:
            finite = np.isfinite(block).all()
        if not finite:
            return begin + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
    return None
