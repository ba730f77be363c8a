# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from persam_monai.drafting import enough_to_tell, find_leak

from tests.drafting.conftest import Drafted

Draft = Callable[..., Drafted]
THREE = ["DLBCL", "FL", "Reactive"] * 30


def column(values: list[float]) -> np.ndarray:
    return np.array(values)[:, None]


def test_a_value_that_is_the_label_is_a_leak() -> None:
    leak = find_leak(column([float(len(label)) for label in THREE]), THREE)
    assert leak is not None
    assert (leak.accuracy, leak.patients, leak.known, leak.apart) == (1.0, 90, False, None)


def test_a_result_that_one_class_alone_has_is_a_leak() -> None:
    rng = np.random.default_rng(0)
    leak = find_leak(column([rng.normal() if label == "FL" else np.nan for label in THREE]), THREE)
    assert leak is not None
    assert (leak.known, leak.apart) == (True, "FL")


def test_a_value_that_tells_one_class_from_all_others_is_a_leak_in_spite_of_gaps() -> None:
    rng = np.random.default_rng(1)
    values = [np.nan if rng.uniform() < 0.3 else float(label == "DLBCL") for label in THREE]
    leak = find_leak(column(values), THREE)
    assert leak is not None
    assert (leak.known, leak.apart) == (False, "DLBCL")
    assert leak.patients == np.isfinite(values).sum()


def test_levels_that_are_the_label_are_a_leak() -> None:
    names = sorted(set(THREE))
    leak = find_leak(np.array([[float(label == name) for name in names] for label in THREE]), THREE)
    assert leak is not None
    assert leak.accuracy == 1.0


def test_a_value_between_two_thresholds_is_found() -> None:
    labels = ["FL", "DLBCL"] * 40
    rng = np.random.default_rng(2)
    values = [rng.uniform(40, 60) if label == "FL" else rng.choice([20, 80]) + rng.normal() for label in labels]
    assert find_leak(column(values), labels) is not None


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_a_good_marker_is_no_leak(shift: float) -> None:
    """Two standard deviations between the classes: a better marker than most, right in 84 % of patients."""
    rng = np.random.default_rng(3)
    labels = ["FL", "DLBCL"] * 100
    assert find_leak(column([rng.normal() + shift * (label == "FL") for label in labels]), labels) is None


def test_what_is_unrelated_is_hardly_ever_suspected() -> None:
    rng = np.random.default_rng(4)
    labels = ["FL"] * 15 + ["DLBCL"] * 5
    for draw in range(300):
        values = rng.integers(0, 2, 20).astype(float) if draw % 2 else rng.normal(size=20)
        values[rng.uniform(size=20) < 0.2] = np.nan
        assert find_leak(values[:, None], labels) is None


def test_too_few_patients_are_not_judged() -> None:
    labels = ["FL"] * 10 + ["DLBCL"] * 9
    assert not enough_to_tell(labels)
    assert find_leak(column([float(label == "FL") for label in labels]), labels) is None
    labels = ["FL"] * 40 + ["DLBCL"] * 4  # four are too few for a class
    assert not enough_to_tell(labels)
    assert find_leak(column([float(label == "FL") for label in labels]), labels) is None


def test_a_rare_class_does_not_hide_what_the_others_show() -> None:
    labels = ["FL", "DLBCL"] * 20 + ["MCL"] * 2
    leak = find_leak(column([float(label == "FL") for label in labels]), labels)
    assert leak is not None
    assert leak.patients == 40


def test_patients_without_a_label_take_no_part() -> None:
    labels = ["FL", "DLBCL", None] * 20
    leak = find_leak(column([np.nan if label is None else float(label == "FL") for label in labels]), labels)
    assert leak is not None
    assert leak.patients == 40


def test_a_draft_leaves_leaks_out_and_says_why(drafted: Draft) -> None:
    labels = ["FL", "DLBCL"] * 20
    rng = np.random.default_rng(5)
    draft = drafted(
        {
            "label": labels,
            "age": [f"{rng.integers(30, 80)}" for _ in labels],
            "fl_grade": [str(rng.integers(1, 4)) if label == "FL" else "" for label in labels],
            "bcl6": ["pos" if label == "FL" else "neg" for label in labels],
        }
    )
    assert list(draft.variables) == ["age"]
    assert "SUSPECTED LEAK: whether it is known alone tells the classes (balanced accuracy 1.00" in draft.text
    assert "SUSPECTED LEAK: its value alone tells the classes" in draft.text
    # Removing the # takes it in.
    taken = draft.text.replace("    # bcl6: {kind", "    bcl6: {kind")
    draft.file.write_text(taken, encoding="utf-8")
    assert draft.cohort().schema.variable_names == ["age", "bcl6"]


def test_leaks_are_judged_by_patient_and_not_by_slide(drafted: Draft) -> None:
    """Twelve patients with three slides each are twelve, which is too few."""
    patients = [f"P{i // 3}" for i in range(36)]
    labels = ["FL" if i // 3 % 2 else "DLBCL" for i in range(36)]
    draft = drafted({"patient_id": patients, "label": labels, "bcl6": ["pos" if x == "FL" else "neg" for x in labels]})
    assert list(draft.variables) == ["bcl6"]
    assert "Too few patients to tell" in draft.text
