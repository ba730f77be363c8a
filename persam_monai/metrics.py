# SPDX-License-Identifier: Apache-2.0
"""Predictions of slides and patients, which bags vote for, and their scores, as numbers and as Ignite metrics."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from ignite.engine import Engine
from ignite.metrics import Metric
from scipy.optimize import minimize_scalar
from scipy.stats import rankdata
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    log_loss,
    recall_score,
)
from torch import nn

from persam_monai.cohort import SlideEntry
from persam_monai.data import BagDataset
from persam_monai.errors import UserError, did_you_mean
from persam_monai.networks import PersAMHead

BINS = 10  # of a reliability diagram
TEMPERATURES = (0.5, 10.0)  # a validation fold is small: one without a mistake would ask for certainty


@dataclass(frozen=True)
class Predictions:
    """Class probabilities of units, which are slides or patients.

    Attributes:
        names: the units' names, ``[U]``.
        patients: each unit's patient, ``[U]``.
        labels: ``int64 [U]``, −1 where unknown.
        probabilities: ``float64 [U, C]``, rows sum to 1.
    """

    names: tuple[str, ...]
    patients: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """Index of the most probable class, ``[U]``."""
        return self.probabilities.argmax(axis=1)

    @property
    def labelled(self) -> Predictions:
        """The units whose label is known."""
        return self.take(np.flatnonzero(self.labels >= 0))

    def without(self, patients: Collection[str]) -> Predictions:
        """The units of other patients."""
        return self.take(np.flatnonzero([patient not in patients for patient in self.patients]))

    def take(self, units: np.ndarray) -> Predictions:
        """Some of the units, by index ``int [n]``; one may be taken several times."""
        return Predictions(
            tuple(self.names[i] for i in units),
            tuple(self.patients[i] for i in units),
            self.labels[units],
            self.probabilities[units],
        )


class Votes:
    """Collects the bags' votes.

    A slide's probabilities are the geometric mean of its bags', a patient's that of the patient's slides, each
    renormalised.

    Args:
        entries: the slides; a vote names one by its index.
        temperature: T; logits are divided by it.
    """

    def __init__(self, entries: Sequence[SlideEntry], temperature: float = 1.0) -> None:
        self.entries = entries
        self.temperature = temperature
        self._log_probabilities: list[list[np.ndarray]] = [[] for _ in entries]

    def add(self, slides: torch.Tensor, logits: torch.Tensor) -> None:
        """Count one vote per bag.

        Args:
            slides: ``[B]`` index of each bag's slide.
            logits: ``[B, C]``.
        """
        votes = F.log_softmax(logits.detach().double() / self.temperature, dim=1).cpu().numpy()  # [B, C]
        for slide, vote in zip(slides.tolist(), votes, strict=True):
            self._log_probabilities[slide].append(vote)

    def discard(self, slides: Iterable[int]) -> None:
        """Forget the votes of slides, by index, that turned out to be damaged: part of a slide has no prediction."""
        for slide in slides:
            self._log_probabilities[slide].clear()

    def slides(self) -> Predictions:
        """One prediction for each slide that has a vote, in the cohort's order."""
        voted = [i for i, votes in enumerate(self._log_probabilities) if votes]
        entries = [self.entries[i] for i in voted]
        mean = np.stack([_order_free_mean(self._log_probabilities[i]) for i in voted])  # [S, C]
        return Predictions(
            tuple(entry.slide for entry in entries),
            tuple(entry.patient_id for entry in entries),
            np.array([-1 if entry.label is None else entry.label for entry in entries], dtype=np.int64),
            _normalise(mean),
        )

    def patients(self) -> Predictions:
        """One prediction for each patient who has a slide with a vote, in the cohort's order."""
        slides = self.slides()
        patients = tuple(dict.fromkeys(slides.patients))
        members = [[i for i, owner in enumerate(slides.patients) if owner == patient] for patient in patients]
        logs = _logs(slides.probabilities)
        return Predictions(
            patients,
            patients,
            np.array([slides.labels[rows].max() for rows in members], dtype=np.int64),
            _normalise(np.stack([logs[rows].mean(axis=0) for rows in members])),
        )


