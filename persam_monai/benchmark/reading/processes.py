# SPDX-License-Identifier: Apache-2.0
"""Regions read in processes: the clock runs while they read, not while they start."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np

Read = Callable[[np.ndarray], None]  # reads patches at places [n, 2]


def rate_in_processes(open_slide: Callable[[], Read], places: np.ndarray, processes: int) -> float:
    """How fast patches come, when processes share the work.

    Args:
        open_slide: run in each process; opens the slide and returns what reads patches.
        places: ``[N, 2]`` level-0 corners (x, y), dealt out to the processes.
        processes: how many.

    Returns:
        Places per second, until the last process is ready.

    Raises:
        RuntimeError: if a process ends early; what it said is on the error output.
    """
    context = multiprocessing.get_context("fork")  # takes closures along, and is how data loaders start their workers
    ends = []
    for part in range(processes):
        ours, theirs = context.Pipe()
        context.Process(target=_serve, args=(theirs, open_slide, places[part::processes]), daemon=True).start()
        theirs.close()  # so that the end of the process ends the waiting for it
        ends.append(ours)
    try:
        for end in ends:
            end.recv()
        start = time.perf_counter()
        for end in ends:
            end.send("go")
        for end in ends:
            end.recv()
        return len(places) / (time.perf_counter() - start)
    except (EOFError, BrokenPipeError) as error:
        raise RuntimeError("a process that read patches ended early") from error
    finally:
        for end in ends:
            end.close()


def _serve(end: Connection, open_slide: Callable[[], Read], places: np.ndarray) -> None:
    """Open, read one patch to warm up, and read all when told to."""
    read = open_slide()
    read(places[:1])
    end.send("ready")
    end.recv()
    read(places)
    end.send("done")
