# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time

from benchmark_reading import Effort
from turns import Budget, as_text, in_turns


def test_the_first_turn_does_not_count() -> None:
    values = iter([100.0, 1.0, 3.0, 2.0])
    assert in_turns({"only": lambda: next(values)}, repeats=3) == {"only": [1, 3, 2]}


def test_after_the_deadline_nothing_begins() -> None:
    def slow() -> float:
        time.sleep(0.2)
        return 1.0

    contenders = {"first": slow, "second": slow, "third": slow}
    assert in_turns(contenders, 5, time.monotonic() + 0.3) == {"first": [1], "second": [1], "third": []}
    rates = Effort(deadline=time.monotonic() + 0.3).rates({name: lambda n: slow() for name in contenders})
    assert rates == {"first": 1, "second": 1, "turns": 1, "left_out_for_time": ["third"]}


def test_a_budget_names_what_it_leaves_out() -> None:
    assert Budget(1).admits("first")
    budget = Budget(0)
    assert not budget.admits("second")
    assert budget.left_out == ["second"]


def test_results_become_text() -> None:
    rows = [{"name": "a", "rate": 1234.5}, {"name": "b", "rate": 0.125}]
    text = as_text(
        {
            "ratio": 1.5,
            "left_out": ["x", "y"],
            "rows": rows,
            "part": {"count": 28915267, "deep": [{"a": {"b": 1}, "c": 2}]},
        }
    )
    assert [line.split() for line in text.splitlines()] == [
        ["ratio", "1.5"],
        ["left_out", "x,", "y"],
        ["rows:"],
        ["name", "rate"],
        ["a", "1234"],
        ["b", "0.125"],
        ["part:"],
        ["count", "28,915,267"],
        ["deep:"],
        ["c", "a.b"],
        ["2", "1"],
    ]
