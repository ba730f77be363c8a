# SPDX-License-Identifier: Apache-2.0
"""Files of features: what is written, what others have written, whole and by rows, and files that are broken."""

from __future__ import annotations

import pickle
import resource
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from persam_monai.data import Made, read_info, write_features
from persam_monai.data.stored_features import open_features
from persam_monai.errors import UserError
from tests.data.features.making import (
    MADE,
    positions,
    save,
    values,
    write_clam,
    write_features_file,
    write_h5,
    write_trident,
)

BOTH = {"features": values(), "coords": positions()}


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    return open_features(path).read()


def rows(path: Path, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    stored = pickle.loads(pickle.dumps(open_features(path)))
    arrays: tuple[np.ndarray, np.ndarray] = stored.read(chosen)
    return arrays


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


def test_what_made_a_file_is_the_same_after_reading(tmp_path: Path) -> None:
    made = Made("µ-net", None, 0.5, 256, {"mean": (0.1, 0.2), "backend": None, "deep": {"é": 1}}, "1")
    write_features(tmp_path / "P1.h5", values(), positions(), made)
    assert read_info(tmp_path / "P1.h5").made == made == Made.from_dict(made.to_dict())


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write_features_file(tmp_path / "1/P1.h5").read_bytes()
    time.sleep(1.1)  # dates in HDF5 count seconds
    assert write_features_file(tmp_path / "2/P1.h5").read_bytes() == first
    assert write_features_file(tmp_path / "3/P1.h5", seed=1).read_bytes() != first


def test_two_threads_write_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush, both_are_open = h5py.File.flush, threading.Barrier(2)

    def flush_together(file: h5py.File) -> None:
        both_are_open.wait(30)
        flush(file)

    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as threads:
        patch.setattr(h5py.File, "flush", flush_together)
        writing = [threads.submit(write_features_file, tmp_path / f"together/{seed}.h5", seed=seed) for seed in (1, 2)]
        together = [one.exception() or one.result().read_bytes() for one in writing]
    assert together == [write_features_file(tmp_path / f"alone/{seed}.h5", seed=seed).read_bytes() for seed in (1, 2)]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_what_is_not_finite_is_not_written(tmp_path: Path, bad: float, dtype: Any) -> None:
    features = values(70, 5, dtype)
    features[[68, 69], 3] = bad
    with pytest.raises(UserError, match=r"P1\.h5 .*row 68 .*--features_dtype float32"):
        write_features(tmp_path / "P1.h5", features, positions(70), MADE)
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
    before = write_features_file(tmp_path / "P1.h5").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # as good as a full disk
    try:
        with pytest.raises(UserError, match=r"P1\.h5 cannot be written"):
            write_features_file(tmp_path / "P1.h5", 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "P1.h5").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "P1.h5"]


@pytest.mark.parametrize("batch", [False, True], ids=["[n, D]", "[1, n, D]"])
def test_tridents_files_are_understood(tmp_path: Path, batch: bool) -> None:
    features = values(dtype=np.float16)
    path = write_trident(
        tmp_path / "20x_256px_0px_overlap/features_uni_v1/P1.h5", features[None] if batch else features
    )
    info = read_info(path)
    assert (info.form, info.count, info.dim, info.dtype) == ("trident", 12, 5, "float16")
    assert (info.made.extractor, info.made.mpp, info.made.patch_size) == ("uni_v1", 0.5, 256)
    assert info.extent == (512.0, 512.0)
    assert info.made.settings == {"overlap": 0, "target_magnification": 20, "level0_magnification": 40}  # no names
    found, coords = read(path)
    np.testing.assert_array_equal(found, features)
    np.testing.assert_array_equal(coords, positions())


@pytest.mark.parametrize(
    ("folder", "encoder", "extractor"),
    [
        ("features_conch_v15", None, "conch_v15"),  # early versions say it in the folder's name alone
        ("features_conch_v15", "None", "conch_v15"),
        ("features_mine", "uni_v1", "uni_v1"),
        ("mine", None, None),
    ],
)
def test_tridents_encoder_may_stand_in_the_folders_name(
    tmp_path: Path, folder: str, encoder: str | None, extractor: str | None
) -> None:
    assert read_info(write_trident(tmp_path / folder / "P1.h5", values(), encoder)).made.extractor == extractor


def test_clams_files_say_nothing_of_themselves(tmp_path: Path) -> None:
    features = values(40)
    write_clam(tmp_path, "P1", features)
    for path, form, coords in (
        (tmp_path / "h5_files/P1.h5", "clam", positions(40)),
        (tmp_path / "pt_files/P1.pt", "pt", np.full((40, 2), -1)),
    ):
        info = read_info(path)
        assert (info.form, info.count, info.dim, info.dtype) == (form, 40, 5, "float32")
        assert (info.made, info.extent, info.fingerprint) == (Made(), None, None)
        found, at = read(path)
        np.testing.assert_array_equal(found, features)
        np.testing.assert_array_equal(at, coords)
        assert at.dtype == np.int64


