# SPDX-License-Identifier: Apache-2.0
"""Batches in a worker process and on their way out of it."""

from __future__ import annotations

import gc
import mmap
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from persam_monai.cohort import Cohort
from persam_monai.data import BadSlides, BagDataset, PatchSettings, RandomBags, SlidePatches
from persam_monai.data.batches import collate_bags
from persam_monai.data.dataset import BagKey
from persam_monai.data.loader import BagBatches, Parcel, Ring
from persam_monai.data.workers import Busy
from persam_monai.errors import UserError

Batch = dict[str, Any]
PATCHES = PatchSettings()


def assert_equal(ours: Batch, theirs: Batch) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype
        assert ours[name].shape == theirs[name].shape, name
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    assert ours["image"].permute(0, 2, 3, 4, 1).is_contiguous()


class FakeWorker:
    """What a data loader tells its worker."""

    id = 0


@pytest.fixture
def batches(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> BagBatches:
    """As in a worker process, with a ring of two slots."""
    dataset = BagDataset(
        cohort, RandomBags(6, 30, seed=5), SlidePatches(PATCHES), augment=True, seed=5, bad_slides=BadSlides("skip")
    ).prepare()
    made = BagBatches(dataset, Busy(1), threads=1)
    monkeypatch.setattr("persam_monai.data.loader.get_worker_info", FakeWorker)
    monkeypatch.setattr("persam_monai.data.workers.get_worker_info", FakeWorker)
    return made


KEYS = [BagKey(0, 1, 0), BagKey(2, 1, 0), BagKey(1, 1, 1)]


def test_pixels_travel_by_the_slots_number_alone(batches: BagBatches) -> None:
    ring = Ring(1, 2, 3 * 6 * 224 * 224 * 3)
    batches.ring = ring
    parcel = pickle.loads(pickle.dumps(batches.__getitems__(KEYS)))
    assert "image" not in parcel.arrays
    assert len(pickle.dumps(parcel)) < 3000
    batch = parcel.open()
    assert batch is not None
    assert parcel.open() is batch
    assert_equal(batch, collate_bags([batches.bags[key] for key in KEYS]))


def test_a_parcel_may_be_pinned_and_gives_its_slot_back(batches: BagBatches, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[torch.Tensor] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        assert tensor.is_contiguous(), "pinning would change the memory layout"
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    ring = Ring(1, 1, 3 * 6 * 224 * 224 * 3)
    batches.ring = ring
    parcel = batches.__getitems__(KEYS)
    assert parcel.slot is not None
    assert ring.take(0, 1) is None
    assert parcel.pin_memory() is parcel
    gc.collect()
    assert ring.take(0, 1) == 0, "the slot is free again"
    ring.array(0, (mmap.PAGESIZE,))[:] = 99
    batch = parcel.open()
    assert batch is not None
    assert_equal(batch, collate_bags([batches.bags[key] for key in KEYS]))
    storages = {tensor.data_ptr() for tensor in pinned}
    assert {value.data_ptr() for value in batch.values()} == storages, "every field is pinned"


def test_a_parcel_without_bags_may_be_pinned() -> None:
    parcel = Parcel({}, [(1, "damaged")])
    assert parcel.pin_memory().open() is None
    assert parcel.failures == [(1, "damaged")]


@pytest.mark.parametrize("ring", [True, False])
@pytest.mark.parametrize("bad", [0, 1, 2])
def test_what_can_be_read_of_a_batch_travels_with_what_is_wrong_with_the_rest(
    batches: BagBatches, monkeypatch: pytest.MonkeyPatch, bad: int, ring: bool
) -> None:
    memory = Ring(1, 1, 3 * 6 * 224 * 224 * 3)
    if ring:
        batches.ring = memory
    good = [batches.bags[key] for key in KEYS if key.slide != bad]
    read = batches.bags.read

    def broken(key: BagKey, *args: Any) -> dict[str, Any]:
        if key.slide == bad:
            raise UserError("damaged")
        return read(key, *args)

    monkeypatch.setattr(batches.bags, "read", broken)
    parcel = batches.__getitems__(KEYS)
    assert parcel.failures == [(bad, "damaged")]
    assert memory.take(0, 1) == 0, "the slot is free"
    batch = parcel.open()
    assert batch is not None
    assert_equal(batch, collate_bags(good))


def test_a_batch_is_as_long_as_the_longest_bag_that_could_be_read(
    batches: BagBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = batches.bags.read
    wanted = collate_bags([batches.bags[KEYS[1]]])

    def broken(key: BagKey, *args: Any) -> dict[str, Any]:
        if key.slide == 0:
            raise UserError("damaged")
        return read(key, *args)

    monkeypatch.setattr(batches.bags, "read", broken)
    batch = batches.__getitems__(KEYS[:2]).open()
    assert batch is not None
    assert batch["image"].shape[2] == 4
    assert_equal(batch, wanted)


def test_if_no_bag_can_be_read_there_is_no_batch(batches: BagBatches, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Ring(1, 1, 3 * 6 * 224 * 224 * 3)
    batches.ring = memory

    def broken(key: BagKey, *args: Any) -> dict[str, Any]:
        raise UserError(f"damaged {key.slide}")

    monkeypatch.setattr(batches.bags, "read", broken)
    parcel = batches.__getitems__(KEYS)
    assert parcel.open() is None
    assert parcel.failures == [(0, "damaged 0"), (2, "damaged 2"), (1, "damaged 1")]
    assert memory.take(0, 1) == 0


def test_slides_that_are_skipped_are_not_read(batches: BagBatches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches.bags, "skipped", {0, 1})
    wanted = collate_bags([batches.bags[KEYS[1]]])
    asked: list[BagKey] = []
    read = batches.bags.read

    def note(key: BagKey, *args: Any) -> dict[str, Any]:
        asked.append(key)
        return read(key, *args)

    monkeypatch.setattr(batches.bags, "read", note)
    batch = batches.__getitems__(KEYS).open()
    assert batch is not None
    assert_equal(batch, wanted)
    assert asked == [KEYS[1]]
    assert batches.__getitems__([KEYS[0], KEYS[2]]).open() is None


def test_padding_is_zero_in_memory_that_was_used_before(batches: BagBatches) -> None:
    ring = Ring(1, 1, 2 * 6 * 224 * 224 * 3)
    batches.ring = ring
    ring.array(0, (ring.size,))[:] = 255
    batch = batches.__getitems__(KEYS[:2]).open()
    assert batch is not None
    assert_equal(batch, collate_bags([batches.bags[key] for key in KEYS[:2]]))
    assert not batch["image"][1, :, 4:].any()
