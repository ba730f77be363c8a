# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, roc_auc_score

from persam_monai.metrics import Predictions, accuracy, always, auroc, balanced_accuracy, report

CLASSES = ("DLBCL", "FL", "Reactive")


def predictions(labels: list[int], seed: int = 0, classes: int = 3) -> Predictions:
    chance = np.random.default_rng(seed).random((len(labels), classes))
    names = tuple(f"s{i}" for i in range(len(labels)))
    return Predictions(names, names, np.array(labels, np.int64), chance / chance.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_scikit_learns(seed: int) -> None:
    made = predictions([0, 1, 2, 1, 1, 0, 2, 2, 2, 1, 0], seed)
    guessed = made.probabilities.argmax(axis=1)
    assert accuracy(made) == pytest.approx(accuracy_score(made.labels, guessed))
    assert balanced_accuracy(made) == pytest.approx(balanced_accuracy_score(made.labels, guessed))
    assert auroc(made) == pytest.approx(
        roc_auc_score(made.labels, made.probabilities, multi_class="ovr", average="macro")
    )


def test_auroc_of_two_classes_is_the_usual_one() -> None:
    made = predictions([0, 1, 1, 0, 1], classes=2)
    assert auroc(made) == pytest.approx(roc_auc_score(made.labels, made.probabilities[:, 1]))


def test_auroc_leaves_out_absent_classes_and_is_undefined_for_a_single_one() -> None:
    made = predictions([0, 1, 1, 0, 1])  # nobody has the third class
    each = [roc_auc_score(made.labels == c, made.probabilities[:, c]) for c in (0, 1)]
    assert auroc(made) == pytest.approx(np.mean(each))
    assert math.isnan(auroc(predictions([1, 1, 1])))


def test_balanced_accuracy_leaves_out_absent_classes_without_a_warning() -> None:
    certain = np.eye(3)[[0, 0, 1, 2]]
    made = Predictions(("a", "b", "c", "d"), ("a", "b", "c", "d"), np.array([0, 0, 0, 1]), certain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert balanced_accuracy(made) == pytest.approx((2 / 3 + 0) / 2)


def test_a_report_holds_every_score_and_the_confusion_matrix() -> None:
    made = predictions([0, 1, 2, 1, -1, 0, 2, 2, -1, 1, 0])
    known = made.labels >= 0
    guessed = made.probabilities.argmax(axis=1)
    found = report(made, CLASSES)
    assert found["count"] == 9
    assert found["accuracy"] == pytest.approx(accuracy_score(made.labels[known], guessed[known]))
    assert found["auroc"] == pytest.approx(
        roc_auc_score(made.labels[known], made.probabilities[known], multi_class="ovr")
    )
    assert found["classes_in_auroc"] == list(CLASSES)
    assert found["confusion_matrix"] == confusion_matrix(made.labels[known], guessed[known]).tolist()
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_report_on_one_class_says_what_is_undefined() -> None:
    found = report(predictions([1, 1]), CLASSES)
    assert found["auroc"] is None
    assert found["classes_in_auroc"] == []
    assert np.array(found["confusion_matrix"]).shape == (3, 3)
    assert np.array(found["confusion_matrix"])[1].sum() == 2


def test_a_report_on_unlabelled_units_has_no_scores() -> None:
    found = report(predictions([-1, -1]), CLASSES)
    assert (found["count"], found["accuracy"], found["balanced_accuracy"], found["auroc"]) == (0, None, None, None)
    assert found["confusion_matrix"] == [[0] * 3] * 3
    json.dumps(found, allow_nan=False)


def test_always_guessing_one_class_scores_its_share() -> None:
    made = predictions([0, 1, 1, 1, 2])
    guess = always(1, made)
    assert accuracy(guess) == pytest.approx(3 / 5)
    assert balanced_accuracy(guess) == pytest.approx(1 / 3)
    assert auroc(guess) == pytest.approx(1 / 2)