def test_tridents_files_of_clams_patches_do_not_say_their_resolution(tmp_path: Path) -> None:
    about: dict[str, dict[str, Any]] = {
        "coords": {"patch_size": 256, "patch_level": 1},
        "features": {"savetodir": "x", "encoder": "uni_v1"},
    }
    info = read_info(write_h5(tmp_path / "P1.h5", BOTH, about))
    assert (info.form, info.made.extractor, info.made.mpp, info.made.patch_size) == ("trident", "uni_v1", None, 256)


def test_files_by_nobody_known_are_read(tmp_path: Path) -> None:
    info = read_info(write_h5(tmp_path / "P1.h5", BOTH, {"features": {"note": "mine"}}, chunk=None))
    assert (info.form, info.made) == ("h5", Made())


@pytest.mark.parametrize(
    ("stored", "read_as"),
    [
        ("f2", np.float16),
        ("f4", np.float32),
        ("f8", np.float32),
        (">f4", np.float32),
    ],
)
@pytest.mark.parametrize("chunk", [None, 1, 32])
def test_rows_are_those_of_the_file_however_they_lie(
    tmp_path: Path, stored: str, read_as: type, chunk: int | None
) -> None:
    features = values(1500, 3).astype(stored)
    coords = positions(1500).astype(">i4")
    path = write_h5(tmp_path / "P1.h5", {"features": features, "coords": coords}, chunk=chunk)
    with h5py.File(path) as file:
        expected = file["features"][:].astype(read_as), file["coords"][:]
    generator = np.random.default_rng(0)
    everything = np.arange(1500)
    some, few, none = generator.choice(1500, 100, replace=False), np.array([7, 7, 6]), everything[:0]
    for chosen in (some, everything, everything[::-1], few, none):
        for found, whole in zip(rows(path, chosen), expected, strict=True):
            np.testing.assert_array_equal(found, whole[chosen])
    found, at = read(path)
    assert (found.dtype, at.dtype) == (read_as, np.int64)
    np.testing.assert_array_equal(found, expected[0])
    np.testing.assert_array_equal(at, expected[1])


def test_compressed_files_and_files_of_torch_are_read_by_rows_too(tmp_path: Path) -> None:
    paths = [
        write_h5(tmp_path / "compressed.h5", BOTH, compression="gzip"),
        write_h5(tmp_path / "block.h5", BOTH, chunk=None),
        save(tmp_path / "P1.pt", torch.from_numpy(values())),
    ]
    with h5py.File(paths[1], "w", userblock_size=512) as file:
        file.update(BOTH)
    chosen = np.array([7, 3, 3, 11])
    for path in paths:
        np.testing.assert_array_equal(read(path)[0], values())
        np.testing.assert_array_equal(rows(path, chosen)[0], values()[chosen])


@pytest.mark.parametrize(
    ("tensor", "dtype"),
    [
        (torch.from_numpy(values())[None], np.float32),
        (torch.from_numpy(values()).half(), np.float16),
        (torch.from_numpy(values()).bfloat16(), np.float32),
        (torch.from_numpy(values()).double(), np.float32),
        (torch.from_numpy(values()).T.contiguous().T, np.float32),
        (torch.from_numpy(values()).requires_grad_(), np.float32),
    ],
)
def test_tensors_are_read_as_float16_or_float32(tmp_path: Path, tensor: torch.Tensor, dtype: type) -> None:
    path = save(tmp_path / "P1.pt", tensor)
    info = read_info(path)
    assert (info.count, info.dim, info.dtype) == (12, 5, str(tensor.dtype).removeprefix("torch."))
    found, _ = read(path)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, tensor.detach().float().numpy().reshape(12, 5).astype(dtype))


def test_tensors_of_old_torch_are_read(tmp_path: Path) -> None:
    path = save(tmp_path / "P1.pt", torch.from_numpy(values()), _use_new_zipfile_serialization=False)
    assert read_info(path).count == 12
    np.testing.assert_array_equal(read(path)[0], values())


