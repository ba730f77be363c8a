# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gc
import mmap
import multiprocessing
from typing import Any

import numpy as np
import pytest
import torch

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort
from persam_monai.data import BagDataset, BagLoader, PatchSettings, RandomBags, SlidePatches
from persam_monai.data.loader import SLOTS, Ring
from tests.data.making import Picture, cohort_of, write_slides

SMALL = PatchSettings(size=32)


def test_a_worker_takes_its_own_slots_until_none_is_free() -> None:
    ring = Ring(workers=2, slots=3, size=1000)
    assert [ring.take(1, 10) for _ in range(4)] == [3, 4, 5, None]
    assert [ring.take(0, 10) for _ in range(4)] == [0, 1, 2, None]
    ring.free(4)
    assert ring.take(0, 10) is None
    assert ring.take(1, 10) == 4


def test_what_does_not_fit_into_a_slot_takes_none() -> None:
    ring = Ring(1, 2, mmap.PAGESIZE + 1)
    assert ring.size == 2 * mmap.PAGESIZE
    assert ring.take(0, 2 * mmap.PAGESIZE + 1) is None
    assert ring.take(0, 2 * mmap.PAGESIZE) == 0


def test_slots_do_not_overlap_and_their_flags_are_apart() -> None:
    ring = Ring(3, 4, mmap.PAGESIZE)
    taken = [ring.take(worker, mmap.PAGESIZE) for worker in range(3) for _ in range(4)]
    for slot in range(12):
        ring.array(slot, (2, mmap.PAGESIZE // 2))[:] = slot + 2
    for slot in range(12):
        assert (ring.array(slot, (mmap.PAGESIZE,)) == slot + 2).all()
    assert taken == list(range(12))
    assert [ring.take(worker, 1) for worker in range(3)] == [None] * 3


def test_a_slot_is_given_back_when_nothing_refers_to_its_array() -> None:
    ring = Ring(1, 1, mmap.PAGESIZE)
    assert ring.take(0, mmap.PAGESIZE) == 0
    array = ring.received(0, (4, mmap.PAGESIZE // 4))
    array[:] = 7
    assert ring.take(0, mmap.PAGESIZE) is None
    del array
    assert ring.take(0, mmap.PAGESIZE) == 0


@pytest.mark.parametrize("kind", ["tensor", "row of the tensor", "array of the tensor", "row of the array"])
def test_a_view_keeps_its_slot(kind: str) -> None:
    ring = Ring(1, 1, mmap.PAGESIZE)
    ring.take(0, mmap.PAGESIZE)
    array = ring.received(0, (4, mmap.PAGESIZE // 4))
    array[:] = 7
    tensor = torch.from_numpy(array)
    view: Any = {
        "tensor": tensor,
        "row of the tensor": tensor.permute(1, 0)[3:5, 2:],
        "array of the tensor": tensor[1:].numpy()[1:],
        "row of the array": array[2:, 3:],
    }[kind]
    del tensor, array
    gc.collect()
    assert ring.take(0, mmap.PAGESIZE) is None, "it would be overwritten while it is in use"
    assert (view == 7).all()
    del view
    gc.collect()
    assert ring.take(0, mmap.PAGESIZE) == 0


def test_memory_outlives_its_ring_while_it_is_in_use() -> None:
    ring = Ring(1, 2, mmap.PAGESIZE)
    ring.take(0, mmap.PAGESIZE)
    array = ring.received(0, (mmap.PAGESIZE,))
    array[:] = 9
    del ring
    gc.collect()
    assert (array == 9).all()


def _write(ring: Ring, done: Any) -> None:
    slot = ring.take(1, mmap.PAGESIZE)
    assert slot is not None
    ring.array(slot, (mmap.PAGESIZE,))[:] = 42
    done.put(slot)


def test_another_process_writes_what_this_one_reads() -> None:
    context = multiprocessing.get_context("fork")
    ring = Ring(2, 2, mmap.PAGESIZE)
    assert ring.take(1, mmap.PAGESIZE) == 2
    done = context.Queue()
    process = context.Process(target=_write, args=(ring, done))
    process.start()
    slot = done.get(timeout=120)
    process.join(60)
    assert process.exitcode == 0
    assert slot == 3, "it saw that slot 2 is taken"
    assert ring.take(1, mmap.PAGESIZE) is None
    received = ring.received(slot, (mmap.PAGESIZE,))
    assert (received == 42).all()
    del received
    assert ring.take(1, mmap.PAGESIZE) == 3


def _forget(arrays: list[np.ndarray]) -> None:
    arrays.clear()
    gc.collect()


def test_a_forked_process_gives_back_nothing_of_its_parents() -> None:
    ring = Ring(1, 1, mmap.PAGESIZE)
    ring.take(0, mmap.PAGESIZE)
    arrays = [ring.received(0, (mmap.PAGESIZE,))]
    process = multiprocessing.get_context("fork").Process(target=_forget, args=(arrays,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert ring.take(0, mmap.PAGESIZE) is None
    arrays.clear()
    assert ring.take(0, mmap.PAGESIZE) == 0


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory, schema: ClinicalSchema, picture: Picture) -> Cohort:
    """Slides that give different numbers of bags."""
    folder = tmp_path_factory.mktemp("ring")
    sides = {"a.tif": 1024, "b.tif": 512, "c.tif": 1024, "d.tif": 256, "e.tif": 768}
    write_slides(folder, picture, sides)
    return cohort_of(folder, schema, list(sides))


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The slots in which batches arrived."""
    slots: list[int] = []
    received = Ring.received

    def note(ring: Ring, slot: int, shape: tuple[int, ...]) -> np.ndarray:
        slots.append(slot)
        return received(ring, slot, shape)

    monkeypatch.setattr(Ring, "received", note)
    return slots


def content(batch: dict[str, torch.Tensor]) -> dict[str, tuple[torch.dtype, torch.Size, bytes]]:
    assert batch["image"].permute(0, 2, 3, 4, 1).is_contiguous()
    return {name: (value.dtype, value.shape, value.contiguous().numpy().tobytes()) for name, value in batch.items()}


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("hold", [False, True])
def test_batches_from_the_ring_are_those_read_in_process_bit_for_bit(
    uneven: Cohort, taken: list[int], batch_size: int, hold: bool
) -> None:
    dataset = BagDataset(uneven, RandomBags(6, 30), SlidePatches(SMALL), augment=True).prepare()
    alone, helped = (BagLoader(dataset, batch_size, shuffle=True, num_workers=num_workers) for num_workers in (0, 1))
    held = []
    arrived = 0
    for epoch in range(4):
        for loader in (alone, helped):
            loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        wanted = [content(batch) for batch in alone]
        found = []
        for batch in helped:
            arrived += 1
            found.append(content(batch))
            if hold:
                held.append(batch)
            del batch
        assert found == wanted  # a reused slot, too, is zero where a bag is padded
    if hold:
        # Each epoch's ring has slots for so many; the rest came in memory of their own, the same to the last bit.
        if batch_size == 1:
            assert len(taken) == 4 * SLOTS < arrived
        assert len({tuple(image["image"].numpy().ravel()[:50]) for image in held}) > 1
    else:
        assert len(taken) == arrived
        assert len(set(taken)) <= SLOTS


def test_batches_that_are_held_are_not_overwritten(uneven: Cohort) -> None:
    dataset = BagDataset(uneven, RandomBags(4, 30), SlidePatches(SMALL)).prepare()
    loader = BagLoader(dataset, num_workers=2)
    held = []
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for batch in loader:
            held.append((batch, content(batch)))
    assert len(held) == 3 * len(dataset)
    assert all(content(batch) == before for batch, before in held)


def test_slots_are_used_again_once_their_batches_are_released(uneven: Cohort, taken: list[int]) -> None:
    dataset = BagDataset(uneven, RandomBags(1, 30), SlidePatches(SMALL)).prepare()
    loader = BagLoader(dataset, num_workers=1)
    held: list[Any] = []
    by_ring = []
    for number, batch in enumerate(loader):
        before = len(taken)
        if number < 15:
            held.append(batch)
        elif held:
            held.clear()
        by_ring.append(before)
        del batch
    # With 15 held, 4 came through the ring and 11 beside it; later ones came through it again.
    assert by_ring[14] == SLOTS
    assert by_ring[-1] >= SLOTS + len(loader) - 15 - 5
