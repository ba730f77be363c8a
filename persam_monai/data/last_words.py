# SPDX-License-Identifier: Apache-2.0
"""What this process was reading, told by another one if a native library ends this one without a word."""

from __future__ import annotations

import mmap
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST = mmap.PAGESIZE  # bytes of a slide's path; Linux allows no longer one

LAST_WORDS = (
    b"\nERROR: The process ended while it read slide %s: a library for images crashed, or the process was killed. Take "
    b"the slide out of the table, or go on without it by --num_workers 1 --on_bad_slide skip.\n"
)

_notes: dict[int, mmap.mmap] = {}  # by process: a forked one has none of its own yet


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Note that this process reads ``name`` until the block ends, however it ends."""
    if os.getpid() not in _notes:
        _notes[os.getpid()] = _appoint_executor()
    note = _notes[os.getpid()]
    content = name.encode(errors="replace")[: LONGEST - 1]
    note[: len(content) + 1] = content + b"\0"
    try:
        yield
    finally:
        note[0] = 0


def _appoint_executor() -> mmap.mmap:
    """Fork a process that does nothing but wait for this one's end.

    Returns:
        Memory of both: a text that ends with a zero byte; the executor prints it if it is not empty then.
    """
    note = mmap.mmap(-1, LONGEST)
    waiting, living = os.pipe()  # the kernel closes our end when we end
    if os.fork() == 0:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.close(living)
        os.read(waiting, 1)
        name = note[:].split(b"\0")[0]
        if name:
            os.write(2, LAST_WORDS % name)
        os._exit(0)
    os.close(waiting)
    return note
