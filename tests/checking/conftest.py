# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

import check_slides
from persam_monai.synthetic import write_pyramid

HALF_SIDE, HALF_TISSUE = 2048, 1100  # px at 1 µm/px; the tissue is on the left


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, list[str]]]:
    """Runs the script in this process; its exit status and the lines it prints."""

    def run(*words: object) -> tuple[int, list[str]]:
        typed = [str(word) for word in words]
        monkeypatch.setattr("sys.argv", ["check_slides.py", "--index_dir", "null", "--num_workers", "0", *typed])
        try:
            status = check_slides.main()
        except SystemExit as end:
            status = int(str(end.code))
        captured = capsys.readouterr()
        lines = (captured.out if status < 2 else captured.err).splitlines()
        return status, [line for line in lines if not line.startswith("  slide ")]  # the heading

    return run


@pytest.fixture(scope="session")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of which the left 1100 of 2048 columns are tissue."""
    image = np.full((HALF_SIDE, HALF_SIDE, 3), 243, np.uint8)
    grain = np.random.default_rng(0).normal(0, 8, (HALF_SIDE, HALF_TISSUE, 1))
    image[:, :HALF_TISSUE] = np.array([170, 90, 150]) + grain
    path = tmp_path_factory.mktemp("half") / "half.tif"
    write_pyramid(path, image, mpp=1.0)
    return path


@pytest.fixture
def garbled(tmp_path: Path, picture: Callable[..., np.ndarray]) -> Callable[..., Path]:
    """Writes slides of 4 × 4 tiles of which some cannot be decoded; the lower level is as it should be."""

    def write(*tiles: tuple[int, int]) -> Path:
        path = tmp_path / "garbled.tif"
        write_pyramid(path, picture(1024, 1024), mpp=0.25)
        with tifffile.TiffFile(path) as file:
            offsets, sizes = file.pages[0].dataoffsets, file.pages[0].databytecounts
        content = bytearray(path.read_bytes())
        for column, row in tiles:
            begin, size = offsets[4 * row + column], sizes[4 * row + column]
            content[begin : begin + size] = bytes(size)
        path.write_bytes(content)
        return path

    return write
