# SPDX-License-Identifier: Apache-2.0
"""How sure a score is, and a difference of scores: resampling of patients, DeLong's and McNemar's tests.

All of it is at the level of patients, each of whom is predicted once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from joblib import Parallel, delayed  # type: ignore[import-untyped]
from scipy import stats
from sklearn import config_context

from persam_monai.metrics import SCORES, Predictions

RESAMPLES = 1000
LEVEL = 0.95


def resampled(runs: Sequence[Predictions], scores: Sequence[str], resamples: int = RESAMPLES) -> np.ndarray:
    """Scores of samples of the patients, drawn with replacement; means over the runs of a model.

    The draw depends on the number of patients alone, so that rows of two models of the same patients are paired.

    Args:
        runs: predictions of the same labelled patients, in the same order, by models that differ in their seed.
        scores: names in :data:`persam_monai.metrics.SCORES`.
        resamples: T.

    Returns:
        ``float64 [T, len(scores)]``, NaN where a sample lacks what a score needs.
    """
    patients = len(runs[0].labels)
    draws = np.random.default_rng(0).integers(patients, size=(resamples, patients))
    with config_context(assume_finite=True, skip_parameter_validation=True):
        return np.array([[mean_score(name, [run.take(rows) for run in runs]) for name in scores] for rows in draws])


def mean_score(name: str, runs: Sequence[Predictions]) -> float:
    """Mean of a score over the runs of a model."""
    return float(np.mean([SCORES[name](run) for run in runs]))


def interval(estimate: float, samples: np.ndarray) -> dict[str, float]:
    """The percentile interval at 95 % (Efron 1979) of an estimate, from its resamples ``[T]``.

    Returns:
        ``estimate``, ``low`` and ``high``.
    """
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = np.nanquantile(samples, tails) if np.isfinite(samples).any() else (np.nan, np.nan)
    return {"estimate": float(estimate), "low": float(low), "high": float(high)}


def delong(one: Sequence[Predictions], other: Sequence[Predictions]) -> tuple[float, float]:
    """DeLong's test of the macro one-vs-rest AUROCs of two models of the same patients.

    The area of class c is a mean over pairs of a patient of c and one of another class, so each patient has a share in
    it (its *placement*): DeLong, DeLong and Clarke-Pearson 1988, eq. 3–6. The macro area is a mean over classes, so
    the shares are too. Its variance is the sum over true classes of the variance of their patients' shares, which for
    two classes is DeLong's. Of a model with several runs, areas and shares are means over the runs.

    Args:
        one: a model's runs: predictions of labelled patients.
        other: another model's, of the same patients in the same order.

    Returns:
        The difference ``one − other``, and the two-sided p; 1 where nothing differs.
    """
    (area, shares), (other_area, other_shares) = _mean_placements(one), _mean_placements(other)
    shares = shares - other_shares
    variance = 0.0
    for label in np.unique(one[0].labels):
        members = shares[one[0].labels == label]
        if len(members) > 1:
            variance += len(members) * members.var(ddof=1)
    difference = area - other_area
    if variance <= 0:
        return difference, 1.0 if difference == 0 else 0.0
    return difference, float(2 * stats.norm.sf(abs(difference) / np.sqrt(variance)))


def _mean_placements(runs: Sequence[Predictions]) -> tuple[float, np.ndarray]:
    areas, shares = zip(*map(_placements, runs), strict=True)
    return float(np.mean(areas)), np.mean(shares, axis=0)


def _placements(predictions: Predictions) -> tuple[float, np.ndarray]:
    """The macro AUROC, and each patient's share in its deviation from the true one, ``[P]``."""
    labels, shares, areas = predictions.labels, np.zeros(len(predictions.labels)), []
    classes = [c for c in range(predictions.probabilities.shape[1]) if 0 < (labels == c).sum() < len(labels)]
    for c in classes:
        score, own = predictions.probabilities[:, c], labels == c
        higher = (score[own][:, None] > score[~own]) + 0.5 * (score[own][:, None] == score[~own])  # [of c, others]
        areas.append(higher.mean())
        shares[own] += (higher.mean(axis=1) - areas[-1]) / own.sum() / len(classes)
        shares[~own] += (higher.mean(axis=0) - areas[-1]) / (~own).sum() / len(classes)
    return float(np.mean(areas)), shares


def mcnemar(one: Predictions, other: Predictions) -> float:
    """The exact two-sided p of McNemar's test (1947): are two models right about equally many of the same patients?"""
    right, other_right = one.predicted == one.labels, other.predicted == other.labels
    only, only_other = int((right & ~other_right).sum()), int((~right & other_right).sum())
    return float(stats.binomtest(only, only + only_other).pvalue) if only + only_other else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number by Holm's method (1979), in the same order."""
    order = np.argsort(p_values)
    steps = np.asarray(p_values, dtype=float)[order] * (len(p_values) - np.arange(len(p_values)))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return [float(p) for p in corrected]


def compare(
    models: Mapping[str, Sequence[Predictions]],
    reference: str,
    scores: Sequence[str] = tuple(SCORES),
    resamples: int = RESAMPLES,
    jobs: int = 1,
) -> dict[str, Any]:
    """Every model's scores with intervals, and what the reference has more.

    Args:
        models: by the model's name its runs: predictions of the same labelled patients, in the same order.
        reference: one of the names.
        scores: names in :data:`persam_monai.metrics.SCORES`.
        resamples: of the patients.
        jobs: processes.

    Returns:
        JSON-able. ``scores``: by model and score the :func:`interval` of the mean over runs. ``differences``: by other
        model and score the interval of ``reference − model``; besides ``delong_p`` of macro AUROC and ``mcnemar_p`` of
        the first runs' accuracy, both also corrected for the number of models (``…_holm``).
    """
    drawn = Parallel(n_jobs=jobs)(delayed(resampled)(runs, scores, resamples) for runs in models.values())
    samples = dict(zip(models, drawn, strict=True))
    points = {name: np.array([mean_score(score, runs) for score in scores]) for name, runs in models.items()}

    def intervals(estimates: np.ndarray, samples: np.ndarray) -> dict[str, Any]:
        columns = zip(scores, estimates, samples.T, strict=True)
        return {score: interval(estimate, column) for score, estimate, column in columns}

    others = [name for name in models if name != reference]
    differences = {
        name: intervals(points[reference] - points[name], samples[reference] - samples[name]) for name in others
    }
    for test, p_values in (
        ("delong_p", [delong(models[reference], models[name])[1] for name in others]),
        ("mcnemar_p", [mcnemar(models[reference][0], models[name][0]) for name in others]),
    ):
        for name, p, corrected in zip(others, p_values, holm(p_values), strict=True):
            differences[name] |= {test: p, f"{test}_holm": corrected}
    return {
        "scores": {name: intervals(points[name], samples[name]) for name in models},
        "differences": differences,
    }
