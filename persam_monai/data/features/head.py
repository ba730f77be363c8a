# SPDX-License-Identifier: Apache-2.0
"""The head of a file of features: what it is, and where its rows lie."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from persam_monai.data.features.elsewhere import About, made_elsewhere
from persam_monai.data.features.info import FeatureInfo, Made
from persam_monai.data.features.layout import Identity, Rows, rows_of
from persam_monai.data.features.problems import ANEW, cannot_open
from persam_monai.data.features.tensors import tensor_info
from persam_monai.data.features.writing import FORMAT, FORMAT_VERSION
from persam_monai.errors import UserError

NAMES = ("features", "coords")
FLOATS = ("float16", "float32", "float64")
SHOWN = 8  # names of other datasets in a message


class Head(NamedTuple):
    """What is known of a file."""

    info: FeatureInfo
    identity: Identity
    features: Rows | None  # None: no HDF5
    coords: Rows | None


def read_info(path: str | os.PathLike[str]) -> FeatureInfo:
    """Look into a file of features without reading them.

    Args:
        path: a file of HDF5, or of torch if its name ends in ``.pt``.

    Raises:
        UserError: says what is wrong with the file.
    """
    return read_head(path).info


def read_head(path: str | os.PathLike[str]) -> Head:
    """What :func:`read_info` finds, and where the rows lie."""
    path = Path(path)
    try:
        identity = Identity.of(path.stat())
    except OSError as error:
        raise cannot_open(path, error) from error
    if path.suffix == ".pt":
        return Head(tensor_info(path), identity, None, None)
    with opened(path) as file:
        features, coords = _datasets(path, file)
        about, fingerprint = _about(path, file, features, coords)
        count, dim = features.shape[-2:]
        info = FeatureInfo(
            path, about.form, count, dim, features.dtype.newbyteorder("=").name, about.made, about.extent, fingerprint
        )
        return Head(info, identity, rows_of(features), rows_of(coords))


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """A file of HDF5, for reading.

    Raises:
        UserError: if it cannot be opened, or what is done with it fails.
    """
    try:
        # Nobody writes into a complete file, and network shares may refuse locks or wait for them.
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:
        raise cannot_open(path, error) from error


def _datasets(path: Path, file: h5py.File) -> tuple[h5py.Dataset, h5py.Dataset]:
    found = [file.get(name) for name in NAMES]
    if not all(isinstance(one, h5py.Dataset) for one in found):
        raise UserError(f"{path} {_other_names(sorted(file))}")
    features, coords = found
    problem = (
        _features_problem(features) or _coords_problem(coords, features.shape[-2]) or _holes(features) or _holes(coords)
    )
    if problem:
        raise UserError(f"{path}: {problem}")
    return features, coords


def _other_names(names: list[str]) -> str:
    """What is wrong with a file that holds datasets of other names."""
    found = ", ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "") or "nothing"
    expected = "expected the datasets features [n, D] and coords [n, 2]"
    if names == ["coords"]:
        why = "It lists patches and has no features; name the folder of the features as --features_dir."
    elif "feats" in names:
        why = "It looks like STAMP's, whose positions are in µm: bundle/docs/features.md shows how to convert it."
    else:
        why = "Write it anew under these names (persam_monai.data.write_features), or name another --features_dir."
    return f"holds {found}; {expected}. {why}"


def _features_problem(features: h5py.Dataset) -> str | None:
    shape = list(features.shape or ())
    if features.dtype.name not in FLOATS:
        return f"features are {features.dtype}; expected one of {', '.join(FLOATS)}. {ANEW}"
    if len(shape) == 1:
        return f"features are one vector {shape}, of a whole slide; expected those of its patches, [n, D]."
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] != 1):
        return f"features have the shape {shape}; expected [n, D] or [1, n, D]. {ANEW}"
    if 0 in shape:
        return (
            f"features have the shape {shape}: there is no patch. Look whether the slide shows tissue; make the file "
            "anew, or take the slide's row out of the table."
        )
    return None


def _coords_problem(coords: h5py.Dataset, count: int) -> str | None:
    shape = list(coords.shape or ())
    if coords.dtype.kind not in "iu":
        return (
            f"coords are {coords.dtype}; expected whole level-0 pixels (bundle/docs/features.md shows how to convert)."
        )
    if len(shape) not in (2, 3) or shape[-1] != 2 or (len(shape) == 3 and shape[0] != 1):
        return f"coords have the shape {shape}; expected [n, 2] or [1, n, 2]. {ANEW}"
    if shape[-2] != count:
        return f"there are features of {count} patches and coords of {shape[-2]}; expected as many of both. {ANEW}"
    return None


def _holes(dataset: h5py.Dataset) -> str | None:
    """What was announced and never written; HDF5 reads it as zeros."""
    plain = not dataset.id.get_create_plist().get_nfilters() and not dataset.external and not dataset.is_virtual
    there, expected = dataset.id.get_storage_size(), dataset.size * dataset.dtype.itemsize
    if there == 0 or (plain and there < expected):
        return f"{dataset.name.lstrip('/')} are unfinished: {there} of {expected} bytes were written. {ANEW}"
    return None


def _about(path: Path, file: h5py.File, features: h5py.Dataset, coords: h5py.Dataset) -> tuple[About, str | None]:
    try:
        if _text(file.attrs.get("format")) != FORMAT:
            return made_elsewhere(dict(features.attrs), dict(coords.attrs), path.absolute().parent), None
        version = int(file.attrs["format_version"])
        if version > FORMAT_VERSION:
            raise UserError(
                f"{path} was written by a later version of persam_monai (format {version}; this one reads up to "
                f"{FORMAT_VERSION}). Install that version."
            )
        extent = coords.attrs.get("extent")
        if extent is not None:
            extent = (float(extent[0]), float(extent[1]))
        return About("persam_monai", _made(file.attrs), extent), _text(file.attrs.get("fingerprint"))
    except (ValueError, TypeError, LookupError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise UserError(f"{path}: what it says of itself is damaged ({reason}). {ANEW}") from error


def _made(attributes: Mapping[str, Any]) -> Made:
    values = json.loads(_text(attributes["made"]) or "")
    if not isinstance(values, dict):
        raise ValueError(f"made is {values!r}")
    return Made.from_dict(values)


def _text(value: Any) -> str | None:
    return value.decode() if isinstance(value, bytes | np.bytes_) else None if value is None else str(value)
