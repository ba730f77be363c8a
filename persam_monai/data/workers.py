# SPDX-License-Identifier: Apache-2.0
"""Worker processes that can die in native code, and what they were doing then."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader, get_worker_info

from persam_monai.data.last_words import reading

_raise_deaths: Callable[[int, Any], Any] | None = None  # PyTorch's handler of SIGCHLD


class WorkerDied(Exception):
    """A worker process was ended by a signal.

    Attributes:
        item: what it was busy with, or ``None`` if that is not known.
    """

    def __init__(self, item: int | None, number: int) -> None:
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        cause = "the system may have run out of memory" if number == signal.SIGKILL else "a library for images crashed"
        super().__init__(f"the process that was reading was ended by {name}; {cause}.")
        self.item = item


class Busy:
    """What each worker process is busy with, readable after its death.

    Args:
        num_workers: of the data loader.
    """

    def __init__(self, num_workers: int) -> None:
        self._items = multiprocessing.RawArray("q", [-1] * max(1, num_workers))

    @contextmanager
    def with_item(self, item: int, name: str) -> Iterator[None]:
        """Note that this worker works on ``item`` (at least 0) until the block ends.

        In the calling process there is nobody to look: its last words name ``name``.
        """
        worker = get_worker_info()
        if worker is None:
            with reading(name):
                yield
            return
        self._items[worker.id] = item
        try:
            yield
        finally:
            self._items[worker.id] = -1

    def of(self, worker: int) -> int | None:
        """What a worker was last busy with; ``None``: with nothing."""
        item = int(self._items[worker])
        return None if item < 0 else item

    def forget(self, worker: int) -> None:
        """Let a dead worker's successor begin with nothing."""
        self._items[worker] = -1


def watch(loader: DataLoader[Any], busy: Busy) -> Iterator[Any]:
    """Go through a data loader.

    Args:
        loader: whose dataset notes in ``busy`` what it does.
        busy: of at least the loader's number of workers.

    Raises:
        WorkerDied: if a worker process is ended by a signal.
    """
    iterator = DataLoader.__iter__(loader)
    workers = getattr(iterator, "_workers", ())
    try:
        while True:
            try:
                with _told_of_deaths(bool(workers)):
                    item = next(iterator)
            except StopIteration:
                return
            yield item
    except RuntimeError as error:  # of PyTorch's, naming process numbers
        multiprocessing.connection.wait([process.sentinel for process in workers], timeout=1 if workers else 0)
        for number, process in enumerate(workers):
            if process.exitcode is not None and process.exitcode < 0:
                item = busy.of(number)
                busy.forget(number)
                raise WorkerDied(item, -process.exitcode) from error
        raise
    finally:
        if workers:  # at once: found by the garbage collector, PyTorch waits five seconds for every worker
            iterator._shutdown_workers()  # type: ignore[attr-defined]


@contextmanager
def _told_of_deaths(on: bool) -> Iterator[None]:
    """Let PyTorch raise a worker's death in this block only.

    Its handler of SIGCHLD raises wherever the main thread happens to be, which may be the middle of a training step.
    """
    if not on or threading.current_thread() is not threading.main_thread():
        yield
        return
    global _raise_deaths
    current = signal.getsignal(signal.SIGCHLD)
    if callable(current):  # PyTorch sets it once, with the first loader
        _raise_deaths = current
    if _raise_deaths is not None:
        signal.signal(signal.SIGCHLD, _raise_deaths)
    try:
        if _raise_deaths is not None:
            _raise_deaths(signal.SIGCHLD, None)  # what happened since the last time
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def threads_per_worker(num_workers: int) -> int:
    """Decoding threads for each of ``num_workers`` processes, so that every core has one and none has two."""
    return max(1, len(os.sched_getaffinity(0)) // max(1, num_workers))


def decoding_threads() -> int:
    """Decoding threads for this process: a data loader's worker, or one that reads by itself."""
    worker = get_worker_info()
    return threads_per_worker(0 if worker is None else worker.num_workers)


def as_it_is(item: Any) -> Any:
    """A data loader's ``collate_fn`` for what is a batch already; PyTorch's own would rebuild tuples as lists."""
    return item
