# SPDX-License-Identifier: Apache-2.0
"""Worker processes that can die in native code, and what they were doing then."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch._C import _error_if_any_worker_fails
from torch.utils.data import DataLoader, get_worker_info

END = object()  # of a data loader
# What a library does to a process when it crashes. Others come from outside, such as SIGKILL when memory runs out.
CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP}


class WorkerDied(Exception):
    """A worker process was ended by a signal, or by a library that called ``exit``.

    Args:
        item: what it was busy with, or ``None`` if that is not known.
        code: its exit code: a status, or the negative number of a signal.

    Attributes:
        item: as above.
        its_fault: whether that item may be the cause.
    """

    def __init__(self, item: int | None, code: int) -> None:
        crashed = code > 0 or -code in CRASHES
        names = {number.value: number.name for number in signal.Signals}
        how = f"ended with status {code}" if code > 0 else f"was ended by {names.get(-code, f'signal {-code}')}"
        if crashed:
            how += "; a library for images crashed"
        elif -code == signal.SIGKILL:
            how += "; the system may have run out of memory"
        super().__init__(f"the process that was reading {how}.")
        self.item = item
        self.its_fault = item is not None and crashed


class Busy:
    """What each worker process is busy with, readable after its death.

    Args:
        num_workers: of the data loader.
    """

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

    def of(self, worker: int) -> int | None:
        """What a worker was last busy with; ``None``: with nothing."""
        item = int(self._items[worker])
        return None if item < 0 else item

    def forget(self, worker: int) -> None:
        """Let a dead worker's successor begin with nothing."""
        self._items[worker] = -1


def watch(loader: DataLoader[Any], busy: Busy, expected: int) -> Iterator[Any]:
    """Go through a data loader. Its workers have ended when the last item comes.

    Args:
        loader: whose dataset notes in ``busy`` what it does.
        busy: of at least the loader's number of workers.
        expected: items that will come.

    Raises:
        WorkerDied: if a worker process is ended by a signal, or ends itself while it is busy.
    """
    with _handling_deaths(signal.SIG_DFL):  # PyTorch sets its own handler with the first loader of a process
        iterator = DataLoader.__iter__(loader)
    workers = getattr(iterator, "_workers", ())
    try:
        for number in range(1, expected + 1):
            with _handling_deaths(_raise_deaths):
                _raise_deaths()  # of those that died since the last item
                item = next(iterator, END)
            if item is END:
                return
            if workers and number == expected:  # or they wait, and can die, until somebody asks for more
                iterator._shutdown_workers()  # type: ignore[attr-defined]
            yield item
    except RuntimeError as error:  # of PyTorch's, naming process numbers
        multiprocessing.connection.wait([process.sentinel for process in workers], timeout=1 if workers else 0)
        for number, process in enumerate(workers):
            item, code = busy.of(number), process.exitcode
            if code is not None and (code < 0 or (code > 0 and item is not None)):
                busy.forget(number)
                raise WorkerDied(item, code) from error
        raise
    finally:
        if workers:  # at once: left to the garbage collector, PyTorch waits five seconds for every worker
            iterator._shutdown_workers()  # type: ignore[attr-defined]


def _raise_deaths(*_: Any) -> None:
    _error_if_any_worker_fails()


@contextmanager
def _handling_deaths(handler: Any) -> Iterator[None]:
    """Handle SIGCHLD in this block; then as before, but never as PyTorch does.

    PyTorch's handler raises a worker's death wherever the main thread happens to be, which may be in the middle of a
    training step.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGCHLD, handler)
    try:
        yield
    finally:
        pytorchs = str(getattr(before, "__module__", "")).startswith("torch.")
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None or pytorchs else before)


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
