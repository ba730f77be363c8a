# SPDX-License-Identifier: Apache-2.0
"""How the benchmarks measure and report: contenders take turns, the time is limited, results are one object."""

from __future__ import annotations

import math
import multiprocessing
import os
import platform
import re
import resource
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import pandas as pd

LIBRARIES = ("cucim-cu13", "h5py", "imagecodecs", "monai", "openslide-bin", "simplejpeg", "torch")
MOST_COLUMNS = 8  # wider tables are printed with a line for each column
Result = TypeVar("Result")


class Budget:
    """Leaves out what a benchmark has no time for.

    Args:
        minutes: after which nothing more begins.

    Attributes:
        end: of :func:`time.monotonic`.
        left_out: names of what was not measured.
    """

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes
        self.left_out: list[str] = []

    def admits(self, name: str) -> bool:
        """Whether there is time to measure ``name``; if not, it is noted."""
        if time.monotonic() < self.end:
            return True
        self.left_out.append(name)
        return False

    def share(self, parts: int) -> float:
        """The end of the next part, of :func:`time.monotonic`, when ``parts`` divide what is left."""
        now = time.monotonic()
        return now + (self.end - now) / parts


def in_turns(
    contenders: Mapping[str, Callable[[], float]], repeats: int, deadline: float = math.inf, least: int = 0
) -> dict[str, list[float]]:
    """Let every contender measure itself, one after another, again and again: a busy moment then meets them all.

    Args:
        contenders: each returns what it measured: seconds, or a rate.
        repeats: turns that count; one more, before them, warms up.
        deadline: of :func:`time.monotonic`, after which no measurement begins.
        least: turns that do not mind the deadline.

    Returns:
        What each measured in the turns that count, or while warming up where time allowed no more; empty if its turn
        never came.
    """
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    for turn, (name, run) in product(range(repeats + 1), contenders.items()):
        if turn >= least and time.monotonic() > deadline:
            break
        measured[name].append(run())
    return {name: values[1:] or values for name, values in measured.items()}


def median_seconds(
    contenders: Mapping[str, Callable[[], object]], repeats: int, deadline: float = math.inf
) -> dict[str, float]:
    """Median seconds of each contender, run as :func:`in_turns`, at least once."""
    timed = {name: lambda run=run: seconds(run) for name, run in contenders.items()}
    return {name: median(values) for name, values in in_turns(timed, repeats, deadline, least=1).items()}


def seconds(run: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def in_own_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function of a module in a fresh process, whose memory nothing else has used."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_bytes() -> int:
    """The most memory that this process has held since its start or :func:`forget_peak`."""
    status = Path("/proc/self/status")
    match = re.search(r"VmHWM:\s+(\d+)", status.read_text()) if status.exists() else None
    return 1024 * (int(match[1]) if match else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def forget_peak() -> None:
    """Let the peak begin at what is held now, where the system can do that."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # 5: see proc(5)


def machine(threads: int | None = None) -> dict[str, Any]:
    """What the figures depend on: processor, cores, PyTorch's threads if given, and versions of libraries."""
    libraries = {name: version(name) for name in LIBRARIES}
    used = {} if threads is None else {"threads": threads}
    return {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), **used, **libraries}


def as_text(results: Mapping[str, Any], margin: str = "") -> str:
    """A line for each figure and a table for each list of rows; nested results are indented below their name."""
    lines = []
    for name, value in results.items():
        if isinstance(value, Mapping):
            lines += [f"{margin}{name}:", as_text(value, margin + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            lines.append(f"{margin}{name}:")
            table = pd.json_normalize(value)
            wide = len(table.columns) > MOST_COLUMNS
            shown = table.map(_shown).T.to_string(header=False) if wide else table.map(_shown).to_string(index=False)
            lines += [f"{margin}  {line}" for line in shown.splitlines()]
        else:
            lines.append(f"{margin}{name:<{52 - len(margin)}}{_shown(value)}")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
