# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from persam_monai.cohort import Cohort
from persam_monai.slides import open_slide
from persam_monai.slides import slide as handles
from persam_monai.slides.header import read_header
from tests.slides.writing import write_slide

PLACE = np.array([[100, 100]])


@pytest.fixture(autouse=True)
def _own_cache() -> None:
    open_slide.cache_clear()


def test_a_slide_is_opened_once(cohort: Cohort) -> None:
    path = cohort.entries[0].path
    assert open_slide(read_header(path)) is open_slide(read_header(path))
    assert open_slide(read_header(path, 0.5)) is not open_slide(read_header(path))
    assert open_slide(read_header(path, 0.5)).mpp == (0.5, 0.5)


def _in_child(path: Path, pipe: Connection) -> None:
    open_slide.cache_clear()
    before = os.listdir("/proc/self/fd")
    slide = open_slide(read_header(path))
    pixels = slide.read_patches(PLACE, 32, 0.25)
    pipe.send((len(os.listdir("/proc/self/fd")) - len(before), pixels))
    slide.close()


def test_a_forked_process_opens_its_own_and_leaves_the_parents_alone(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles, "MAX_OPEN", 1)
    path = cohort.entries[0].path
    ours = open_slide(read_header(path))
    before = ours.read_patches(PLACE, 32, 0.25)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(path, sender))
    child.start()
    assert receiver.poll(30)
    opened, pixels = receiver.recv()
    child.join()
    assert child.exitcode == 0
    assert opened == 1
    np.testing.assert_array_equal(pixels, before)
    np.testing.assert_array_equal(ours.read_patches(PLACE, 32, 0.25), before)


def test_open_files_stay_bounded_however_many_slides_are_read(tmp_path: Path) -> None:
    paths = [
        write_slide(tmp_path / f"{i}.tif", [np.full((64, 64, 3), i, np.uint8)], "lzw", (64, 64)) for i in range(60)
    ]
    before = len(os.listdir("/proc/self/fd"))
    most = 0
    for _ in range(2):
        for i, path in enumerate(paths):
            assert (open_slide(read_header(path)).read_patches(np.array([[0, 0]]), 64, 0.25) == i).all()
            most = max(most, len(os.listdir("/proc/self/fd")) - before)
    assert most == handles.MAX_OPEN
    open_slide.cache_clear()
    assert len(os.listdir("/proc/self/fd")) == before