def _order_free_mean(votes: list[np.ndarray]) -> np.ndarray:
    """Mean of [C] arrays that does not depend, even in the last bit, on the order in which they came."""
    return np.sort(np.stack(votes), axis=0).mean(axis=0)


def _normalise(log_probabilities: np.ndarray) -> np.ndarray:
    """Probabilities from unnormalised logarithms [U, C]."""
    shifted = np.exp(log_probabilities - log_probabilities.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def _logs(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities, np.finfo(float).tiny))


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
    areas = list(class_areas(predictions).values())
    return float(np.mean(areas)) if areas else math.nan


def class_areas(predictions: Predictions) -> dict[int, float]:
    """One-vs-rest area under the ROC curve of each class, by index, that some units have and others have not."""
    return _one_vs_rest(predictions, _area)


def average_precision(predictions: Predictions) -> float:
    """Macro one-vs-rest average precision, over the same classes as :func:`auroc`."""
    values = list(_one_vs_rest(predictions, average_precision_score).values())
    return float(np.mean(values)) if values else math.nan


def _one_vs_rest(predictions: Predictions, score: Callable[..., float]) -> dict[int, float]:
    return {
        index: float(score(predictions.labels == index, predictions.probabilities[:, index]))
        for index in range(predictions.probabilities.shape[1])
        if 0 < np.count_nonzero(predictions.labels == index) < len(predictions.labels)
    }


def _area(own: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve by ranks: scikit-learn's, a tenth of the time, and resampling asks for thousands."""
    ones = np.count_nonzero(own)
    return float((rankdata(score)[own].sum() - ones * (ones + 1) / 2) / (ones * (len(own) - ones)))


def f1(predictions: Predictions) -> float:
    """Mean F1 over the classes present; NaN without units."""
    if not len(predictions.labels):
        return math.nan
    present = np.unique(predictions.labels)
    return float(f1_score(predictions.labels, predictions.predicted, labels=present, average="macro", zero_division=0))


def kappa(predictions: Predictions) -> float:
    """Cohen's κ of predicted class and label; NaN where a single class is all there is."""
    if len(np.union1d(predictions.labels, predictions.predicted)) < 2:
        return math.nan
    return float(cohen_kappa_score(predictions.labels, predictions.predicted))


def nll(predictions: Predictions) -> float:
    """Mean negative log-likelihood of the label; NaN without units."""
    of_label = predictions.probabilities[np.arange(len(predictions.labels)), predictions.labels]
    return float(-np.log(np.maximum(of_label, np.finfo(float).tiny)).mean()) if len(of_label) else math.nan


def brier(predictions: Predictions) -> float:
    """Mean over units of the squared distance between probabilities and label, summed over classes (Brier 1950)."""
    if not len(predictions.labels):
        return math.nan
    target = np.eye(predictions.probabilities.shape[1])[predictions.labels]  # [U, C]
    return float(((predictions.probabilities - target) ** 2).sum(axis=1).mean())


def reliability(predictions: Predictions) -> list[dict[str, float]]:
    """Confidence and correctness, in ten bins of equal width of the predicted class's probability.

    Returns:
        Of each bin that holds a unit: ``confidence``, its mean; ``accuracy``, the share that is right; ``count``.
    """
    confidence, right = predictions.probabilities.max(axis=1), predictions.predicted == predictions.labels
    bin_of = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        {"confidence": float(confidence[own].mean()), "accuracy": float(right[own].mean()), "count": int(own.sum())}
        for own in (bin_of == i for i in np.unique(bin_of))
    ]


