# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from persam_monai.cohort import Cohort
from persam_monai.errors import UserError
from persam_monai.slides import handles, open_slide

PLACE = np.array([[100, 100]])


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handles, "_open", type(handles._open)())


def test_a_slide_is_opened_once(cohort: Cohort) -> None:
    path = cohort.entries[0].path
    assert open_slide(path) is open_slide(path)
    assert open_slide(path, 0.5) is not open_slide(path)
    assert open_slide(path, 0.5).mpp == (0.5, 0.5)


def test_the_slide_used_longest_ago_is_closed(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handles, "MAX_OPEN", 2)
    paths = [entry.path for entry in cohort]
    first, second = open_slide(paths[0]), open_slide(paths[1])
    open_slide(paths[0])
    open_slide(paths[2])
    assert first.read_patches(PLACE, 32, 0.25).shape == (1, 32, 32, 3)
    with pytest.raises(UserError):
        second.read_patches(PLACE, 32, 0.25)
    assert open_slide(paths[0]) is first
    assert open_slide(paths[1]).read_patches(PLACE, 32, 0.25).shape == (1, 32, 32, 3)


def _in_child(path: Path, pipe: Connection) -> None:
    slide = open_slide(path)
    others = [owner for owner, _, _ in handles._open]
    pipe.send((id(slide), slide.read_patches(PLACE, 32, 0.25), len(set(others))))


def test_a_forked_process_opens_its_own_and_leaves_the_parents_alone(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles, "MAX_OPEN", 1)
    path = cohort.entries[0].path
    ours = open_slide(path)
    before = ours.read_patches(PLACE, 32, 0.25)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(path, sender))
    child.start()
    assert receiver.poll(30)
    theirs, pixels, owners = receiver.recv()
    child.join()
    assert child.exitcode == 0
    assert theirs != id(ours)
    assert owners == 1
    np.testing.assert_array_equal(pixels, before)
    np.testing.assert_array_equal(ours.read_patches(PLACE, 32, 0.25), before)
