# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from persam_monai.errors import UserError, did_you_mean, raise_together


@pytest.mark.parametrize(
    ("word", "suggestion"),
    [
        ("max_epocs", ' Did you mean "max_epochs"?'),
        ("Bag_Size", ' Did you mean "bag_size"?'),
        ("zebra", ""),
        ("", ""),
    ],
)
def test_a_close_name_is_suggested_and_no_other(word: str, suggestion: str) -> None:
    assert did_you_mean(word, ["bag_size", "max_epochs"]) == suggestion
    assert did_you_mean(word, []) == ""


def test_a_suggestion_has_the_candidates_own_spelling() -> None:
    assert did_you_mean("dlbcl", ["DLBCL", "FL"]) == ' Did you mean "DLBCL"?'


def test_all_problems_are_told_at_once() -> None:
    raise_together("Nothing is wrong", [])
    with pytest.raises(UserError) as caught:
        raise_together("Two things", ["first", "second"])
    assert str(caught.value) == "Two things:\n  - first\n  - second"


def test_very_many_problems_are_counted() -> None:
    with pytest.raises(UserError) as caught:
        raise_together("Much", [f"p{i}" for i in range(25)], shown=3)
    assert str(caught.value).splitlines() == ["Much:", "  - p0", "  - p1", "  - p2", "  … and 22 more."]
    with pytest.raises(UserError) as caught:
        raise_together("Much", [f"p{i}" for i in range(3)], shown=3)
    assert "more" not in str(caught.value)
