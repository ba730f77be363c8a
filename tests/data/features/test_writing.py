# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from persam_monai.data.features import Made, read_info, write_features
from persam_monai.errors import UserError
from tests.data.features.making import MADE, positions, values, write_ours


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_any_reader_of_hdf5_finds_what_was_written(tmp_path: Path, dtype: Any) -> None:
    features, coords = values(dtype=dtype), positions()
    write_features(tmp_path / "a/P1.h5", features, coords.astype(np.int32), MADE, (224.0, 230.5), "cd" * 32)
    with h5py.File(tmp_path / "a/P1.h5") as file:
        assert sorted(file) == ["coords", "features"]
        assert file["features"].dtype == dtype
        np.testing.assert_array_equal(file["features"][:], features)
        assert file["coords"].dtype == np.int64
        np.testing.assert_array_equal(file["coords"][:], coords)
    info = read_info(tmp_path / "a/P1.h5")
    assert (info.form, info.count, info.dim, info.dtype) == ("persam_monai", 12, 5, np.dtype(dtype).name)
    assert (info.made, info.extent, info.fingerprint) == (MADE, (224.0, 230.5), "cd" * 32)
    assert list((tmp_path / "a").iterdir()) == [tmp_path / "a/P1.h5"]


def test_what_is_not_known_stays_unknown(tmp_path: Path) -> None:
    write_features(tmp_path / "P1.h5", values(), positions(), Made())
    info = read_info(tmp_path / "P1.h5")
    assert (info.made, info.extent, info.fingerprint) == (Made(), None, None)


def test_what_made_a_file_is_the_same_after_reading(tmp_path: Path) -> None:
    made = Made("µ-net", None, 0.5, 256, {"mean": (0.1, 0.2), "backend": None, "deep": {"é": 1}}, "1")
    write_features(tmp_path / "P1.h5", values(), positions(), made)
    assert read_info(tmp_path / "P1.h5").made == made == Made.from_dict(made.to_dict())


@pytest.mark.parametrize(
    "wrong", [{"mpp": "0.5"}, {"patch_size": 2.5}, {"extractor": 3}, {"settings": []}, {"mpp": True}]
)
def test_what_cannot_have_made_a_file_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Made.from_dict(wrong)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write_ours(tmp_path / "1/P1.h5").read_bytes()
    time.sleep(1.1)  # dates in HDF5 count seconds
    assert write_ours(tmp_path / "2/P1.h5").read_bytes() == first
    assert write_ours(tmp_path / "3/P1.h5", seed=1).read_bytes() != first


def test_two_threads_write_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush, both_are_open = h5py.File.flush, threading.Barrier(2)

    def flush_together(file: h5py.File) -> None:
        both_are_open.wait(30)
        flush(file)

    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as threads:
        patch.setattr(h5py.File, "flush", flush_together)
        writing = [threads.submit(write_ours, tmp_path / f"together/{seed}.h5", seed=seed) for seed in (1, 2)]
        together = [one.exception() or one.result().read_bytes() for one in writing]
    assert together == [write_ours(tmp_path / f"alone/{seed}.h5", seed=seed).read_bytes() for seed in (1, 2)]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("dtype", "cure"), [(np.float16, "features_dtype float32"), (np.float32, "the extractor")])
def test_what_is_not_finite_is_not_written(tmp_path: Path, bad: float, dtype: Any, cure: str) -> None:
    features = values(700, 500, dtype)  # more than is looked at in one go
    features[[688, 690], 3] = bad
    with pytest.raises(UserError, match=rf"P1\.h5 is not written: row 688 .*{cure}"):
        write_features(tmp_path / "P1.h5", features, positions(700), MADE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("features", "coords", "expected"),
    [
        (values()[0], positions(), r"float32 \[5\]; expected float16 or float32 \[n, D\]"),
        (values(dtype=np.float64), positions(), "float64"),
        (values()[:0], positions(0), r"\[0, 5\]"),
        (values(), positions(11), r"\[11, 2\]; expected integers \[12, 2\]"),
        (values(), positions() / 2, "float64"),
    ],
)
def test_arrays_of_other_shapes_and_types_are_refused(
    tmp_path: Path, features: np.ndarray, coords: np.ndarray, expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        write_features(tmp_path / "P1.h5", features, coords, MADE)


def test_a_disk_without_room_leaves_the_old_file(tmp_path: Path) -> None:
    before = write_ours(tmp_path / "P1.h5").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # as good as a full disk
    try:
        with pytest.raises(UserError, match=r"P1\.h5 cannot be written: .*Choose a place .* that has room"):
            write_ours(tmp_path / "P1.h5", 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "P1.h5").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "P1.h5"]
