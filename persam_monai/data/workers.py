# SPDX-License-Identifier: Apache-2.0
"""Worker processes that can die in native code, and what they were doing then."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader, get_worker_info

from persam_monai.data.last_words import reading


class WorkerDied(Exception):
    """A worker process was ended by a signal.

    Attributes:
        item: what it was busy with, or ``None`` if that is not known.
    """

    def __init__(self, item: int | None, number: int) -> None:
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        cause = "the system may have run out of memory" if number == signal.SIGKILL else "a library for images crashed"
        super().__init__(f"the process that was reading it was ended by {name}; {cause}.")
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


def watch(loader: DataLoader[Any], busy: Busy) -> Iterator[Any]:
    """Go through a data loader.

    Args:
        loader: whose dataset notes in ``busy`` what it does.
        busy: of at least the loader's number of workers.

    Raises:
        WorkerDied: if a worker process is ended by a signal.
    """
    iterator = DataLoader.__iter__(loader)
    try:
        yield from iterator
    except RuntimeError as error:  # of PyTorch's, naming process numbers
        for number, process in enumerate(getattr(iterator, "_workers", ())):
            process.join(1)
            if process.exitcode is not None and process.exitcode < 0:
                raise WorkerDied(busy.of(number), -process.exitcode) from error
        raise


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