def calibration_error(predictions: Predictions) -> float:
    """Expected calibration error: mean distance between confidence and correctness in the bins of :func:`reliability`.

    Bins weigh by their units; NaN without units.
    """
    if not len(predictions.labels):
        return math.nan
    gaps = [abs(bin_["confidence"] - bin_["accuracy"]) * bin_["count"] for bin_ in reliability(predictions)]
    return float(sum(gaps) / len(predictions.labels))


SCORES: dict[str, Callable[[Predictions], float]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "auroc": auroc,
    "average_precision": average_precision,
    "f1": f1,
    "kappa": kappa,
    "nll": nll,
    "brier": brier,
    "calibration_error": calibration_error,
}


def report(predictions: Predictions, classes: Sequence[str]) -> dict[str, Any]:
    """All scores of the labelled predictions, as JSON-able values; ``None`` for what cannot be computed.

    Args:
        predictions: of slides or of patients.
        classes: names, in the order of the probabilities.

    Returns:
        ``count``; every score of :data:`SCORES`; ``classes_in_auroc``; ``confusion_matrix`` with a
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


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T that makes probabilities p^(1/T), renormalised, fit labels best (Guo et al. 2017).

    Args:
        probabilities: ``[U, C]``, of units that the model was not trained on.
        labels: ``int [U]``.

    Returns:
        T, between 0.5 and 10; above 1 where the model is too sure.
    """
    logs = _logs(probabilities)

    def loss(log_temperature: float) -> float:
        return float(log_loss(labels, _normalise(logs / np.exp(log_temperature)), labels=range(logs.shape[1])))

    low, high = np.log(TEMPERATURES)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))


def always(label: int, predictions: Predictions) -> Predictions:
    """What predicting class ``label`` for every unit would have been."""
    certain = np.zeros_like(predictions.probabilities)
    certain[:, label] = 1
    return Predictions(predictions.names, predictions.patients, predictions.labels, certain)


LEVELS = ("slide", "patient")


def loss_of(output: dict[str, Any]) -> torch.Tensor:
    """The loss in a trainer's output; MONAI's ``from_engine`` would wrap it in a tuple."""
    loss: torch.Tensor = output["loss"]
    return loss.detach()


