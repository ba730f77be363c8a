# SPDX-License-Identifier: Apache-2.0
"""What measures so many µm on the slide measures so many µm in the patch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from persam_monai.slides import Slide
from tests.slides.writing import write_slide

PITCH = 12.0  # µm from line to line of the painted grid
SIDE = 448  # pixels of a patch


def grid(side: int, mpp: tuple[float, float], downsample: float = 1.0) -> np.ndarray:
    """Waves along x in red and along y in green, :data:`PITCH` µm long; a pixel is their mean over its area."""
    picture = np.full((side, side, 3), 128, np.uint8)
    for axis, channel in ((0, 0), (1, 1)):
        phase = np.arange(side + 1) * mpp[axis] * downsample / PITCH * 2 * np.pi
        mean = np.diff(np.sin(phase)) / np.diff(phase)
        wave = np.round(128 + 100 * mean).astype(np.uint8)
        picture[..., channel] = wave[None, :] if axis == 0 else wave[:, None]
    return picture


def pitch(patch: np.ndarray, axis: int) -> float:
    """Wavelength in pixels along x (0) or y (1): how fast the phase of the analytic signal turns."""
    signal = patch[..., axis].astype(float).mean(axis=axis)
    spectrum = np.fft.fft((signal - signal.mean()) * np.hanning(len(signal)))
    spectrum[len(signal) // 2 :] = 0
    phase = np.unwrap(np.angle(np.fft.ifft(spectrum)))
    middle = np.arange(len(signal) // 4, 3 * len(signal) // 4)
    slope: float = np.polyfit(middle, phase[middle], 1)[0]
    return 2 * np.pi / slope


@pytest.mark.parametrize(
    ("own", "asked"),
    [
        ((0.25, 0.25), 0.5),
        ((0.2456, 0.2456), 0.5),
        ((0.23, 0.23), 0.5),
        ((0.25, 0.25), 0.3),
        ((0.25, 0.25), 1.0),
        ((0.3, 0.25), 0.5),
        ((0.25, 0.3), 0.5),
        ((0.25, 0.5), 0.5),
        ((0.5, 0.25), 1.0),
    ],
)
def test_a_resampled_patch_has_the_resolution_asked_for(tmp_path: Path, own: tuple[float, float], asked: float) -> None:
    path = write_slide(tmp_path / "slide.tif", [grid(1900, own)], "uncompressed", mpp=own)
    with Slide(path) as slide:
        assert slide.mpp == pytest.approx(own, rel=1e-3)
        plan = slide.plan(SIDE, asked)
        assert plan.resample
        assert plan.region == tuple(int(np.ceil(SIDE * asked / value - 1e-6)) for value in slide.mpp)
        (patch,) = slide.read_patches(np.array([[40, 20]]), SIDE, asked)
    for axis in (0, 1):
        assert pitch(patch, axis) == pytest.approx(PITCH / asked, rel=0.005)


@pytest.mark.parametrize(("own", "asked"), [(0.25, 0.25), (0.2456, 0.25), (0.26, 0.25), (0.499, 0.5), (0.23, 0.25)])
def test_a_patch_that_is_read_as_it_is_keeps_the_slides_own_resolution(
    tmp_path: Path, own: float, asked: float
) -> None:
    path = write_slide(tmp_path / "slide.tif", [grid(800, (own, own))], "uncompressed", mpp=(own, own))
    with Slide(path) as slide:
        assert not slide.plan(SIDE, asked).resample
        (patch,) = slide.read_patches(np.array([[40, 20]]), SIDE, asked)
    for axis in (0, 1):
        assert pitch(patch, axis) == pytest.approx(PITCH / own, rel=0.005)
        assert pitch(patch, axis) == pytest.approx(PITCH / asked, rel=0.1)


@pytest.mark.parametrize(("own", "factor", "asked"), [(0.25, 2, 0.7), (0.25, 4, 2.0), (0.2456, 4, 1.25)])
def test_so_has_one_that_comes_from_a_lower_level(tmp_path: Path, own: float, factor: int, asked: float) -> None:
    side = 1600
    levels = [np.zeros((side * factor, side * factor, 3), np.uint8), grid(side, (own, own), factor)]
    path = write_slide(tmp_path / "slide.tif", levels, "deflate", mpp=(own, own))
    with Slide(path) as slide:
        plan = slide.plan(SIDE, asked)
        assert (plan.level, plan.resample) == (1, True)
        (patch,) = slide.read_patches(np.array([[300, 200]]), SIDE, asked)
    for axis in (0, 1):
        assert pitch(patch, axis) == pytest.approx(PITCH / asked, rel=0.005)


def test_a_patch_begins_where_it_was_asked_to(tmp_path: Path) -> None:
    """A bright square of 40 µm at a known place of the slide is at that place of the patch, in µm."""
    picture = np.zeros((1200, 1200, 3), np.uint8)
    picture[600:700, 500:600] = 255  # x 500..599, y 600..699; level-0 pixels of 0.4 × 0.4 µm
    path = write_slide(tmp_path / "slide.tif", [picture], "uncompressed", mpp=(0.4, 0.4))
    with Slide(path) as slide:
        (patch,) = slide.read_patches(np.array([[300, 500]]), 200, 1.0)  # 2.5 times coarser: 80..120 and 40..80 px
    wanted = np.zeros((200, 200, 3))
    wanted[40:80, 80:120] = 255
    np.testing.assert_array_equal(patch, wanted)
