# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from persam_monai.data.features import Made, read_info
from persam_monai.data.features.head import read_head
from persam_monai.data.features.stored import StoredFeatures
from persam_monai.errors import UserError
from tests.data.features.making import positions, save, values, write_clam, write_h5, write_ours, write_trident

BOTH = {"features": values(), "coords": positions()}


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    return StoredFeatures(read_head(path)).read()


def rows(path: Path, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    stored = pickle.loads(pickle.dumps(StoredFeatures(read_head(path))))
    assert stored.by_rows
    found: tuple[np.ndarray, np.ndarray] = stored.read_rows(chosen, stored.chunks())
    return found


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


def test_what_cannot_be_read_by_rows_is_read_whole(tmp_path: Path) -> None:
    paths = [
        write_h5(tmp_path / "compressed.h5", BOTH, compression="gzip"),
        write_h5(tmp_path / "block.h5", BOTH, chunk=None),
        save(tmp_path / "P1.pt", torch.from_numpy(values())),
    ]
    with h5py.File(paths[1], "w", userblock_size=512) as file:
        file.update(BOTH)
    for path in paths:
        assert not StoredFeatures(read_head(path)).by_rows
        np.testing.assert_array_equal(read(path)[0], values())


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
    whole = write_ours(path, 500).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def announced(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (12, 5), "f4")
        file["coords"] = positions()


def partly(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (12, 5), "f4", chunks=(1, 5))[:6] = 1
        file["coords"] = positions()


def damaged(**attributes: Any) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        write_ours(path)
        with h5py.File(path, "r+") as file:
            for name, value in attributes.items():
                del file.attrs[name]
                if value is not None:
                    file.attrs[name] = value

    return make


def h5(features: np.ndarray | None = None, coords: np.ndarray | None = None, **others: np.ndarray) -> Any:
    given = {"features": features, "coords": coords, **others}
    return lambda path: write_h5(path, {name: one for name, one in given.items() if one is not None}, chunk=None)


def trident(**coords: Any) -> Any:
    return lambda path: write_trident(path, values(), **coords)


BROKEN: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "absent": (lambda path: None, "does not exist", "--features_dir"),
    "folder": (Path.mkdir, "is a folder", "Move it away"),
    "empty": (Path.touch, r"is empty \(0 bytes\)", "Make it anew"),
    "cut": (unfinished, r"is unfinished or damaged \(.*truncated", "Make it anew"),
    "announced": (announced, "features are unfinished: 0 of 240 bytes", "Make it anew"),
    "partly": (partly, "features are unfinished: 120 of 240 bytes", "Make it anew"),
    "text": (
        lambda path: path.write_text("slide,label\n"),
        r"no HDF5 file \(it begins with b'slide,la'\)",
        "Make it anew",
    ),
    "torch": (lambda path: save(path, values()), "no HDF5 file", 'ending ".pt"'),
    "other names": (
        h5(others=values(), x=values()),
        "holds others, x; expected the datasets features",
        "write_features",
    ),
    "no positions": (h5(values()), r"holds features; .*coords \[n, 2\]", "write_features"),
    "patches": (h5(coords=positions()), "lists patches and has no features", "--features_dir"),
    "STAMP": (h5(feats=values(), coords=positions() / 2), "holds coords, feats; .*STAMP", "how to convert"),
    "group": (h5(**{"features/a": values(), "coords": positions()}), "holds coords, features; expected", "anew"),
    "integers": (h5(values().astype(int), positions()), "features are int64; expected one of float16", "Make it anew"),
    "one vector": (h5(values()[0], positions(1)), r"one vector \[5\]", r"expected those of its patches, \[n, D\]"),
    "four axes": (h5(values()[None, None], positions()), r"shape \[1, 1, 12, 5\]; expected \[n, D\]", "Make it anew"),
    "two slides": (h5(np.stack([values()] * 2), positions()), r"shape \[2, 12, 5\]", "Make it anew"),
    "no patch": (h5(values(0), positions(0)), r"shape \[0, 5\]: there is no patch", "row out of the table"),
    "no feature": (h5(values(12, 0), positions()), r"shape \[12, 0\]", "anew"),
    "fewer positions": (h5(values(), positions(11)), "features of 12 patches and coords of 11", "Make it anew"),
    "µm": (h5(values(), positions() / 2), "coords are float64; expected whole level-0 pixels", "how to convert"),
    "three numbers": (h5(values(), np.zeros((12, 3), int)), r"coords have the shape \[12, 3\]", "Make it anew"),
    "no maker": (damaged(made=None), r"'made'.* is missing", "Make it anew"),
    "bad maker": (damaged(made="{"), "says of itself is damaged", "Make it anew"),
    "odd maker": (damaged(made="[]"), r"damaged \(made is \[\]\)", "Make it anew"),
    "wrong maker": (damaged(made='{"mpp": "fine"}'), "mpp is 'fine'", "Make it anew"),
    "later": (damaged(format_version=99), "later version of persam_monai", "Install that version"),
    "no number": (trident(target_magnification="high"), "target_magnification is 'high'; expected a number", "anew"),
    "no size": (trident(patch_size=-1), "patch_size is .*-1.*; expected a number above 0", "anew"),
    "half a pixel": (trident(patch_size=10.5), "patch_size is 10.5; expected a whole number", "anew"),
}
BROKEN_PT: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "absent": (lambda path: None, "does not exist", "--features_dir"),
    "folder": (Path.mkdir, "is a folder", "Move it away"),
    "empty": (Path.touch, r"is empty \(0 bytes\)", "Make it anew"),
    "text": (lambda path: path.write_text("slide,label\n"), "cannot be read as a file of tensors", "torch.save"),
    "HDF5": (lambda path: write_h5(path, BOTH), "is an HDF5 file, no file of torch", 'ending ".h5"'),
    "dictionary": (
        lambda path: save(path, {"features": torch.ones(2, 2), **{str(i): 0 for i in range(9)}}),
        r"dictionary with the keys features, 0, 1, 2, 3 …; expected one tensor \[n, D\]",
        r"torch\.save\(content\[key\], path\)",
    ),
    "list": (lambda path: save(path, [1.0]), "holds a list; expected one tensor", "Make it anew"),
    "numpy": (lambda path: save(path, values()), "cannot be read as a file of tensors", r"torch\.as_tensor"),
    "integers": (lambda path: save(path, torch.ones(2, 2, dtype=torch.int64)), "tensor of int64", "Make it anew"),
    "sparse": (lambda path: save(path, torch.ones(2, 2).to_sparse()), "sparse", "Make it anew"),
    "one vector": (lambda path: save(path, torch.ones(5)), r"of the shape \[5\]", r"\[n, D\]"),
    "no patch": (lambda path: save(path, torch.ones(0, 5)), "there is no patch", "row out of the table"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named_with_what_is_wrong_and_a_cure(tmp_path: Path, kind: str) -> None:
    make, found, cure = BROKEN[kind]
    make(tmp_path / "P1.h5")
    with pytest.raises(UserError, match=rf"(?s)P1\.h5.*{found}.*{cure}"):
        read_info(tmp_path / "P1.h5")


@pytest.mark.parametrize("kind", BROKEN_PT)
def test_a_broken_file_of_torch_is_named_with_what_is_wrong_and_a_cure(tmp_path: Path, kind: str) -> None:
    make, found, cure = BROKEN_PT[kind]
    make(tmp_path / "P1.pt")
    with pytest.raises(UserError, match=rf"(?s)P1\.pt.*{found}.*{cure}"):
        read_info(tmp_path / "P1.pt")


def test_a_torch_file_that_ends_early_is_named(tmp_path: Path) -> None:
    whole = save(tmp_path / "P1.pt", torch.ones(500, 5)).read_bytes()
    for share in (0.1, 0.5, 0.99):
        (tmp_path / "P1.pt").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(UserError, match=r"P1\.pt .*unfinished or damaged"):
            read_info(tmp_path / "P1.pt")


@pytest.mark.parametrize("name", ["P1.h5", "P1.pt"])
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ours(tmp_path / name)

    def refuse(*args: object, **settings: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("h5py.File", refuse)
    monkeypatch.setattr("torch.load", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=rf"{name} may not be read by you.*chmod"):
        read_info(tmp_path / name)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_what_is_not_finite_is_found_on_reading_whole_and_by_rows(tmp_path: Path, bad: float, dtype: type) -> None:
    features = values(dtype=dtype)
    features[7, 2] = bad
    path = write_h5(tmp_path / "P1.h5", {"features": features, "coords": positions()})
    assert read_info(path).count == 12  # to look is not to read
    with pytest.raises(UserError, match=r"P1\.h5: row 7 of the features holds NaN or infinity.*float32"):
        read(path)
    with pytest.raises(UserError, match=r"P1\.h5: row 7 "):
        rows(path, np.array([3, 7, 1]))
    np.testing.assert_array_equal(rows(path, np.array([3, 1]))[0], features[[3, 1]])


def test_a_number_too_large_for_float32_is_found(tmp_path: Path) -> None:
    features = values(dtype=np.float64)
    features[4, 0] = 1e300
    with pytest.raises(UserError, match=r"row 4 of the features"):
        read(write_h5(tmp_path / "P1.h5", {"features": features, "coords": positions()}))


def test_a_file_that_changed_since_it_was_looked_into_is_not_read(tmp_path: Path) -> None:
    path = write_ours(tmp_path / "P1.h5")
    stored = StoredFeatures(read_head(path))
    shutil.copy(write_ours(tmp_path / "P2.h5", 10), path)
    for use in (stored.read, lambda: stored.read_rows(np.array([1]), (None, None))):
        with pytest.raises(UserError, match=r"P1\.h5 has changed since .*Start the run anew"):
            use()
    path.unlink()
    with pytest.raises(UserError, match=r"P1\.h5 does not exist"):
        stored.read()
