# SPDX-License-Identifier: Apache-2.0
"""Intervals cover, tests agree with independent computations, probabilities are calibrated."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from persam_monai.metrics import SCORES, Predictions, auroc, fit_temperature, reliability
from persam_monai.study.statistics import (
    compare,
    delong,
    holm,
    interval,
    mcnemar,
    mean_score,
    resampled,
)


def predictions(labels: np.ndarray, probabilities: np.ndarray) -> Predictions:
    names = tuple(map(str, range(len(labels))))
    return Predictions(names, names, labels, probabilities)


def drawn(
    seed: int, patients: int = 90, classes: int = 3, skill: float = 1.0, labels: np.ndarray | None = None
) -> Predictions:
    """Probabilities that know the label the better the larger ``skill``."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=patients) if labels is None else labels
    logits = rng.standard_normal((patients, classes)) + skill * np.eye(classes)[labels]
    exponentials = np.exp(logits)
    return predictions(labels, exponentials / exponentials.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("classes", [2, 3])
def test_delongs_test_agrees_with_resampling_patients(classes: int) -> None:
    one = drawn(0, classes=classes, skill=1.6)
    other = drawn(1, classes=classes, skill=0.8, labels=one.labels)
    difference, p = delong([one], [other])
    assert difference == pytest.approx(auroc(one) - auroc(other))
    rng, samples = np.random.default_rng(2), []
    for _ in range(1500):
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(one.labels == c), (one.labels == c).sum()) for c in range(classes)]
        )
        pair = [predictions(each.labels[rows], each.probabilities[rows]) for each in (one, other)]
        samples.append(auroc(pair[0]) - auroc(pair[1]))
    deviation = abs(difference) / norm.isf(p / 2)
    assert deviation == pytest.approx(np.std(samples), rel=0.12)


def test_models_that_say_the_same_do_not_differ() -> None:
    one = drawn(0)
    assert delong([one], [one]) == (0, 1)
    assert mcnemar(one, one) == 1


@pytest.mark.slow
def test_delongs_p_is_uniform_where_models_are_alike() -> None:
    p_values = []
    for seed in range(600):
        one = drawn(2 * seed, skill=1)
        p_values.append(delong([one], [drawn(2 * seed + 1, skill=1, labels=one.labels)])[1])
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.025)


def test_mcnemars_p_is_the_binomial_sum() -> None:
    labels = np.zeros(40, dtype=int)
    sure = np.array([[0.9, 0.1]]), np.array([[0.1, 0.9]])
    right = np.ones(40, dtype=bool)
    other_right = np.ones(40, dtype=bool)
    right[:3], other_right[5:16] = False, False  # wrong alone: 3 and 11
    one, other = (predictions(labels, np.where(r[:, None], *sure)) for r in (right, other_right))
    assert mcnemar(one, other) == pytest.approx(2 * sum(math.comb(14, k) for k in range(4)) / 2**14)


def test_holms_correction_is_that_of_the_textbook() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("score", ["accuracy", "auroc"])
def test_intervals_cover_the_truth_in_95_per_cent(score: str) -> None:
    rng, skill = np.random.default_rng(3), 1.2
    true = {"auroc": norm.cdf(skill), "accuracy": norm.cdf(skill / math.sqrt(2) * math.sqrt(2) / math.sqrt(2))}
    covered = 0
    for _ in range(400):
        labels = np.arange(120) % 2
        score_of_1 = rng.standard_normal(120) + skill * math.sqrt(2) * labels  # AUROC is Φ(difference/√2)
        chance = 1 / (1 + np.exp(-(score_of_1 - skill / math.sqrt(2))))  # right on each side with Φ(skill/√2)
        run = predictions(labels, np.stack([1 - chance, chance], axis=1))
        bounds = interval(SCORES[score](run), resampled([run], [score], resamples=200)[:, 0])
        covered += bounds["low"] <= true[score] <= bounds["high"]
    assert 0.92 <= covered / 400 <= 0.98


def test_a_model_is_compared_with_the_same_patients_and_the_mean_of_its_seeds() -> None:
    one = [drawn(0, skill=3), drawn(0, skill=2.5)]
    other = [drawn(1, skill=0.5, labels=one[0].labels)]
    result = compare({"one": one, "other": other, "again": one}, "one", ["auroc", "accuracy"])
    assert result["scores"]["one"]["auroc"]["estimate"] == pytest.approx(np.mean([auroc(run) for run in one]))
    difference = result["differences"]["other"]["auroc"]
    assert difference["estimate"] == pytest.approx(mean_score("auroc", one) - auroc(other[0]))
    assert 0 < difference["low"] < difference["estimate"] < difference["high"]
    assert result["differences"]["other"]["delong_p_holm"] < 0.001
    assert result["differences"]["again"]["auroc"] == {"estimate": 0, "low": 0, "high": 0}
    assert compare({"one": one, "other": other}, "one", ["auroc"]) == compare(
        {"one": one, "other": other}, "one", ["auroc"]
    )


def test_calibration_error_of_a_sample_that_is_too_sure_is_how_much() -> None:
    labels = np.array([0] * 70 + [1] * 30 + [1] * 50 + [0] * 50)
    probabilities = np.array([[0.9, 0.1]] * 100 + [[0.45, 0.55]] * 100)  # 70 % right at 90 %, 50 % at 55 %
    run = predictions(labels, probabilities)
    assert SCORES["calibration_error"](run) == pytest.approx(0.5 * 0.2 + 0.5 * 0.05)
    assert [(b["accuracy"], b["count"]) for b in reliability(run)] == [(0.5, 100), (0.7, 100)]


def test_a_temperature_takes_exaggeration_back() -> None:
    rng = np.random.default_rng(4)
    logits = rng.standard_normal((4000, 3)) * 1.5
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(3, p=row) for row in chances])
    exaggerated = np.exp(2.5 * logits) / np.exp(2.5 * logits).sum(axis=1, keepdims=True)
    assert fit_temperature(exaggerated, labels) == pytest.approx(2.5, rel=0.08)
    assert fit_temperature(chances, labels) == pytest.approx(1, rel=0.08)


def test_scores_of_probabilities_are_those_of_the_definitions() -> None:
    run = drawn(5)
    of_label = run.probabilities[np.arange(90), run.labels]
    assert SCORES["nll"](run) == pytest.approx(-np.log(of_label).mean())
    others = (run.probabilities**2).sum(axis=1) - of_label**2
    assert SCORES["brier"](run) == pytest.approx(((1 - of_label) ** 2 + others).mean())
    expected = np.bincount(run.labels, minlength=3) @ np.bincount(run.predicted, minlength=3) / 90**2
    agreement = (run.labels == run.predicted).mean()
    assert SCORES["kappa"](run) == pytest.approx((agreement - expected) / (1 - expected))
