# SPDX-License-Identifier: Apache-2.0
"""Contenders take turns, so that a busy moment of the machine meets them all; and a benchmark ends in time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from itertools import product
from statistics import median
from typing import Any


class Budget:
    """Leaves out what a benchmark has no time for.

    Args:
        minutes: after which nothing more is begun.

    Attributes:
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


def in_turns(
    contenders: Mapping[str, Callable[[], float]], repeats: int, deadline: float = math.inf
) -> dict[str, list[float]]:
    """Let every contender measure itself, one after another, again and again.

    Args:
        contenders: each says what it measured: seconds, or a rate.
        repeats: turns that count; one more, before them, warms up.
        deadline: of :func:`time.perf_counter`, after which no measurement begins.

    Returns:
        What each measured in the turns that count, or while warming up where time allowed no more; empty if its turn
        never came.
    """
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    for _, (name, run) in product(range(repeats + 1), contenders.items()):
        if time.perf_counter() > deadline:
            break
        measured[name].append(run())
    return {name: values[1:] or values for name, values in measured.items()}


def alternate(contenders: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each contender, run as :func:`in_turns`."""

    def timed(run: Callable[[], Any]) -> Callable[[], float]:
        def seconds() -> float:
            start = time.perf_counter()
            run()
            return time.perf_counter() - start

        return seconds

    measured = in_turns({name: timed(run) for name, run in contenders.items()}, repeats)
    return {name: median(values) for name, values in measured.items()}
