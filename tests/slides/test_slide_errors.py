# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from persam_monai.errors import UserError
from persam_monai.slides import Slide, open_slide
from persam_monai.slides.header import read_header
from persam_monai.synthetic import write_pyramid
from tests.bundle.running import ROOT

WITHOUT_HOME = """
import sys
import persam_monai.data
from persam_monai.errors import UserError
from persam_monai.slides import Slide
Slide(sys.argv[1]).close()
assert "cucim" not in sys.modules
try:
    Slide(sys.argv[1], backend="cucim")
except UserError as error:
    print(error)
"""


def complaint(path: Path) -> str:
    """What is said about a file that is no slide, whoever should read it."""
    said = []
    for backend in ("auto", "tiles", "openslide", "cucim"):
        with pytest.raises(UserError) as caught:
            Slide(path, backend=backend)
        said.append(str(caught.value))
    assert str(path) in said[0]
    assert said == said[:1] * 4
    return said[0]


def test_a_slide_without_resolution_is_refused_with_the_cure(
    tmp_path: Path, picture: Callable[..., np.ndarray]
) -> None:
    path = tmp_path / "unknown.tif"
    write_pyramid(path, picture(300, 300), mpp=None)
    assert "column mpp" in complaint(path)
    with Slide(path, 0.25) as slide:
        assert slide.read_patches(np.array([[0, 0]]), 64, 0.25).shape == (1, 64, 64, 3)


@pytest.mark.parametrize("content", [b"a text", b"", bytes(5000), b"II\x2a\x00\xff\xff\xff\x7f", b"II\x2b\x00"])
@pytest.mark.parametrize("name", ["slide.svs", "slide.tif"])
def test_what_is_not_a_slide_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert "check that the file is complete" in complaint(path)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    assert "cannot be opened" in complaint(tmp_path / "nowhere.svs")
    assert "Is a directory" in complaint(tmp_path)


@pytest.mark.parametrize("kept", [0.001, 0.3, 0.9, 0.999])
def test_a_slide_that_is_cut_off_is_refused(tmp_path: Path, picture: Callable[..., np.ndarray], kept: float) -> None:
    path = tmp_path / "cut.tif"
    write_pyramid(path, picture(1024, 1024), mpp=0.25)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    assert "complete" in complaint(path) or "cut off" in complaint(path)


def test_a_photograph_is_refused(tmp_path: Path, picture: Callable[..., np.ndarray]) -> None:
    from PIL import Image

    path = tmp_path / "photo.jpg"
    Image.fromarray(picture(300, 300)).save(path)
    complaint(path)


def test_a_slide_that_cannot_be_opened_does_not_stay_in_the_cache(
    tmp_path: Path, picture: Callable[..., np.ndarray]
) -> None:
    path = tmp_path / "late.tif"
    with pytest.raises(UserError, match="cannot be opened"):
        open_slide(read_header(path))
    write_pyramid(path, picture(300, 300), mpp=0.25)
    assert open_slide(read_header(path)).dimensions == (300, 300)


def test_without_a_home_cucim_alone_is_an_error_that_names_the_cure(
    tmp_path: Path, picture: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "slide.tif"
    write_pyramid(path, picture(300, 300), mpp=0.25)
    monkeypatch.setenv("HOME", "/proc/none")
    monkeypatch.delenv("CUPY_CACHE_DIR", raising=False)
    command = [sys.executable, "-c", WITHOUT_HOME, str(path)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "--backend cucim" in said
    assert "CUPY_CACHE_DIR" in said
