# SPDX-License-Identifier: Apache-2.0
"""Features in a file, all of them or some rows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from persam_monai.data.features.finite import first_bad_row
from persam_monai.data.features.head import Head, opened
from persam_monai.data.features.layout import Identity, Rows, chunk_places, read_all, read_at, row_places
from persam_monai.data.features.problems import cannot_open
from persam_monai.data.features.tensors import read_tensor
from persam_monai.errors import UserError

UNKNOWN = -1  # stands for both coordinates of a patch in files that have none
Chunks = tuple[np.ndarray | None, np.ndarray | None]  # where the chunks of features and coords lie


@dataclass(frozen=True)
class StoredFeatures:
    """A file of features that has been looked into. Plain values: it can be sent to another process.

    Attributes:
        head: what was found in it.
    """

    head: Head

    @property
    def path(self) -> Path:
        """The file."""
        return self.head.info.path

    @property
    def dtype(self) -> np.dtype:
        """Of what is read: float16 if the file's is, else float32."""
        return np.dtype(np.float16 if self.head.info.dtype == "float16" else np.float32)

    @property
    def nbytes(self) -> int:
        """Memory that all rows take, with their positions."""
        return self.head.info.count * (self.head.info.dim * self.dtype.itemsize + 2 * np.dtype(np.int64).itemsize)

    @property
    def by_rows(self) -> bool:
        """Whether some rows can be read without the others."""
        return all(rows is not None and rows.found for rows in (self.head.features, self.head.coords))

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """All features, float16 or float32 ``[n, D]``, and positions int64 ``[n, 2]`` (−1 where the file has none).

        Raises:
            UserError: if the file cannot be read or has changed, or a feature is not finite.
        """
        features, coords = self.head.features, self.head.coords
        with self._open() as descriptor:
            if features is None or coords is None:
                values, places = read_tensor(self.path), np.full((self.head.info.count, 2), UNKNOWN, np.int64)
            elif features.offset is not None and coords.offset is not None:
                values, places = _empty(features, features.count), _empty(coords, coords.count)
                read_all(descriptor, features.offset, values)
                read_all(descriptor, coords.offset, places)
            else:
                with opened(self.path) as file:
                    values, places = (_read_whole(file[rows.name], rows) for rows in (features, coords))
        return self._checked(values), _native(places, np.int64)

    def chunks(self) -> Chunks:
        """Where the chunks lie, which :meth:`read_rows` must know; ``None`` where there are none."""
        rows = (self.head.features, self.head.coords)
        if all(one is None or one.chunk is None for one in rows):
            return None, None
        with opened(self.path) as file:
            found = [None if one is None or one.chunk is None else chunk_places(file[one.name]) for one in rows]
        return found[0], found[1]

    def read_rows(self, chosen: np.ndarray, chunks: Chunks) -> tuple[np.ndarray, np.ndarray]:
        """What :meth:`read` gives, of chosen rows alone.

        Args:
            chosen: ``[n]`` indices.
            chunks: of :meth:`chunks`.

        Raises:
            UserError: as :meth:`read`.
        """
        if len(chosen) and not 0 <= chosen.min() <= chosen.max() < self.head.info.count:
            raise IndexError(f"rows {chosen.min()} to {chosen.max()} of {self.head.info.count}")
        found = []
        with self._open() as descriptor:
            for rows, places in zip((self.head.features, self.head.coords), chunks, strict=True):
                assert rows is not None
                out = _empty(rows, len(chosen))
                if len(chosen):
                    at = row_places(rows, chosen, places)
                    if at.min() < 0:
                        raise cannot_open(self.path, f"a part of {rows.name} was never written")
                    read_at(descriptor, at, out)
                found.append(out)
        return self._checked(found[0], chosen), _native(found[1], np.int64)

    @contextmanager
    def _open(self) -> Iterator[int]:
        """A descriptor of the file, if it is still the one that was looked into."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
            try:
                if Identity.of(os.fstat(descriptor)) != self.head.identity:
                    raise UserError(
                        f"{self.path} has changed since this run looked into it. Start the run anew when nobody writes "
                        "into the folder."
                    )
                yield descriptor
            finally:
                os.close(descriptor)
        except (OSError, EOFError) as error:
            raise cannot_open(self.path, error) from error

    def _checked(self, features: np.ndarray, chosen: np.ndarray | None = None) -> np.ndarray:
        if not len(features):
            return features.astype(self.dtype)
        with np.errstate(over="ignore"):  # what becomes infinite in float32 is found right away
            features = _native(features, self.dtype)
        row = first_bad_row(features)
        if row is not None:
            raise UserError(
                f"{self.path}: row {row if chosen is None else chosen[row]} of the features holds NaN or infinity. "
                "Make the file anew; if it is float16, in float32 (--features_dtype float32)."
            )
        return features


def _empty(rows: Rows, count: int) -> np.ndarray:
    return np.empty((count, rows.width), rows.dtype)


def _native(array: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
    return array.astype(dtype, copy=False)


def _read_whole(dataset: object, rows: Rows) -> np.ndarray:
    out = _empty(rows, rows.count)
    shape = dataset.shape  # type: ignore[attr-defined]
    dataset.read_direct(out.reshape(shape))  # type: ignore[attr-defined]
    return out