class VoteScore(Metric):
    """A score of the predictions that the bags of an epoch vote for.

    Args:
        dataset: the bags' dataset.
        score: a name in :data:`SCORES`.
        level: ``slide`` or ``patient``; never bags.

    Raises:
        UserError: if ``score`` or ``level`` is unknown.
    """

    def __init__(self, dataset: BagDataset, score: str = "auroc", level: str = "slide") -> None:
        for name, value, known in (("score", score, tuple(SCORES)), ("level", level, LEVELS)):
            if value not in known:
                raise UserError(f"{name} is {value!r}; expected one of {', '.join(known)}.{did_you_mean(value, known)}")
        self.dataset = dataset
        self.score = SCORES[score]
        self.level = level
        super().__init__()

    def reset(self) -> None:
        """Forget all votes."""
        self.votes: Votes | None = None

    @torch.no_grad()
    def iteration_completed(self, engine: Engine) -> None:
        """Take the votes of the batch that the engine has just seen."""
        self.update((engine.state.batch["slide"], engine.state.output["pred"].logits))

    def update(self, output: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Count slides ``[B]`` and their logits ``[B, C]``."""
        if self.votes is None:
            self.votes = Votes(self.dataset.entries)
        self.votes.add(*output)

    def compute(self) -> float:
        """The score of the labelled slides or patients."""
        if self.votes is None:
            return float("nan")
        self.votes.discard(self.dataset.skipped)
        predictions = self.votes.slides() if self.level == "slide" else self.votes.patients()
        return self.score(predictions.labelled)


class VoteTemperature(Metric):
    """The temperature that fits the patients' probabilities best, see :func:`fit_temperature`.

    Where a head can read both image and record or one of them alone, it reads from then on whatever has the lowest
    negative log-likelihood at its temperature.

    Args:
        dataset: the bags' dataset.
        held_out: whether its patients are not trained on; else the temperature is 1, and both are read.
        head: of the network that the engine runs, a MONAI evaluator; ``None`` if it has one reading.
    """

    def __init__(self, dataset: BagDataset, held_out: bool = True, head: nn.Module | None = None) -> None:
        self.dataset = dataset
        self.held_out = held_out
        self.head = head if held_out and isinstance(head, PersAMHead) and len(head.readings) > 1 else None
        super().__init__()

    def reset(self) -> None:
        """Forget all votes; both are read."""
        self.votes: dict[str, Votes] = {}
        if self.head is not None:
            self.head.read("both")

    @torch.no_grad()
    def iteration_completed(self, engine: Engine) -> None:
        """Take the votes of the batch that the engine has just seen, and those of the other readings."""
        slides = engine.state.batch["slide"]
        self.update((slides, engine.state.output["pred"].logits))
        if self.head is None:
            return
        inputs, _, _, named = engine.prepare_batch(engine.state.batch, engine.state.device)
        with engine.mode(engine.network):  # between iterations of a training's validation, the network is to learn
            for reading in self.head.readings[1:]:
                self.head.read(reading)
                self.update((slides, engine.inferer(inputs, engine.network, **named).logits), reading)
        self.head.read("both")

    def update(self, output: tuple[torch.Tensor, torch.Tensor], reading: str = "both") -> None:
        """Count slides ``[B]`` and their logits ``[B, C]``."""
        self.votes.setdefault(reading, Votes(self.dataset.entries)).add(*output)

    def compute(self) -> float:
        """The temperature of the best reading, which the head has from now on."""
        found = []
        for reading, votes in self.votes.items():
            votes.discard(self.dataset.skipped)
            known = votes.patients().labelled
            if not self.held_out or not len(known.labels):
                return 1.0
            temperature = fit_temperature(known.probabilities, known.labels)
            tempered = replace(known, probabilities=_normalise(_logs(known.probabilities) / temperature))
            found.append((nll(tempered), temperature, reading))
        if not found:
            return math.nan
        _, temperature, reading = min(found, key=lambda one: one[0])
        if self.head is not None:
            self.head.read(reading)
        return temperature


class SlideLoss(Metric):
    """Mean over slides of the mean loss of their bags, so that a large slide weighs like a small one.

    Args:
        loss: takes what the network predicts and the labels ``[B]``; must work on one bag.
        dataset: the bags' dataset; slides that it skips do not count.
    """

    def __init__(self, loss: Callable[[Any, torch.Tensor], torch.Tensor], dataset: BagDataset | None = None) -> None:
        self.loss = loss
        self.dataset = dataset
        super().__init__()

    def reset(self) -> None:
        """Forget all losses."""
        self._losses: dict[int, list[float]] = defaultdict(list)

    @torch.no_grad()
    def iteration_completed(self, engine: Engine) -> None:
        """Take the losses of the batch that the engine has just seen."""
        output = engine.state.output
        self.update((engine.state.batch["slide"], output["pred"], output["label"]))

    def update(self, output: tuple[torch.Tensor, Any, torch.Tensor]) -> None:
        """Count slides ``[B]``, the network's predictions (a tuple of tensors ``[B, …]``) and labels ``[B]``."""
        slides, prediction, labels = output
        for i, slide in enumerate(slides.tolist()):
            one = type(prediction)(*(field[i : i + 1] for field in prediction))
            self._losses[slide].append(float(self.loss(one, labels[i : i + 1])))

    def compute(self) -> float:
        """The mean; NaN without bags."""
        skipped = set() if self.dataset is None else self.dataset.skipped
        means = [sum(losses) / len(losses) for slide, losses in sorted(self._losses.items()) if slide not in skipped]
        return sum(means) / len(means) if means else float("nan")
