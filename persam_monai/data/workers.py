# SPDX-License-Identifier: Apache-2.0
"""Worker processes that can die in native code, and what they were doing then."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader, get_worker_info

from persam_monai.cohort import SlideEntry
from persam_monai.errors import UserError

# What a library does to a process when it crashes. Others come from outside, such as SIGKILL when memory runs out.
CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP}


class WorkerDied(Exception):
    """A worker process was ended by a signal, or by a library that called ``exit``.

    Args:
        item: what it was busy with, or ``None`` if that is not known.
        code: its exit code: a status, or the negative number of a signal.
    """

    def __init__(self, item: int | None, code: int) -> None:
        self.item = item
        self.crashed = code > 0 or -code in CRASHES
        names = {number.value: number.name for number in signal.Signals}
        how = f"ended with status {code}" if code > 0 else f"was ended by {names.get(-code, f'signal {-code}')}"
        if self.crashed:
            how += "; a library for images crashed"
        elif -code == signal.SIGKILL:
            how += "; the system may have run out of memory"
        super().__init__(f"the process that was reading {how}.")

    def blamed(self, entries: Sequence[SlideEntry], cure: str) -> tuple[int, UserError]:
        """The slide that may be the cause, and its problem.

        Args:
            entries: the slides; the item is the index of one.
            cure: what to do if no slide is to blame.
        """
        path = None if self.item is None else entries[self.item].path
        if self.item is None or not self.crashed:
            slide = "" if path is None else f" The slide was {path}."
            raise UserError(f"Slides can no longer be read: {self}{slide} {cure}") from self
        return self.item, UserError(f"Slide {path} cannot be read: {self}")


class Busy:
    """What each worker process is busy with, readable after its death."""

    def __init__(self, num_workers: int) -> None:
        self._items = multiprocessing.RawArray("q", [-1] * max(1, num_workers))

    @contextmanager
    def with_item(self, item: int) -> Iterator[None]:
        """Note that this worker works on ``item`` (at least 0) until the block ends."""
        worker = get_worker_info()
        number = 0 if worker is None else worker.id
        self._items[number] = item
        try:
            yield
        finally:
            self._items[number] = -1

    def take(self, worker: int) -> int | None:
        """What a dead worker was last busy with, ``None`` if with nothing; its successor begins with nothing."""
        item, self._items[worker] = int(self._items[worker]), -1
        return None if item < 0 else item


def watch(loader: DataLoader[Any], busy: Busy) -> Iterator[Any]:
    """Go through a data loader; PyTorch looks every five seconds whether all workers are alive.

    Raises:
        WorkerDied: if a worker process is ended by a signal, or ends itself while it is busy.
    """
    before = signal.getsignal(signal.SIGCHLD)
    iterator = DataLoader.__iter__(loader)
    if threading.current_thread() is threading.main_thread():
        # PyTorch's handler raises a worker's death wherever the main thread is, perhaps in the middle of a step.
        pytorchs = str(getattr(before, "__module__", "")).startswith("torch.")
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None or pytorchs else before)
    workers = getattr(iterator, "_workers", ())
    try:
        yield from iterator
    except RuntimeError as error:  # PyTorch's, naming process numbers
        for number, process in enumerate(workers):
            if process.exitcode:
                item = busy.take(number)
                if process.exitcode < 0 or item is not None:
                    raise WorkerDied(item, process.exitcode) from error
        raise
    finally:
        if workers:  # at once: left to the garbage collector, PyTorch waits five seconds for every worker
            iterator._shutdown_workers()  # type: ignore[attr-defined]


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
