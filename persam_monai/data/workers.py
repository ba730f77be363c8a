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
from itertools import count
from typing import Any

from torch.utils.data import DataLoader, get_worker_info

from persam_monai.data.last_words import reading

_raise_deaths: Any = None  # PyTorch's handler of SIGCHLD
_handler_of_others: Any = signal.SIG_DFL


# What a library does to a process when it crashes. Others come from outside, such as SIGKILL when memory runs out.
CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP}


END = object()  # of a data loader


class WorkerDied(Exception):
    """A worker process was ended by a signal, or by a library that called ``exit``.

    Attributes:
        item: what it was busy with, or ``None`` if that is not known.
        its_fault: whether that item may be the cause.
    """

    def __init__(self, item: int | None, number: int, is_status: bool = False) -> None:
        if is_status:
            how = f"ended itself with status {number}; a library for images gave up"
        else:
            name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
            cause = (
                "the system may have run out of memory" if number == signal.SIGKILL else "a library for images crashed"
            )
            how = f"was ended by {name}; {cause if number in (*CRASHES, signal.SIGKILL) else 'somebody stopped it'}"
        super().__init__(f"the process that was reading {how}.")
        self.item = item
        self.its_fault = item is not None and (is_status or number in CRASHES)


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


def watch(loader: DataLoader[Any], busy: Busy, expected: int | None) -> Iterator[Any]:
    """Go through a data loader. Its workers have ended when the last item comes, if that is known to be the last.

    Args:
        loader: whose dataset notes in ``busy`` what it does.
        busy: of at least the loader's number of workers.
        expected: items that will come; ``None`` if only the loader's sampler will tell.

    Raises:
        WorkerDied: if a worker process is ended by a signal, or ends itself while it is busy.
    """
    _remember_handler()
    iterator = DataLoader.__iter__(loader)
    workers = getattr(iterator, "_workers", ())
    try:
        for number in count(1) if expected is None else range(1, expected + 1):
            with _told_of_deaths(bool(workers)):
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
                raise WorkerDied(item, abs(code), is_status=code > 0) from error
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
    if _is_pytorchs(current):  # which sets it once, with the first loader
        _raise_deaths = current
    if _raise_deaths is not None:
        signal.signal(signal.SIGCHLD, _raise_deaths)
    try:
        if _raise_deaths is not None:
            _raise_deaths(signal.SIGCHLD, None)  # what happened since the last time
        yield
    finally:
        signal.signal(signal.SIGCHLD, _handler_of_others)


def _remember_handler() -> None:
    """Note whose handler of SIGCHLD stands between the items: the host program's, if it has one."""
    global _handler_of_others
    current = signal.getsignal(signal.SIGCHLD)
    if current is not None and not _is_pytorchs(current):
        _handler_of_others = current


def _is_pytorchs(handler: Any) -> bool:
    return str(getattr(handler, "__module__", "")).startswith("torch.")


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
