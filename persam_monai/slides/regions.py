# SPDX-License-Identifier: Apache-2.0
"""What every way to read pixels offers, and regions read through OpenSlide and cuCIM."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openslide

from persam_monai.errors import UserError

BLACK_SAMPLES = 16  # px between the pixels looked at: a tile is wider than that
_opening = threading.Lock()  # cuCIM crashes the interpreter when two threads open files at once


class Backend(ABC):
    """An open file that regions of pixels are read from.

    Attributes:
        name: ``tiles``, ``cucim`` or ``openslide``.
        own_threads: whether ``read`` divides its work among ``threads`` itself; otherwise callers may call it from
            several threads at once.
        dimensions: width and height of each level in pixels, finest first.
    """

    name: str
    own_threads = False
    dimensions: Sequence[tuple[int, int]]

    @abstractmethod
    def read(self, starts: np.ndarray, level: int, out: np.ndarray, threads: int = 1) -> None:
        """Read regions that lie at least partly inside the slide.

        Args:
            starts: ``int64 [N, 2]`` upper-left corners (x, y) in pixels of ``level``; may lie outside the slide.
            level: 0 is the finest.
            out: ``uint8 [N, h, w, 3]``, filled with RGB; what lies outside the slide may be left as it is.
            threads: decoding threads, where ``own_threads``.

        Raises:
            UserError: if the file is damaged there; names the slide.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the file; reading afterwards fails."""

    def reducible(self, level: int) -> int:
        """The largest of 1, 2, 4 and 8 by which :meth:`read_reduced` can shrink ``level``."""
        return 1

    def read_reduced(self, top: int, height: int, level: int, factor: int) -> np.ndarray:
        """A strip over the whole width of ``level``, shrunk while it is decoded.

        Args:
            top: first row, in pixels of ``level``; a multiple of ``factor``.
            height: rows; the strip ends at the slide's edge at the latest.
            level: 0 is the finest.
            factor: 1, or what :meth:`reducible` allows.

        Returns:
            ``uint8 [ceil(rows / factor), ceil(width / factor), 3]``.

        Raises:
            UserError: if the file is damaged there; names the slide.
        """
        width, rows = self.dimensions[level]
        strip = np.empty((1, min(height, rows - top), width, 3), np.uint8)
        self.read(np.array([[0, top]]), level, strip, threads=2)
        return strip[0]


class OpenSlideRegions(Backend):
    """Regions by OpenSlide, one after another."""

    name = "openslide"

    def __init__(self, path: Path, dimensions: Sequence[tuple[int, int]], downsamples: Sequence[float]) -> None:
        self.path = path
        self.dimensions = dimensions
        self.downsamples = downsamples
        try:
            self._slide = openslide.OpenSlide(str(path))
        except Exception as error:
            raise UserError(f"Slide {path} cannot be opened by OpenSlide: {error}.") from error

    def read(self, starts: np.ndarray, level: int, out: np.ndarray, threads: int = 1) -> None:
        """See :meth:`Backend.read`."""
        for region, (x, y) in zip(out, _level_0(starts, self.downsamples[level]).tolist(), strict=True):
            try:
                pixels = np.asarray(self._slide.read_region((x, y), level, (out.shape[2], out.shape[1])))
            except MemoryError:  # no slide's fault
                raise
            except Exception as error:
                raise UserError(
                    f"Slide {self.path} cannot be decoded at level {level} near ({x}, {y}): {error}. Copy the slide "
                    "anew from where it came from, or take it out of the table."
                ) from error
            region[:] = pixels[..., :3]
            region[pixels[..., 3] == 0] = 255  # where the scanner took no picture

    def close(self) -> None:
        """See :meth:`Backend.close`."""
        self._slide.close()


class CuCIM(Backend):
    """Regions by cuCIM, in batches.

    cuCIM gives no error for a tile that it cannot decode, but black pixels or those of another tile. Where pixels are
    black, OpenSlide has the last word; the others cannot be told, so this backend is for slides known to be whole.
    """

    name = "cucim"
    own_threads = True

    def __init__(self, path: Path, dimensions: Sequence[tuple[int, int]], downsamples: Sequence[float]) -> None:
        self.path = path
        self.dimensions = dimensions
        self.downsamples = downsamples
        try:
            from cucim.clara import CuImage  # here: it imports CuPy, which wants a home that it can write to
        except Exception as error:
            raise UserError(
                f"--backend cucim: cuCIM cannot be imported ({error}). If a folder cannot be made, set CUPY_CACHE_DIR "
                "to one that you may write to; or choose --backend auto."
            ) from error
        try:
            with _opening:
                self._image = CuImage(str(path))
        except Exception as error:
            raise UserError(f"Slide {path} cannot be opened by cuCIM ({error}). Choose --backend auto.") from error
        found = [tuple(size) for size in self._image.resolutions["level_dimensions"]]
        if found != list(dimensions):
            raise UserError(
                f"Slide {path}: OpenSlide finds levels of {list(dimensions)} pixels, cuCIM of {found}; patches could "
                "be read at a wrong magnification. Choose --backend auto."
            )

    def read(self, starts: np.ndarray, level: int, out: np.ndarray, threads: int = 1) -> None:
        """See :meth:`Backend.read`."""
        if not len(starts):
            return
        points = [(int(x), int(y)) for x, y in _level_0(starts, self.downsamples[level])]
        points += points * (len(points) == 1)  # read alone, a region that cannot be decoded is memory at random
        region = (out.shape[2], out.shape[1])
        try:
            batches = self._image.read_region(
                points, region, level, num_workers=threads, batch_size=len(points), prefetch_factor=1
            )
            out[:] = np.asarray(next(iter(batches)))[: len(out), ..., :3]
        except MemoryError:  # no slide's fault
            raise
        except Exception as error:
            raise UserError(
                f"Slide {self.path} cannot be decoded at level {level} near {points[0]}: {error}."
            ) from error
        black = ~out[:, ::BLACK_SAMPLES, ::BLACK_SAMPLES].any(axis=3)  # [N, h, w]
        suspects = np.flatnonzero(black.reshape(len(out), -1).any(axis=1))
        if len(suspects):
            second = OpenSlideRegions(self.path, self.dimensions, self.downsamples)
            try:
                some = np.empty((len(suspects), *out.shape[1:]), np.uint8)
                second.read(starts[suspects], level, some)
                out[suspects] = some
            finally:
                second.close()

    def close(self) -> None:
        """See :meth:`Backend.close`."""
        self._image.close()


def _level_0(starts: np.ndarray, downsample: float) -> np.ndarray:
    """The smallest level-0 positions [N, 2] that lie in the given pixels of a level."""
    return np.ceil(starts * downsample).astype(np.int64)
