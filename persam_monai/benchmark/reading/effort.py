# SPDX-License-Identifier: Apache-2.0
"""How much work a measurement is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from persam_monai.benchmark.turns import in_turns

BAG = 100
PILOT = 400  # patches of the first turn, which tells how many fill the seconds
FEWEST_BATCHES = 16  # however slowly they come: a loader's clock ticks once a batch, and its workers keep step


@dataclass(frozen=True)
class Effort:
    """How much work a measurement is.

    Attributes:
        repeats: of which the median counts.
        seconds: that a measurement takes, about.
        patches: of a measurement, instead.
        deadline: of :func:`time.perf_counter`, after which no measurement begins.
    """

    repeats: int = 5
    seconds: float = 0.6
    patches: int | None = None
    deadline: float = math.inf

    @property
    def bag_size(self) -> int:
        """Patches in a bag, and in a batch of other loaders: the paper's, or fewer where ``patches`` are few."""
        return BAG if self.patches is None else min(BAG, -(-self.patches // FEWEST_BATCHES))

    def batches(self, patches: int) -> int:
        """Batches that hold at least ``patches``."""
        return max(FEWEST_BATCHES, math.ceil(patches / self.bag_size))

    def rates(self, contenders: Mapping[str, Callable[[int], float]]) -> dict[str, Any]:
        """Median rate of each contender, run in turns.

        Args:
            contenders: each takes how many patches to read, or tiles to decode, and returns how many it did a second.

        Returns:
            The rates, ``turns`` with the fewest that one is the median of, and, where the deadline came too early for
            some contenders, their names as ``left_out_for_time``.
        """
        measured = in_turns({name: self._paced(run) for name, run in contenders.items()}, self.repeats, self.deadline)
        found: dict[str, Any] = {name: median(values) for name, values in measured.items() if values}
        left_out = [name for name in contenders if name not in found]
        found["turns"] = min((len(values) for values in measured.values() if values), default=0)
        return found | ({"left_out_for_time": left_out} if left_out else {})

    def _paced(self, run: Callable[[int], float]) -> Callable[[], float]:
        """``run`` with the amount that its last turn suggests."""
        amount = self.patches or PILOT

        def turn() -> float:
            nonlocal amount
            rate = run(amount)
            amount = self.patches or max(1, round(rate * self.seconds))
            return rate

        return turn
