# SPDX-License-Identifier: Apache-2.0
"""Decoding in several threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from typing import Any


def in_threads(work: Callable[[Any], Any], items: Iterable[Any], threads: int) -> list[Any]:
    """What ``work`` returns for each item; all have ended, well or not, when this returns or raises.

    A thread still at work would write into memory that is somebody else's by then, or read from a closed file.
    """
    futures = [_pool(os.getpid(), threads).submit(work, item) for item in items]
    wait(futures)
    return [future.result() for future in futures]


@lru_cache(maxsize=2)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Decoding threads of this process; those of its parent do not live in a forked one."""
    return ThreadPoolExecutor(threads, thread_name_prefix="decoder")
