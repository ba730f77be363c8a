# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import multiprocessing
import os
import signal
import time
from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset

from persam_monai.data.workers import Busy, WorkerDied, as_it_is, threads_per_worker, watch


class Jobs(Dataset[int]):
    """Numbers, of which one ends or breaks the process."""

    def __init__(self, busy: Busy, fatal: int = -1, number: int = signal.SIGSEGV, within: bool = True) -> None:
        self.busy = busy
        self.fatal = fatal
        self.number = number
        self.within = within

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> int:
        with self.busy.with_item(100 + i):
            if i == self.fatal and self.within:
                self.end()
        if i == self.fatal:
            self.end()
        return i

    def end(self) -> None:
        if self.number < 0:
            raise RuntimeError("a library's own")
        time.sleep(0.1)  # until the parent waits for this one
        os.kill(os.getpid(), self.number)


def loader(num_workers: int, **settings: Any) -> tuple[DataLoader[int], Busy]:
    busy = Busy(num_workers)
    return DataLoader(Jobs(busy, **settings), None, num_workers=num_workers, collate_fn=as_it_is), busy


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_without_a_death_everything_comes_in_order(num_workers: int) -> None:
    assert list(watch(*loader(num_workers))) == list(range(8))


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_dead_workers_last_item_is_known(num_workers: int, number: int) -> None:
    found: list[int] = []
    with pytest.raises(WorkerDied, match=signal.Signals(number).name) as caught:
        found.extend(watch(*loader(num_workers, fatal=5, number=number)))
    assert found == list(range(len(found)))
    assert len(found) <= 5
    assert caught.value.item == 105
    assert ("memory" in str(caught.value)) == (number == signal.SIGKILL)
    assert ("crashed" in str(caught.value)) == (number != signal.SIGKILL)


def test_the_successor_of_a_dead_worker_begins_with_nothing() -> None:
    numbers, busy = loader(1, fatal=2)
    with pytest.raises(WorkerDied):
        list(watch(numbers, busy))
    assert busy.take(0) is None


def test_a_worker_that_dies_between_two_items_was_busy_with_none() -> None:
    with pytest.raises(WorkerDied) as caught:
        list(watch(*loader(1, fatal=3, within=False)))
    assert caught.value.item is None


def test_a_signal_without_a_name_is_named_by_its_number() -> None:
    assert "signal 99" in str(WorkerDied(1, -99))


def test_a_library_that_ends_the_process_itself_is_named_by_its_status() -> None:
    class Leaving(Jobs):
        def end(self) -> None:
            os._exit(3)

    busy = Busy(1)
    numbers = DataLoader(Leaving(busy, fatal=2), None, num_workers=1, collate_fn=as_it_is)
    with pytest.raises(WorkerDied, match="status 3") as caught:
        list(watch(numbers, busy))
    assert (caught.value.item, caught.value.crashed) == (102, True)


def test_workers_end_with_the_last_item_and_a_handler_of_others_stays() -> None:
    before = signal.signal(signal.SIGCHLD, ours := lambda number, frame: None)
    try:
        assert len(list(watch(*loader(2)))) == 8
        assert multiprocessing.active_children() == []
        assert signal.getsignal(signal.SIGCHLD) is ours
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_death_is_raised_between_the_items_and_never_in_the_middle_of_a_step() -> None:
    items = watch(*loader(1, fatal=2))
    assert next(items) == 0
    time.sleep(1)  # the training's step, in which the worker dies
    assert not str(getattr(signal.getsignal(signal.SIGCHLD), "__module__", "")).startswith("torch.")
    with pytest.raises(WorkerDied, match="SIGSEGV"):
        list(items)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_errors_of_living_workers_are_handed_on(num_workers: int) -> None:
    with pytest.raises(RuntimeError, match="a library's own"):
        list(watch(*loader(num_workers, fatal=2, number=-1)))


def test_an_error_ends_what_a_worker_is_busy_with() -> None:
    numbers, busy = loader(1, fatal=2, number=-1)
    with pytest.raises(RuntimeError, match="a library's own"):
        list(watch(numbers, busy))
    assert busy.take(0) is None


@pytest.mark.parametrize(
    ("cores", "workers", "threads"), [(16, 0, 16), (16, 1, 16), (16, 3, 5), (16, 16, 1), (2, 9, 1)]
)
def test_every_core_has_a_thread_and_none_has_two(
    monkeypatch: pytest.MonkeyPatch, cores: int, workers: int, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    assert threads_per_worker(workers) == threads
