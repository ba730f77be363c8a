# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from persam_monai.data import InOrder, PartitionBags, RandomBags, generator_for
from persam_monai.errors import UserError

DRAW = "from persam_monai.data import generator_for; print(generator_for(3, 'a', 1).integers(0, 2**60, 4))"


def all_bags(draw: RandomBags | PartitionBags, cells: int, slide: str = "a", epoch: int = 1) -> list[np.ndarray]:
    return [draw.choose(cells, slide, epoch, bag) for bag in range(draw.count(cells))]


@pytest.mark.parametrize(("cells", "bags"), [(1, 1), (9, 1), (10, 1), (19, 1), (20, 2), (35, 3), (1000, 30)])
def test_random_bags_are_full_and_disjoint(cells: int, bags: int) -> None:
    draw = RandomBags(bag_size=10, max_bags_per_slide=30, seed=1)
    drawn = all_bags(draw, cells)
    assert [len(bag) for bag in drawn] == [min(10, cells)] * bags
    together = np.concatenate(drawn)
    assert len(set(together.tolist())) == len(together)
    assert 0 <= together.min() <= together.max() < cells


def test_random_bags_are_drawn_anew_for_each_epoch_slide_and_seed() -> None:
    def drawn(seed: int, slide: str, epoch: int) -> tuple[int, ...]:
        return tuple(RandomBags(10, 30, seed).choose(200, slide, epoch, 0))

    assert drawn(0, "a", 1) == drawn(0, "a", 1)
    assert len({drawn(0, "a", 1), drawn(0, "a", 2), drawn(0, "b", 1), drawn(1, "a", 1)}) == 4


def test_random_bags_take_every_cell_alike() -> None:
    draw = RandomBags(bag_size=10, max_bags_per_slide=1)
    counts = np.bincount(np.concatenate([draw.choose(40, "a", epoch, 0) for epoch in range(2000)]), minlength=40)
    assert np.abs(counts / 2000 - 1 / 4).max() < 0.05  # five standard deviations of a binomial proportion


@pytest.mark.parametrize("cells", [1, 7, 100, 101, 103, 250])
@pytest.mark.parametrize("patches_per_slide", ["all", 103, 5000])
def test_each_partition_covers_every_cell_once_in_bags_of_equal_size(cells: int, patches_per_slide: int | str) -> None:
    draw = PartitionBags(bag_size=10, patches_per_slide=patches_per_slide, partitions=3, seed=2)
    used = cells if patches_per_slide == "all" else min(cells, int(patches_per_slide))
    drawn = all_bags(draw, cells)
    per_partition = math.ceil(used / 10)
    assert len(drawn) == 3 * per_partition
    looked_at = []
    for start in range(0, len(drawn), per_partition):
        bags = drawn[start : start + per_partition]
        sizes = [len(bag) for bag in bags]
        assert max(sizes) <= 10
        assert max(sizes) - min(sizes) <= 1
        together = np.concatenate(bags).tolist()
        assert len(together) == len(set(together)) == used
        looked_at.append(frozenset(together))
    assert len(set(looked_at)) == 1  # every partition divides the same cells
    assert looked_at[0] <= set(range(cells))


def test_partitions_differ_from_each_other_and_depend_on_the_seed_alone() -> None:
    draw = PartitionBags(10, "all", 2, 0)
    one, two = draw.choose(100, "a", 1, 0), draw.choose(100, "a", 1, 10)
    assert set(one) != set(two)
    np.testing.assert_array_equal(one, draw.choose(100, "renamed", 7, 0))
    assert set(one) != set(PartitionBags(10, "all", 2, 1).choose(100, "a", 1, 0))


@pytest.mark.parametrize(("cells", "sizes"), [(1, [1]), (10, [10]), (11, [10, 1]), (20, [10, 10]), (25, [10, 10, 5])])
def test_in_order_every_cell_comes_once_and_only_the_last_part_is_not_full(cells: int, sizes: list[int]) -> None:
    draw = InOrder(10)
    drawn = [draw.choose(cells, "a", 1, bag) for bag in range(draw.count(cells))]
    assert [len(bag) for bag in drawn] == sizes
    np.testing.assert_array_equal(np.concatenate(drawn), np.arange(cells))


@pytest.mark.parametrize(
    ("rule", "settings", "name"),
    [
        (RandomBags, {"bag_size": 0, "max_bags_per_slide": 1}, "bag_size is 0"),
        (RandomBags, {"bag_size": 2.5, "max_bags_per_slide": 1}, "bag_size is 2.5"),
        (RandomBags, {"bag_size": 10, "max_bags_per_slide": -1}, "max_bags_per_slide is -1"),
        (InOrder, {"bag_size": None}, "bag_size is None"),
        (PartitionBags, {"bag_size": "ten"}, "bag_size is 'ten'"),
        (PartitionBags, {"bag_size": 10, "patches_per_slide": "most"}, "patches_per_slide is 'most'"),
        (PartitionBags, {"bag_size": 10, "patches_per_slide": 0}, "patches_per_slide is 0"),
        (PartitionBags, {"bag_size": 10, "partitions": True}, "partitions is True"),
    ],
)
def test_impossible_settings_are_refused_by_name(rule: Any, settings: dict[str, Any], name: str) -> None:
    with pytest.raises(UserError, match=name):
        rule(**settings)


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
