# SPDX-License-Identifier: Apache-2.0
"""A slide is used by threads, forked children and processes of its own, and leaves no file open."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from persam_monai.errors import UserError
from persam_monai.slides import Slide
from persam_monai.slides.header import read_header
from tests.bundle.running import ROOT
from tests.slides.writing import cut, decoded_levels, noise, write_slide

READERS = ("tiles", "cucim", "openslide")
SIDE = 100
PLACES = np.random.default_rng(0).integers(0, 500, (48, 2))
ELSEWHERE = """
import pickle, sys
import numpy as np
slide, places = pickle.load(sys.stdin.buffer)
np.save(sys.stdout.buffer, slide.read_patches(places, 100, 0.25))
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    levels = [noise(601, 603), noise(150, 150)]
    return write_slide(tmp_path_factory.mktemp("sharing") / "slide.tif", levels, "jpeg 420 shared tables", (128, 112))


@pytest.fixture(scope="module")
def wanted(path: Path) -> np.ndarray:
    level = decoded_levels(path)[0]
    return np.stack([cut(level, x, y, SIDE, SIDE) for x, y in PLACES.tolist()])


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("reader", READERS)
def test_a_pickled_slide_is_opened_anew(path: Path, wanted: np.ndarray, reader: str) -> None:
    with Slide(path, mpp=0.25, backend=reader) as slide:
        content = pickle.dumps(slide)
        with pickle.loads(content) as again:
            assert again.header == slide.header
            assert again._backend is not slide._backend
            np.testing.assert_array_equal(again.read_patches(PLACES, SIDE, 0.25), wanted)
        np.testing.assert_array_equal(slide.read_patches(PLACES, SIDE, 0.25), wanted)  # closing one closes no other
    with pickle.loads(content) as again:
        np.testing.assert_array_equal(again.read_patches(PLACES, SIDE, 0.25), wanted)
    assert len(content) < 5000


@pytest.mark.parametrize("reader", READERS)
def test_another_process_reads_the_slide_that_it_is_sent(path: Path, wanted: np.ndarray, reader: str) -> None:
    with Slide(path, backend=reader) as slide:
        content = pickle.dumps((slide, PLACES))
    command = [sys.executable, "-c", ELSEWHERE]
    done = subprocess.run(command, cwd=ROOT, input=content, capture_output=True, timeout=60, check=True)
    found = np.frombuffer(done.stdout[-wanted.nbytes :], np.uint8).reshape(wanted.shape)  # the array's bytes come last
    np.testing.assert_array_equal(found, wanted)


def test_a_pickled_slide_that_is_gone_is_named(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "gone.tif", [noise(300, 300)])
    with Slide(path) as slide:
        content = pickle.dumps(slide)
    path.unlink()
    with pytest.raises(UserError, match=r"gone\.tif cannot be opened"):
        pickle.loads(content)


@pytest.mark.parametrize("reader", READERS)
def test_parent_and_forked_children_read_at_the_same_time(path: Path, wanted: np.ndarray, reader: str) -> None:
    def read_often(times: int) -> bool:
        return all((slide.read_patches(PLACES, SIDE, 0.25) == wanted).all() for _ in range(times))

    with Slide(path, backend=reader) as slide:
        assert read_often(1)  # the file is open, its position somewhere
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=lambda: sys.exit(0 if read_often(3) else 7)) for _ in range(2)]
        for child in children:
            child.start()
        try:
            assert read_often(3)
            for child in children:
                child.join(60)
            assert [child.exitcode for child in children] == [0, 0]
        finally:
            for child in children:
                child.kill()
        assert read_often(1)


@pytest.mark.parametrize("reader", READERS)
def test_a_child_that_closes_the_slide_leaves_the_parents_open(path: Path, wanted: np.ndarray, reader: str) -> None:
    with Slide(path, backend=reader) as slide:
        slide.read_patches(PLACES, SIDE, 0.25)
        child = multiprocessing.get_context("fork").Process(target=slide.close)
        child.start()
        child.join(60)
        assert child.exitcode == 0
        np.testing.assert_array_equal(slide.read_patches(PLACES, SIDE, 0.25), wanted)


@pytest.mark.parametrize("reader", READERS)
def test_several_threads_read_one_slide(path: Path, wanted: np.ndarray, reader: str) -> None:
    with Slide(path, backend=reader) as slide, ThreadPoolExecutor(4) as pool:
        orders = [np.random.default_rng(seed).permutation(len(PLACES)) for seed in range(12)]
        found = pool.map(lambda order: slide.read_patches(PLACES[order], SIDE, 0.25), orders)
        for order, patches in zip(orders, found, strict=True):
            np.testing.assert_array_equal(patches, wanted[order])


def test_several_threads_read_slides_of_different_tiles(tmp_path: Path) -> None:
    """Each thread decodes into memory of its own, which fits the tiles it reads next."""
    slides = []
    for i, (form, tile) in enumerate([("jpeg 420", (64, 64)), ("lzw", (128, 112)), ("jpeg rgb", (256, 256))]):
        picture = write_slide(tmp_path / f"{i}.tif", [noise(601, 603, i)], form, tile)
        slides.append((Slide(picture, backend="tiles"), decoded_levels(picture)[0]))

    def right(i: int) -> bool:
        slide, level = slides[i % 3]
        patches = slide.read_patches(PLACES[i : i + 2], SIDE, 0.25)
        return all(
            (patch == cut(level, x, y, SIDE, SIDE)).all()
            for patch, (x, y) in zip(patches, PLACES[i : i + 2].tolist(), strict=True)
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(right, list(range(46)) * 4))
    for slide, _ in slides:
        slide.close()


@pytest.mark.parametrize("reader", READERS)
def test_many_threads_open_slides_at_once(path: Path, wanted: np.ndarray, reader: str) -> None:
    header = read_header(path, backend=reader)

    def read(_: int) -> np.ndarray:
        with Slide(path, header=header) as slide:
            return slide.read_patches(PLACES[:4], SIDE, 0.25)

    with ThreadPoolExecutor(8) as pool:
        for patches in pool.map(read, range(40)):
            np.testing.assert_array_equal(patches, wanted[:4])


@pytest.mark.parametrize("reader", READERS)
def test_closing_leaves_no_file_open(path: Path, reader: str) -> None:
    header = read_header(path, backend=reader)
    with Slide(path, header=header) as slide:  # what a library keeps open for good is opened here
        slide.read_patches(PLACES, SIDE, 0.25, threads=2)
    before = open_files()
    for _ in range(100):
        with Slide(path, header=header) as slide:
            slide.read_patches(PLACES[:2], SIDE, 0.25)
    assert open_files() == before


def test_looking_into_a_slide_leaves_no_file_open(path: Path, tmp_path: Path) -> None:
    (tmp_path / "text.svs").write_text("no slide")
    before = open_files()
    for _ in range(30):
        read_header(path)
        with pytest.raises(UserError):
            read_header(tmp_path / "text.svs")
    assert open_files() == before


def test_when_a_thread_fails_the_others_have_ended_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they write into belongs to somebody else afterwards."""
    ended = []

    def read(self: Slide, plan: object, threads: int, starts: np.ndarray, out: np.ndarray) -> None:
        if starts[0, 0] == 0:
            raise UserError("damaged")
        time.sleep(0.3)
        ended.append(True)

    monkeypatch.setattr(Slide, "_read", read)
    with Slide(path) as slide, pytest.raises(UserError, match="damaged"):
        slide.read_patches(np.arange(6)[:, None] * [1, 0], 32, 0.25, threads=3)
    assert ended == [True, True]
