# SPDX-License-Identifier: Apache-2.0
"""Reading regions through cuCIM and through OpenSlide."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openslide

from persam_monai.errors import UserError

BLACK_SAMPLES = 16  # px between the pixels looked at: a tile is wider than that
_opening = threading.Lock()  # cuCIM crashes the interpreter when two threads open files at once


class CuCIM:
    """Regions by cuCIM, in batches.

    cuCIM gives no error for a tile that it cannot decode, but black pixels or those of another tile. Where pixels are
    black, OpenSlide has the last word; the others cannot be told, so this backend is for slides known to be whole.

    Args:
        path: the slide.
        dimensions: width and height of each level, as OpenSlide has them.
        downsamples: level-0 pixels per pixel of each level.

    Raises:
        UserError: if cuCIM cannot be imported, cannot open the file, or finds other levels in it.
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
            raise UserError(
                f"Slide {path} cannot be opened by cuCIM ({error}). Choose --backend auto, or convert it to a tiled "
                "pyramidal TIFF."
            ) from error
        found = [tuple(size) for size in self._image.resolutions["level_dimensions"]]
        if found != list(dimensions):
            raise UserError(
                f"Slide {path}: OpenSlide finds levels of {list(dimensions)} pixels, cuCIM of {found}; patches could "
                "be read at a wrong magnification. Choose --backend auto."
            )

    def read(self, starts: np.ndarray, level: int, out: np.ndarray, threads: int = 1) -> None:
        """See :class:`~persam_monai.slides.backends.backend.Backend`."""
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
            second = OpenSlideRegions(self.path, self.downsamples)
            try:
                out[suspects] = second.read_all(starts[suspects], level, region)
            finally:
                second.close()

    def reducible(self, level: int) -> int:
        """See :class:`~persam_monai.slides.backends.backend.Backend`."""
        return 1

    def read_reduced(self, top: int, height: int, level: int, factor: int) -> np.ndarray:
        """See :class:`~persam_monai.slides.backends.backend.Backend`."""
        width, rows = self.dimensions[level]
        strip = np.empty((1, min(height, rows - top), width, 3), np.uint8)
        self.read(np.array([[0, top]]), level, strip, threads=2)
        return strip[0]

    def close(self) -> None:
        """Close the file; reading afterwards fails."""
        self._image.close()


class OpenSlideRegions:
    """Regions by OpenSlide, one after another.

    Args:
        path: the slide.
        downsamples: level-0 pixels per pixel of each level.

    Raises:
        UserError: if OpenSlide cannot open the file.
    """

    name = "openslide"
    own_threads = False

    def __init__(self, path: Path, downsamples: Sequence[float]) -> None:
        self.path = path
        self.downsamples = downsamples
        try:
            self._slide: openslide.OpenSlide | None = openslide.OpenSlide(str(path))
        except Exception as error:
            raise UserError(f"Slide {path} cannot be opened by OpenSlide: {error}.") from error

    def read(self, starts: np.ndarray, level: int, out: np.ndarray, threads: int = 1) -> None:
        """See :class:`~persam_monai.slides.backends.backend.Backend`."""
        if self._slide is None:
            raise UserError(f"Slide {self.path} is closed.")
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

    def read_all(self, starts: np.ndarray, level: int, region: tuple[int, int]) -> np.ndarray:
        """Regions of ``region`` (width, height) pixels as ``uint8 [N, h, w, 3]``."""
        out = np.empty((len(starts), region[1], region[0], 3), np.uint8)
        self.read(starts, level, out)
        return out

    def reducible(self, level: int) -> int:
        """See :class:`~persam_monai.slides.backends.backend.Backend`."""
        return 1

    def read_reduced(self, top: int, height: int, level: int, factor: int) -> np.ndarray:
        """See :class:`~persam_monai.slides.backends.backend.Backend`."""
        if self._slide is None:
            raise UserError(f"Slide {self.path} is closed.")
        width, rows = self._slide.level_dimensions[level]
        return self.read_all(np.array([[0, top]]), level, (width, min(height, rows - top)))[0]

    def close(self) -> None:
        """Close the file; reading afterwards fails. OpenSlide's own object crashes the interpreter if used then."""
        if self._slide is not None:
            self._slide.close()
            self._slide = None


def _level_0(starts: np.ndarray, downsample: float) -> np.ndarray:
    """The smallest level-0 positions [N, 2] that lie in the given pixels of a level."""
    return np.ceil(starts * downsample).astype(np.int64)
