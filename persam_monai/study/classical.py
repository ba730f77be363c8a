# SPDX-License-Identifier: Apache-2.0
"""Classical models of scikit-learn on the record, on the mean features of a patient's patches, and on both."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from persam_monai.cohort import Cohort, split_by
from persam_monai.data import BagDataset, InOrder, Source
from persam_monai.metrics import Predictions


def logistic_regression(strength: float) -> ClassifierMixin:
    """Of imputed and standardised columns, with an L2 penalty of this inverse strength."""
    steps = (SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    return make_pipeline(*steps, LogisticRegression(C=strength, max_iter=2000))


def gradient_boosting(learning_rate: float) -> ClassifierMixin:
    """Small trees with this learning rate; gaps are values of their own."""
    return HistGradientBoostingClassifier(
        learning_rate=learning_rate, max_iter=100, max_leaf_nodes=7, min_samples_leaf=5, random_state=0
    )


# Each with the settings among which the validation fold chooses.
MODELS: dict[str, tuple[Callable[[float], ClassifierMixin], Sequence[float]]] = {
    "logistic regression": (logistic_regression, (0.0001, 0.001, 0.01, 0.1, 1.0)),
    "gradient boosting": (gradient_boosting, (0.01, 0.03, 0.1)),
}


def predict_classically(
    cohort: Cohort, source: Source, assignment: Mapping[str, int], patients: Sequence[str]
) -> dict[str, list[Predictions]]:
    """Test predictions of classical models on the folds of a study.

    Args:
        cohort: every patient labelled.
        source: of features; of pixels, only the record is used.
        assignment: every patient's fold.
        patients: whom to predict, in the order of the result.

    Returns:
        By the model's name one run.
    """
    index = {patient: i for i, patient in enumerate(cohort.patients)}
    inputs = {"record": cohort.clinical_matrix().astype(float)}
    if not source.pixels:
        inputs["mean features"] = mean_features(cohort, source)
        inputs["both"] = np.concatenate(list(inputs.values()), axis=1)
    labels = np.array([cohort.patient_labels[patient] for patient in cohort.patients])
    folds = max(assignment.values()) + 1
    wanted = [index[patient] for patient in patients]
    results = {}
    for model, (make, settings) in MODELS.items():
        for name, columns in inputs.items():
            probabilities = np.zeros((len(labels), len(cohort.classes)))
            for fold in range(folds):
                parts = [[index[p] for p in part.patients] for part in split_by(cohort, fold, assignment)]
                train, validation, test = parts
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    fitted = [make(setting).fit(columns[train], labels[train]) for setting in settings]
                losses = [_loss(one, columns[validation], labels[validation], len(cohort.classes)) for one in fitted]
                best = fitted[int(np.argmin(losses))]
                probabilities[np.ix_(test, best.classes_)] = best.predict_proba(columns[test])
            run = Predictions(tuple(patients), tuple(patients), labels[wanted], probabilities[wanted])
            results[f"{model}, {name}"] = [run]
    return results


def _loss(model: ClassifierMixin, columns: np.ndarray, labels: np.ndarray, classes: int) -> float:
    probabilities = np.full((len(labels), classes), 1e-9)
    probabilities[:, model.classes_] = model.predict_proba(columns)
    return float(log_loss(labels, probabilities / probabilities.sum(axis=1, keepdims=True), labels=range(classes)))


def mean_features(cohort: Cohort, source: Source) -> np.ndarray:
    """Mean of the features of a patient's patches, slides weighing alike, ``[P, D]``."""
    dataset = BagDataset(cohort, InOrder(2**20), source, label="mean features").prepare()
    sums: dict[str, list[np.ndarray]] = {patient: [] for patient in cohort.patients}
    for key in dataset.keys(0):
        sums[cohort.entries[key.slide].patient_id].append(dataset[key]["image"].astype(float).mean(axis=0))
    return np.stack([np.mean(means, axis=0) for means in sums.values()])
