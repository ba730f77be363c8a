# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys

import numpy as np

from persam_monai.data import generator_for

DRAW = "from persam_monai.data.randomness import generator_for; print(generator_for(3, 'a', 1).integers(0, 2**60, 4))"


def test_another_process_draws_the_same() -> None:
    other = subprocess.run([sys.executable, "-c", DRAW], check=True, capture_output=True, text=True, timeout=120)
    assert other.stdout.strip() == str(generator_for(3, "a", 1).integers(0, 2**60, 4))


def test_every_part_of_the_key_counts() -> None:
    keys: list[tuple[int | str, ...]] = [(0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2), (0, "a"), (0, "a", "1")]
    draws = {tuple(generator_for(*key).integers(0, 2**60, 4)) for key in keys}
    assert len(draws) == len(keys)


def test_what_was_drawn_before_does_not_count() -> None:
    generator_for(0, "a").random(100)
    np.random.default_rng().random(7)
    first = generator_for(0, "a").random(5)
    np.testing.assert_array_equal(first, generator_for(0, "a").random(5))
