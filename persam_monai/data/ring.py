# SPDX-License-Identifier: Apache-2.0
"""Memory that worker processes decode into and the training reads from, used again and again.

PyTorch's own way to hand over a tensor takes new shared memory for every batch: the pixels are copied once more and
every page of them is cleared by the kernel first, which leaves 5,100
patches/s of 7,200 (JPEG, two workers on two cores).
"""

from __future__ import annotations

import math
import mmap
import os
import weakref

import numpy as np

PAGE = mmap.PAGESIZE

_rings: weakref.WeakValueDictionary[int, Ring] = weakref.WeakValueDictionary()  # made in this process, by number


class Ring:
    """Slots of shared memory, each owned by one worker.

    A slot's flag is set by its worker and cleared by the receiving process, so no lock is needed. The memory is an
    anonymous file of the kernel's, for processes forked from this one, and not in ``/dev/shm``, which containers keep
    small.

    Args:
        workers: worker processes.
        slots: of each worker.
        size: bytes of a slot; memory is taken only where it is written.

    Attributes:
        number: names the ring in the process that made it.
    """

    def __init__(self, workers: int, slots: int, size: int) -> None:
        self.slots = slots
        self.size = -(-size // PAGE) * PAGE
        self.number = id(self)
        self._flags = -(-workers * slots // PAGE) * PAGE  # bytes before the first slot
        file = os.memfd_create("bags")
        os.ftruncate(file, self._flags + workers * slots * self.size)
        self._memory = mmap.mmap(file, 0)
        os.close(file)
        _rings[self.number] = self

    @staticmethod
    def numbered(number: int) -> Ring:
        """A ring of this process."""
        return _rings[number]

    def take(self, worker: int, size: int) -> int | None:
        """A free slot of a worker's, now taken; ``None`` if there is none, or it has fewer than ``size`` bytes."""
        for slot in range(worker * self.slots, (worker + 1) * self.slots):
            if size <= self.size and self._memory[slot] == 0:
                self._memory[slot] = 1
                return slot
        return None

    def free(self, slot: int) -> None:
        """Give a slot back."""
        self._memory[slot] = 0

    def array(self, slot: int, shape: tuple[int, ...]) -> np.ndarray:
        """A slot's memory as ``uint8`` of ``shape``."""
        begin = self._flags + slot * self.size
        return np.frombuffer(self._memory, np.uint8, math.prod(shape), begin).reshape(shape)

    def received(self, slot: int, shape: tuple[int, ...]) -> np.ndarray:
        """The same; the slot is given back when nothing refers to the array any more."""
        array = self.array(slot, shape)
        weakref.finalize(array.base, self._free_in, os.getpid(), slot)  # views refer to the base, not to the array
        return array

    def _free_in(self, process: int, slot: int) -> None:
        if os.getpid() == process:  # a forked worker inherits the arrays, and must not give back what is not its own
            self.free(slot)
