# SPDX-License-Identifier: Apache-2.0
"""Variables that give the label away: results of the diagnosis itself, or known for one class only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MINIMUM_PATIENTS = 20
"""Labelled patients below which nothing is said: a pattern among fewer is too easily an accident."""

MINIMUM_OF_CLASS = 5  # patients; a class of fewer takes no part, since one of them would be a fifth of its figure
NEARLY_ALL = 0.95  # balanced accuracy over all classes
ONE_APART = 0.98  # balanced accuracy of one class against all others: a good marker of one class comes near 0.95
_FOLDS = 5
_DEPTH = 3  # up to eight intervals of values


class Leak(NamedTuple):
    """How well a variable tells the label.

    Args:
        accuracy: balanced accuracy in cross-validation.
        patients: that took part.
        known: it is enough to know whether the value is known.
        apart: the class that is told from all others, or None where all are told.
    """

    accuracy: float
    patients: int
    known: bool
    apart: str | None

    def __str__(self) -> str:
        what = "whether it is known" if self.known else "its value"
        which = f"{self.apart} from the other classes" if self.apart else "the classes"
        return (
            f"{what} alone tells {which} (balanced accuracy {self.accuracy:.2f} in cross-validation over "
            f"{self.patients} patients)"
        )


def enough_to_tell(labels: Sequence[str | None]) -> bool:
    """Whether there are patients enough to suspect anything."""
    return len(_judged(labels)) >= MINIMUM_PATIENTS


def find_leak(values: np.ndarray, labels: Sequence[str | None], absence: bool = True) -> Leak | None:
    """Whether one variable nearly determines the label.

    Two questions: does it tell the label whether the variable is known, and does its value, among patients in whom it
    is? Patients are predicted by a decision tree (depth 3) that was grown without them, in five stratified folds, from
    this variable alone. It is suspected if the balanced accuracy (the mean of the classes' recalls) is at least
    ``NEARLY_ALL``, or, with more than two classes, ``ONE_APART`` for one class against all others. At least
    ``MINIMUM_PATIENTS`` patients and ``MINIMUM_OF_CLASS`` of each class are asked for (rarer classes take no part):
    that an unrelated yes or no sorts 20 patients so, 5 of them of one class, happens by accident to fewer than one
    variable in ten thousand.
    """
    missing = np.isnan(values).any(axis=1)
    everybody = np.arange(len(labels))
    by_absence = _suspect(missing[:, None].astype(float), labels, everybody, known=True) if absence else None
    return by_absence or _suspect(values, labels, everybody[~missing], known=False)


def _suspect(inputs: np.ndarray, labels: Sequence[str | None], among: np.ndarray, known: bool) -> Leak | None:
    """The leak in these inputs ``[patients, components]`` among some of the patients, if there is one."""
    rows = among[_judged([labels[row] for row in among])]
    if len(rows) < MINIMUM_PATIENTS or len(np.unique(inputs[rows], axis=0)) == 1:
        return None
    classes = np.array([labels[row] for row in rows])
    accuracy = _accuracy(inputs[rows], classes, NEARLY_ALL)
    if accuracy is not None:
        return Leak(accuracy, len(rows), known, None)
    names = np.unique(classes)
    if len(names) == 2:
        return None  # one apart from the other would be both
    figures = [(_accuracy(inputs[rows], classes == name, ONE_APART), str(name)) for name in names]
    best = max(((figure, name) for figure, name in figures if figure is not None), default=None)
    return None if best is None else Leak(best[0], len(rows), known, best[1])


def _judged(labels: Sequence[str | None]) -> np.ndarray:
    """Rows of patients with a label that enough others share; none if that is one class only."""
    names, counts = np.unique([label for label in labels if label is not None], return_counts=True)
    frequent = set(names[counts >= MINIMUM_OF_CLASS].tolist())
    if len(frequent) < 2:
        return np.empty(0, dtype=int)
    return np.array([row for row, label in enumerate(labels) if label in frequent], dtype=int)


def _accuracy(inputs: np.ndarray, classes: np.ndarray, least: float) -> float | None:
    """Balanced accuracy in cross-validation, or None if it is below ``least``."""
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict  # here: it takes a second to import
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_depth=_DEPTH, class_weight="balanced", random_state=0)
    # Most variables cannot even tell the patients that the tree was grown on: a twentieth of the time.
    if balanced_accuracy_score(classes, tree.fit(inputs, classes).predict(inputs)) < least:
        return None
    folds = min(_FOLDS, int(np.unique(classes, return_counts=True)[1].min()))
    splitter = StratifiedKFold(folds, shuffle=True, random_state=0)
    accuracy = float(balanced_accuracy_score(classes, cross_val_predict(tree, inputs, classes, cv=splitter)))
    return accuracy if accuracy >= least else None
