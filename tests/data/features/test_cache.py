# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from persam_monai.data.feature_source import GB, FeatureCache, cache_for
from persam_monai.data.stored_features import StoredFeatures, open_features
from tests.data.features.making import positions, save, values, write_features_file, write_h5

CHOSEN = np.array([5, 0, 11, 4])
SIZE = 12 * (5 * 4 + 16)  # bytes of a file of 12 patches, 5 features each, in float32, with positions


def ours(folder: Path, count: int) -> list[StoredFeatures]:
    """Files as an extraction writes them."""
    return [open_features(write_features_file(folder / f"P{i}.h5", seed=i)) for i in range(count)]


def chunked(folder: Path, count: int) -> list[StoredFeatures]:
    """Files of chunks."""
    both = [{"features": values(seed=i), "coords": positions()} for i in range(count)]
    return [open_features(write_h5(folder / f"P{i}.h5", one, chunk=5)) for i, one in enumerate(both)]


def tensors(folder: Path, count: int) -> list[StoredFeatures]:
    """Files of torch."""
    paths = [save(folder / f"P{i}.pt", torch.from_numpy(values(seed=i))) for i in range(count)]
    return [open_features(path) for path in paths]


def names(cache: FeatureCache) -> list[str]:
    return [path.stem for path in cache.kept]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was read from disk: names of files, with a star where only rows were."""
    done: list[str] = []
    read = StoredFeatures.read

    def note(one: StoredFeatures, chosen: np.ndarray | None = None) -> Any:
        done.append(one.info.path.stem + ("" if chosen is None else "*"))
        return read(one, chosen)

    monkeypatch.setattr(StoredFeatures, "read", note)
    return done


@pytest.mark.parametrize("make", [ours, chunked, tensors])
@pytest.mark.parametrize("files", [0, 0.5, 1.5, 2.5, 9])
def test_rows_are_the_same_wherever_they_come_from(
    tmp_path: Path, make: Callable[[Path, int], list[StoredFeatures]], files: float
) -> None:
    stored, cache = make(tmp_path, 4), FeatureCache(int(files * SIZE))
    for i in (0, 0, 1, 2, 3, 0, 1, 1, 3):
        features, coords = cache.rows(stored[i], CHOSEN)
        np.testing.assert_array_equal(features, values(seed=i)[CHOSEN])
        np.testing.assert_array_equal(coords, positions()[CHOSEN] if make is not tensors else np.full((4, 2), -1))
        features[:] = coords[:] = 0  # the caller's own: what is kept does not change


@pytest.mark.parametrize("make", [ours, chunked, tensors])
def test_no_more_than_the_bound_is_kept(tmp_path: Path, make: Callable[[Path, int], list[StoredFeatures]]) -> None:
    stored, cache = make(tmp_path, 5), FeatureCache(int(2.9 * SIZE))
    for i in np.random.default_rng(0).integers(0, 5, 100):
        cache.rows(stored[i], CHOSEN)
        assert cache.nbytes <= cache.bound
        assert len(cache.kept) <= 2
    assert cache.nbytes >= SIZE


def test_what_is_kept_is_not_read_again(tmp_path: Path, reads: list[str]) -> None:
    stored, cache = ours(tmp_path, 2), FeatureCache(2 * SIZE)
    for i in (0, 1, 0, 1, 0):
        cache.rows(stored[i], CHOSEN)
    assert reads == ["P0", "P1"]
    assert cache.nbytes == 2 * SIZE


def test_beyond_the_bound_only_rows_are_read_and_nothing_goes(tmp_path: Path, reads: list[str]) -> None:
    stored, cache = ours(tmp_path, 3), FeatureCache(2 * SIZE)
    for i in (0, 1, 2, 2, 0):
        cache.rows(stored[i], CHOSEN)
    assert reads == ["P0", "P1", "P2*", "P2*"]
    assert names(cache) == ["P0", "P1"]


@pytest.mark.parametrize("make", [ours, tensors])
def test_a_bound_of_0_keeps_nothing(
    tmp_path: Path, reads: list[str], make: Callable[[Path, int], list[StoredFeatures]]
) -> None:
    (stored,), cache = make(tmp_path, 1), FeatureCache(0)
    for _ in range(2):
        cache.rows(stored, CHOSEN)
    assert reads == ["P0*", "P0*"]
    assert (cache.nbytes, cache.kept) == (0, {})


def test_a_file_that_was_made_anew_and_looked_into_again_is_read_again(tmp_path: Path) -> None:
    (stored,), cache = ours(tmp_path, 1), FeatureCache(9 * SIZE)
    cache.rows(stored, CHOSEN)
    path = write_features_file(stored.info.path, 20, seed=7)
    os.utime(path, ns=(1, 1))
    features, _ = cache.rows(open_features(path), np.array([19]))
    np.testing.assert_array_equal(features, values(20, seed=7)[19:])
    assert cache.nbytes == 20 * 36


def test_a_process_has_one_cache_for_a_folder_and_its_workers_share_the_bound(tmp_path: Path) -> None:
    cache = cache_for(str(tmp_path), 2)
    assert cache is cache_for(str(tmp_path), 2.0)
    assert cache is not cache_for(str(tmp_path / "other"), 2)
    assert cache.bound == 2 * GB
    (stored,) = ours(tmp_path, 1)
    cache.rows(stored, CHOSEN)

    class Look(Dataset[tuple[int, int]]):
        def __getitem__(self, i: int) -> tuple[int, int]:
            one = cache_for(str(tmp_path), 2)
            return one.bound, len(one.kept)

    loader = DataLoader(Look(), None, sampler=range(4), num_workers=2, multiprocessing_context=get_context("fork"))
    assert {tuple(one) for one in loader} == {(GB, 0)}
    assert names(cache) == ["P0"]