def unfinished(path: Path) -> None:
    whole = write_features_file(path, 500).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def partly(share: int) -> Callable[[Path], None]:
    """A file whose features were announced, and written in part."""

    def make(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file.create_dataset("features", (12, 5), "f4", chunks=(1, 5))[:share] = 1
            file["coords"] = positions()

    return make


def damaged(**attributes: Any) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        write_features_file(path)
        with h5py.File(path, "r+") as file:
            for name, value in attributes.items():
                del file.attrs[name]
                if value is not None:
                    file.attrs[name] = value

    return make


def h5(features: np.ndarray | None = None, coords: np.ndarray | None = None, **others: np.ndarray) -> Any:
    given = {"features": features, "coords": coords, **others}
    return lambda path: write_h5(path, {name: data for name, data in given.items() if data is not None}, chunk=None)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (lambda path: None, "No such file"),
    "folder": (Path.mkdir, "Make it anew"),
    "empty": (Path.touch, "Make it anew"),
    "cut": (unfinished, "truncated"),
    "announced": (partly(0), "0 of 240 bytes"),
    "partly": (partly(6), "120 of 240 bytes"),
    "text": (lambda path: path.write_text("slide,label\n"), "Make it anew"),
    "other names": (h5(feats=values(), coords=positions() / 2), r"coords, feats; .*features\.md"),
    "no positions": (h5(values()), r"features; .*coords \[n, 2\]"),
    "group": (h5(**{"features/a": values(), "coords": positions()}), "coords, features; expected"),
    "integers": (h5(values().astype(int), positions()), r"int64 \[12, 5\]"),
    "one vector": (h5(values()[0], positions(1)), r"\[5\]; expected .*\[n, D\]"),
    "two slides": (h5(np.stack([values()] * 2), positions()), r"\[2, 12, 5\]"),
    "no patch": (h5(values(0), positions(0)), r"\[0, 5\]"),
    "fewer positions": (h5(values(), positions(11)), r"\[11, 2\]; expected .*\[12, 2\]"),
    "µm": (h5(values(), positions() / 2), "coords are float64.*convert"),
    "three numbers": (h5(values(), np.zeros((12, 3), int)), r"coords .*\[12, 3\]"),
    "no maker": (damaged(made=None), "made"),
    "bad maker": (damaged(made="[]"), "attributes are damaged"),
    "later": (damaged(format_version=99), "format 99"),
    "no number": (lambda path: write_trident(path, values(), target_magnification="high"), "magnification is 'high'"),
}
BROKEN_PT: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (lambda path: None, "No such file"),
    "empty": (Path.touch, "Make it anew"),
    "cut": (lambda path: path.write_bytes(save(path, values()).read_bytes()[:-100]), "Make it anew"),
    "dictionary": (lambda path: save(path, {"features": torch.ones(2, 2)}), r"dict; expected .*\[n, D\]"),
    "numpy": (lambda path: save(path, values()), r"torch\.as_tensor"),
    "integers": (lambda path: save(path, torch.ones(2, 2, dtype=torch.int64)), "int64"),
    "sparse": (lambda path: save(path, torch.ones(2, 2).to_sparse()), "sparse"),
    "one vector": (lambda path: save(path, torch.ones(5)), r"\[5\]; expected .*\[n, D\]"),
    "no patch": (lambda path: save(path, torch.ones(0, 5)), r"\[0, 5\]"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named_with_what_is_wrong(tmp_path: Path, kind: str) -> None:
    make, wrong = BROKEN[kind]
    make(tmp_path / "P1.h5")
    with pytest.raises(UserError, match=rf"(?s)P1\.h5.*{wrong}"):
        read_info(tmp_path / "P1.h5")


@pytest.mark.parametrize("kind", BROKEN_PT)
def test_a_broken_file_of_torch_is_named_with_what_is_wrong(tmp_path: Path, kind: str) -> None:
    make, wrong = BROKEN_PT[kind]
    make(tmp_path / "P1.pt")
    with pytest.raises(UserError, match=rf"(?s)P1\.pt.*{wrong}"):
        read_info(tmp_path / "P1.pt")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_what_is_not_finite_is_found_on_reading_whole_and_by_rows(tmp_path: Path, bad: float, dtype: type) -> None:
    features = values(dtype=dtype)
    features[7, 2] = bad
    path = write_h5(tmp_path / "P1.h5", {"features": features, "coords": positions()})
    assert read_info(path).count == 12  # the values are not read
    with pytest.raises(UserError, match=r"P1\.h5: row 7 .*float32"):
        read(path)
    with pytest.raises(UserError, match=r"P1\.h5: row 7 "):
        rows(path, np.array([3, 7, 1]))
    np.testing.assert_array_equal(rows(path, np.array([3, 1]))[0], features[[3, 1]])


def test_a_number_too_large_for_float32_is_found(tmp_path: Path) -> None:
    features = values(dtype=np.float64)
    features[4, 0] = 1e300
    with pytest.raises(UserError, match=r"row 4 of the features"):
        read(write_h5(tmp_path / "P1.h5", {"features": features, "coords": positions()}))


def test_a_file_that_changed_or_ended_since_it_was_looked_into_is_not_read(tmp_path: Path) -> None:
    path = write_features_file(tmp_path / "P1.h5")
    stored = open_features(path)
    shutil.copy(write_features_file(tmp_path / "P2.h5", 10), path)
    for use in (stored.read, lambda: stored.read(np.array([1]))):
        with pytest.raises(UserError, match=r"P1\.h5 has changed"):
            use()
    path.unlink()
    with pytest.raises(UserError, match=r"P1\.h5 .*No such file"):
        stored.read()
