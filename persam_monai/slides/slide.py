# SPDX-License-Identifier: Apache-2.0
"""One open whole-slide image, with physical units at its edge."""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import openslide
from cucim.clara import CuImage

from persam_monai.errors import UserError
from persam_monai.slides.resample import resample, shrink

MPP_TOLERANCE = 0.1  # a slide of 0.26 µm/px is read as it is when 0.25 is asked for


class Level(NamedTuple):
    """One resolution of a slide."""

    dimensions: tuple[int, int]  # width, height in pixels of this level
    downsample: tuple[float, float]  # level-0 pixels per pixel of this level, x and y
    mpp: tuple[float, float]  # µm per pixel of this level, x and y
    tile: tuple[int, int]  # width and height of the file's tiles; (0, 0) when the level is not tiled


class ReadPlan(NamedTuple):
    """How patches of a given size and resolution come out of a slide."""

    level: int
    region: tuple[int, int]  # width, height to read at that level, in pixels
    resample: bool  # whether the region is then brought to the patch size, with anti-aliasing


class Slide:
    """An open whole-slide image.

    OpenSlide reads the metadata (it knows every vendor's way to write the resolution), cuCIM the pixels.

    Args:
        path: the slide's file.
        mpp: µm per level-0 pixel, where the cohort table knows better than the file; ``None`` takes the file's own.

    Attributes:
        levels: resolutions, finest first.
        mpp: µm per level-0 pixel, x and y.

    Raises:
        UserError: if the file is missing, cannot be opened as a slide, or has no resolution and ``mpp`` is ``None``.

    Example:
        >>> with Slide("slides/a.svs") as slide:  # doctest: +SKIP
        ...     patches = slide.read_patches(np.array([[0, 0]]), size=224, mpp=0.25)  # [1, 224, 224, 3]
    """

    def __init__(self, path: str | os.PathLike[str], mpp: float | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"Slide {self.path} does not exist or is not a file.")
        properties, dimensions, downsamples = _read_metadata(self.path)
        self.mpp = _resolution(self.path, properties, mpp)
        try:
            self._image = CuImage(str(self.path))
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"Slide {self.path} cannot be opened by cuCIM ({error}). Expected a tiled TIFF, SVS or Philips TIFF; "
                "convert it to a tiled pyramidal TIFF."
            ) from error
        found = [tuple(size) for size in self._image.resolutions["level_dimensions"]]
        if found != list(dimensions):
            raise UserError(
                f"Slide {self.path}: OpenSlide finds levels of {list(dimensions)} pixels, cuCIM of {found}; patches "
                "could be read at a wrong magnification. Convert the slide to a tiled pyramidal TIFF."
            )
        self.levels = tuple(
            Level(
                dimensions=size,
                downsample=(downsample, downsample),
                mpp=(self.mpp[0] * downsample, self.mpp[1] * downsample),
                tile=(
                    int(properties.get(f"openslide.level[{index}].tile-width", 0)),
                    int(properties.get(f"openslide.level[{index}].tile-height", 0)),
                ),
            )
            for index, (size, downsample) in enumerate(zip(dimensions, downsamples, strict=True))
        )

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
                f"for: that detail is not in the file. Use --mpp {_round_mpp(finest):g} (and a model trained at that "
                "resolution)."
            )
        fitting = [i for i, level in enumerate(self.levels) if max(level.mpp) <= mpp * (1 + MPP_TOLERANCE)]
        level = fitting[-1]
        scale = [mpp / own for own in self.levels[level].mpp]
        if all(abs(s - 1) <= MPP_TOLERANCE for s in scale):
            return ReadPlan(level, (size, size), resample=False)
        return ReadPlan(level, (math.ceil(size * scale[0]), math.ceil(size * scale[1])), resample=True)

    def read_patches(self, locations: np.ndarray, size: int, mpp: float, threads: int = 1) -> np.ndarray:
        """Read patches.

        Args:
            locations: ``[N, 2]`` level-0 pixel positions (x, y) of the patches' upper-left corners.
            size: side of a patch in pixels.
            mpp: µm per pixel of a patch.
            threads: decoding threads.

        Returns:
            ``uint8 [N, size, size, 3]``, RGB. Outside the slide pixels are white.

        Raises:
            UserError: if the slide is coarser than ``mpp``, or its pixels cannot be decoded.
        """
        plan = self.plan(size, mpp)
        patches = self._read(locations, plan.region, plan.level, threads)
        return resample(patches, size) if plan.resample else patches

    def thumbnail(self, mpp: float, strip: int = 2048) -> np.ndarray:
        """The whole slide at about ``mpp`` µm per pixel, averaged from the coarsest level that is fine enough.

        Args:
            mpp: resolution wanted, in µm per pixel; the result may be up to twice as fine.
            strip: rows read at once, so that a slide with a single level needs no more memory than that.

        Returns:
            ``uint8 [H, W, 3]``; the pixel (y, x) covers ``dimensions / (W, H)`` level-0 pixels.
        """
        fitting = [i for i, level in enumerate(self.levels) if max(level.mpp) <= mpp]
        level = fitting[-1] if fitting else 0
        width, height = self.levels[level].dimensions
        factor = max(1, int(mpp / max(self.levels[level].mpp)))
        strip = max(factor, strip - strip % factor)
        rows = []
        for top in range(0, height, strip):
            origin = np.array([[0, math.ceil(top * self.levels[level].downsample[1])]])
            region = (width, min(strip, height - top))
            rows.append(shrink(self._read(origin, region, level, threads=2)[0], factor))
        return np.concatenate(rows)

    def _read(self, locations: np.ndarray, region: tuple[int, int], level: int, threads: int) -> np.ndarray:
        """Regions at ``level`` as uint8 [N, height, width, 3]."""
        points = [(int(x), int(y)) for x, y in locations]
        if not points:
            return np.empty((0, region[1], region[0], 3), np.uint8)
        try:
            if len(points) == 1:
                pixels = np.asarray(self._image.read_region(points[0], region, level))[None]
            else:
                batches = self._image.read_region(
                    points, region, level, num_workers=threads, batch_size=len(points), prefetch_factor=1
                )
                pixels = np.asarray(next(iter(batches)))
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"Slide {self.path} cannot be decoded at level {level} near {points[0]}: {error}."
            ) from error
        return self._whitened(pixels[..., :3], np.array(points), level)

    def _whitened(self, pixels: np.ndarray, points: np.ndarray, level: int) -> np.ndarray:
        """Regions [N, h, w, 3] with white beyond the slide, which cuCIM leaves black."""
        starts = np.floor(points / np.array(self.levels[level].downsample)).astype(np.int64)  # [N, 2], of that level
        ends = np.array(self.levels[level].dimensions) - starts  # [N, 2], where the slide ends inside each region
        beyond = (starts < 0) | (ends < pixels.shape[2:0:-1])
        for i in np.flatnonzero(beyond.any(axis=1)):
            (left, top), (right, bottom) = np.maximum(-starts[i], 0), np.maximum(ends[i], 0)
            pixels[i, :top] = pixels[i, bottom:] = 255
            pixels[i, :, :left] = pixels[i, :, right:] = 255
        return pixels

    def close(self) -> None:
        """Close the file. Reading afterwards fails."""
        self._image.close()

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _read_metadata(path: Path) -> tuple[dict[str, str], tuple[tuple[int, int], ...], tuple[float, ...]]:
    """OpenSlide's properties, level dimensions and level downsamples."""
    try:
        with openslide.OpenSlide(str(path)) as slide:
            return dict(slide.properties), slide.level_dimensions, slide.level_downsamples
    except openslide.OpenSlideUnsupportedFormatError as error:
        raise UserError(
            f"Slide {path} is not a whole-slide image that OpenSlide knows. Expected SVS, tiled TIFF or another "
            "vendor's format; check that the file is complete and that the table names the right one."
        ) from error
    except openslide.OpenSlideError as error:
        raise UserError(f"Slide {path} cannot be opened: {error}. The file may be damaged or cut off.") from error


def _resolution(path: Path, properties: dict[str, str], mpp: float | None) -> tuple[float, float]:
    """µm per level-0 pixel, x and y: the cohort's value if there is one, else the file's."""
    if mpp is not None:
        return mpp, mpp
    try:
        own = (float(properties["openslide.mpp-x"]), float(properties["openslide.mpp-y"]))
    except (KeyError, ValueError):
        own = (0.0, 0.0)
    if not all(math.isfinite(value) and value > 0 for value in own):
        raise UserError(
            f"Slide {path} does not say how many µm a pixel measures. Add a column mpp to the cohort table with the "
            "value for this slide (the scanner's manual or the vendor's viewer shows it; 40× is usually near 0.25, "
            "20× near 0.5)."
        )
    return own


def _round_mpp(value: float) -> float:
    """The usual resolution that a slide of ``value`` µm/px can serve, else the value itself to two digits."""
    for usual in (0.25, 0.5, 1.0, 2.0):
        if abs(value / usual - 1) <= MPP_TOLERANCE:
            return usual
    return math.ceil(value * 100) / 100
