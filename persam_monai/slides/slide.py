# SPDX-License-Identifier: Apache-2.0
"""Open whole-slide images, with physical units at their edge.

What a process cannot share with one that it forks, open files and threads, remembers the number of its process
(``os.getpid()``), and a process with another number makes its own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from persam_monai.errors import UserError
from persam_monai.slides.header import Backend, Level, SlideHeader, open_backend, read_header

MPP_TOLERANCE = 0.1  # a slide of 0.26 µm/px is read as it is when 0.25 is asked for
RESAMPLED_AT_ONCE = 4  # patches: what is read to be shrunk stays in the processor's cache
STRIP = 2048  # rows of a level read at once for a thumbnail, about
LARGEST_THUMBNAIL = 2**26  # pixels, 200 MB; a wrong mpp would ask for the whole of a level
LONGEST_STRIP = 2048  # rows; of a level of 100,000 pixels 600 MB
MAX_OPEN = 16  # slides in the cache of a process: opening one again with its header takes microseconds


class ReadPlan(NamedTuple):
    """How patches of a given size and resolution come out of a slide."""

    level: int
    region: tuple[int, int]  # width, height to read at that level, in pixels
    resample: bool  # whether the region is then brought to the patch size, with anti-aliasing


class Slide:
    """An open whole-slide image.

    May be used by several threads, sent to another process (it is opened anew there) and used in a forked one.

    Args:
        path: the slide's file.
        mpp: µm per level-0 pixel, where the cohort table knows better than the file; ``None`` takes the file's own.
        backend: ``auto``, ``tiles`` (the file's own tiles, one by one), ``cucim`` or ``openslide``.
        header: what :func:`~persam_monai.slides.header.read_header` returned for this path, if it was called before.

    Attributes:
        header: levels, and how the pixels are read.

    Raises:
        UserError: if the file is missing, cannot be opened as a slide, or has no resolution and ``mpp`` is ``None``.

    Example:
        >>> with Slide("slides/a.svs") as slide:  # doctest: +SKIP
        ...     patches = slide.read_patches(np.array([[0, 0]]), size=224, mpp=0.25)  # [1, 224, 224, 3]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        mpp: float | None = None,
        backend: str = "auto",
        header: SlideHeader | None = None,
    ) -> None:
        self.path = Path(path)
        self.header = read_header(path, mpp, backend) if header is None else header
        self._closed = False
        self._open()

    def _open(self) -> None:
        self._process = os.getpid()
        dimensions = [level.dimensions for level in self.levels]
        downsamples = [level.downsample[0] for level in self.levels]
        self._own = open_backend(self.header.backend, self.path, dimensions, downsamples, self.header.tables)

    @property
    def _backend(self) -> Backend:
        """The open file, of this process: a fork would share its position in the file with its parent."""
        if self._closed:
            raise UserError(f"Slide {self.path} is closed.")
        if self._process != os.getpid():
            self._open()
        return self._own

    def __reduce__(self) -> tuple[Any, ...]:
        return Slide, (self.path, None, "auto", self.header)

    @property
    def mpp(self) -> tuple[float, float]:
        """µm per level-0 pixel, x and y."""
        return self.header.mpp

    @property
    def levels(self) -> tuple[Level, ...]:
        """Resolutions, finest first."""
        return self.header.levels

    @property
    def dimensions(self) -> tuple[int, int]:
        """Width and height in level-0 pixels."""
        return self.levels[0].dimensions

    def plan(self, size: int, mpp: float) -> ReadPlan:
        """Choose the level for patches of ``size`` pixels at ``mpp`` µm per pixel.

        The coarsest level that is not coarser than asked (within 10 %) is taken. If it is as asked (within 10 %) it is
        read as it is; otherwise a larger region is read and resampled.

        Raises:
            UserError: if even the finest level is coarser than ``mpp``: such detail could only be invented.
        """
        finest = max(self.mpp)
        if finest > mpp * (1 + MPP_TOLERANCE):
            raise UserError(
                f"Slide {self.path} has {finest:.4g} µm per pixel at its finest, coarser than the mpp {mpp:g} asked "
                f"for: that detail is not in the file. Use --mpp {math.ceil(finest * 100) / 100:g} (and a model "
                "trained at that resolution)."
            )
        fitting = [i for i, level in enumerate(self.levels) if max(level.mpp) <= mpp * (1 + MPP_TOLERANCE)]
        level = fitting[-1]
        scale = [mpp / own for own in self.levels[level].mpp]
        if all(abs(s - 1) <= MPP_TOLERANCE for s in scale):
            return ReadPlan(level, (size, size), resample=False)
        return ReadPlan(level, (math.ceil(size * scale[0]), math.ceil(size * scale[1])), resample=True)

    def read_patches(
        self, locations: np.ndarray, size: int, mpp: float, threads: int = 1, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Read patches.

        Args:
            locations: ``[N, 2]`` level-0 pixel positions (x, y) of the patches' upper-left corners.
            size: side of a patch in pixels.
            mpp: µm per pixel of a patch.
            threads: decoding threads.
            out: ``uint8 [N, size, size, 3]`` to fill; by default new memory.

        Returns:
            ``uint8 [N, size, size, 3]``, RGB: ``out`` if it was given. Outside the slide pixels are white.

        Raises:
            UserError: if the slide is coarser than ``mpp``, or its pixels cannot be decoded.
        """
        plan = self.plan(size, mpp)
        patches = np.empty((len(locations), size, size, 3), np.uint8) if out is None else out
        level = self.levels[plan.level]
        # An epsilon: a location that was made from a pixel of the level must lead back to it.
        starts = np.floor(np.asarray(locations) / np.array(level.downsample) + 1e-6).astype(np.int64)
        read = self._read_resampled if plan.resample else self._read
        backend = self._backend
        if threads == 1 or backend.own_threads or len(starts) < 2 * threads:
            read(plan, threads, starts, patches)
        else:
            parts = [np.s_[i * len(starts) // threads : (i + 1) * len(starts) // threads] for i in range(threads)]
            _in_threads(lambda part: read(plan, 1, starts[part], patches[part]), parts, threads)
        return patches

    def thumbnail(self, mpp: float, threads: int = 1) -> np.ndarray:
        """The whole slide at about ``mpp`` µm per pixel, averaged from the coarsest level that is fine enough.

        A level is read in strips, so that a slide with a single one needs little memory; JPEG tiles are shrunk while
        they are decoded.

        Args:
            mpp: resolution wanted, in µm per pixel; the result may be up to twice as fine. It is coarser where it would
                have more than 67 million pixels.
            threads: decoding threads.

        Returns:
            ``uint8 [H, W, 3]``; the pixel (y, x) covers ``dimensions / (W, H)`` level-0 pixels.

        Raises:
            UserError: if the pixels cannot be decoded.
        """
        mpp = max(mpp, max(self.mpp) * math.sqrt(math.prod(self.dimensions) / LARGEST_THUMBNAIL))
        fitting = [i for i, level in enumerate(self.levels) if max(level.mpp) <= mpp]
        index = fitting[-1] if fitting else 0
        level, backend = self.levels[index], self._backend
        factor = max(1, int(mpp / max(level.mpp)))
        decoding = max(part for part in (1, 2, 4, 8) if part <= min(factor, backend.reducible(index)))
        factor -= factor % decoding
        while factor > decoding and math.lcm(level.tile[1] or 1, factor) > LONGEST_STRIP:
            factor -= decoding  # 31 rows and tiles of 256 meet every 7,936 rows only, 28 every 1,792
        strip = math.lcm(level.tile[1] or 1, factor)
        strip *= max(1, STRIP // strip)

        def read(top: int) -> np.ndarray:
            return _shrink(backend.read_reduced(top, strip, index, decoding), factor // decoding)

        tops = range(0, level.dimensions[1], strip)
        if threads == 1 or backend.own_threads:
            return np.concatenate([read(top) for top in tops])
        return np.concatenate(_in_threads(read, tops, threads))

    def _read(self, plan: ReadPlan, threads: int, starts: np.ndarray, out: np.ndarray) -> None:
        """Fill ``out`` [N, h, w, 3] with regions that start at pixels [N, 2] of the plan's level; white beyond it."""
        height, width = out.shape[1:3]
        # Where the slide begins and ends inside each region, x and y.
        begins, ends = -starts, np.array(self.levels[plan.level].dimensions) - starts
        touching = np.flatnonzero(((begins < (width, height)) & (ends > 0)).all(axis=1))
        if len(touching) == len(out):
            self._backend.read(starts, plan.level, out, threads)
        elif len(touching):
            some = np.empty((len(touching), *out.shape[1:]), np.uint8)
            self._backend.read(starts[touching], plan.level, some, threads)
            out[touching] = some
        for i in np.flatnonzero(((begins > 0) | (ends < (width, height))).any(axis=1)):
            (left, top), (right, bottom) = np.maximum(begins[i], 0), np.maximum(ends[i], 0)
            out[i, :top] = out[i, bottom:] = 255
            out[i, :, :left] = out[i, :, right:] = 255

    def _read_resampled(self, plan: ReadPlan, threads: int, starts: np.ndarray, out: np.ndarray) -> None:
        """The same for regions of the plan's size, brought to the size of ``out``."""
        regions = np.empty((RESAMPLED_AT_ONCE, plan.region[1], plan.region[0], 3), np.uint8)
        for first in range(0, len(out), RESAMPLED_AT_ONCE):
            some = np.s_[first : first + RESAMPLED_AT_ONCE]
            read = regions[: len(starts[some])]
            self._read(plan, threads, starts[some], read)
            for region, patch in zip(read, out[some], strict=True):  # the mean over each new pixel: no aliasing
                cv2.resize(region, (patch.shape[1], patch.shape[0]), dst=patch, interpolation=cv2.INTER_AREA)

    def close(self) -> None:
        """Close the file. Reading afterwards fails."""
        if not self._closed and self._process == os.getpid():
            self._own.close()
        self._closed = True

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@lru_cache(maxsize=MAX_OPEN)
def open_slide(header: SlideHeader) -> Slide:
    """An open slide from this process's cache."""
    return Slide(header.path, header=header)


def _shrink(image: np.ndarray, factor: int) -> np.ndarray:
    """Average blocks of ``factor`` × ``factor`` pixels of [h, w, 3]; the border is repeated to fill the last blocks."""
    if factor == 1:
        return image
    height, width = image.shape[:2]
    pad = ((0, -height % factor), (0, -width % factor), (0, 0))
    padded = np.pad(image, pad, mode="edge") if height % factor or width % factor else image
    size = (padded.shape[1] // factor, padded.shape[0] // factor)
    small: np.ndarray = cv2.resize(padded, size, interpolation=cv2.INTER_AREA)
    return small


def _in_threads(work: Callable[[Any], Any], items: Iterable[Any], threads: int) -> list[Any]:
    """What ``work`` returns for each item; all have ended, well or not, when this returns or raises.

    A thread still at work would write into memory that has another use by then, or read from a closed file.
    """
    futures = [_pool(os.getpid(), threads).submit(work, item) for item in items]
    wait(futures)
    return [future.result() for future in futures]


@lru_cache(maxsize=2)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Decoding threads of a process."""
    return ThreadPoolExecutor(threads, thread_name_prefix="decoder")
