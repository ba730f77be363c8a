# SPDX-License-Identifier: Apache-2.0
"""Numbers that say how good predictions are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix, recall_score, roc_auc_score

from persam_monai.metrics.votes import Predictions


def accuracy(predictions: Predictions) -> float:
    """Share of units whose most probable class is their label; NaN without units."""
    return float(accuracy_score(predictions.labels, predictions.predicted)) if len(predictions.labels) else math.nan


def balanced_accuracy(predictions: Predictions) -> float:
    """Mean over the classes present of the share of their units that are recognised; NaN without units."""
    if not len(predictions.labels):
        return math.nan
    present = np.unique(predictions.labels)
    return float(recall_score(predictions.labels, predictions.predicted, labels=present, average="macro"))


def auroc(predictions: Predictions) -> float:
    """Macro one-vs-rest area under the ROC curve, over the classes that some units have and others have not.

    NaN when there is no such class.
    """
    areas = [
        roc_auc_score(predictions.labels == index, predictions.probabilities[:, index])
        for index in range(predictions.probabilities.shape[1])
        if 0 < np.count_nonzero(predictions.labels == index) < len(predictions.labels)
    ]
    return float(np.mean(areas)) if areas else math.nan


SCORES: dict[str, Callable[[Predictions], float]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "auroc": auroc,
}


def report(predictions: Predictions, classes: Sequence[str]) -> dict[str, Any]:
    """All scores of the labelled predictions, as JSON-able values; ``None`` for what cannot be computed.

    Args:
        predictions: of slides or of patients.
        classes: names, in the order of the probabilities.

    Returns:
        ``count``; ``accuracy``, ``balanced_accuracy``, ``auroc``; ``classes_in_auroc``; ``confusion_matrix`` with a
        row per true and a column per predicted class, in the order of ``classes``.
    """
    known = predictions.labelled
    scores: dict[str, Any] = {"count": len(known.labels)}
    for name, score in SCORES.items():
        value = score(known)
        scores[name] = None if math.isnan(value) else value
    counts = np.bincount(known.labels, minlength=len(classes))
    scores["classes_in_auroc"] = [c for c, n in zip(classes, counts, strict=True) if 0 < n < len(known.labels)]
    scores["confusion_matrix"] = (
        confusion_matrix(known.labels, known.predicted, labels=range(len(classes))).tolist()
        if len(known.labels)
        else np.zeros((len(classes), len(classes)), int).tolist()
    )
    return scores


def always(label: int, predictions: Predictions) -> Predictions:
    """What predicting class ``label`` for every unit would have been."""
    certain = np.zeros_like(predictions.probabilities)
    certain[:, label] = 1
    return Predictions(predictions.names, predictions.patients, predictions.labels, certain)
