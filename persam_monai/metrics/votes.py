# SPDX-License-Identifier: Apache-2.0
"""Bags vote: one prediction per slide, one per patient."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from persam_monai.cohort import SlideEntry


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
        known = np.flatnonzero(self.labels >= 0)
        return Predictions(
            tuple(self.names[i] for i in known),
            tuple(self.patients[i] for i in known),
            self.labels[known],
            self.probabilities[known],
        )


class Votes:
    """Collects the bags' votes.

    A slide's probabilities are the geometric mean of its bags', a patient's that of the patient's slides, each
    renormalised.

    Args:
        entries: the slides; a vote names one by its index.
    """

    def __init__(self, entries: Sequence[SlideEntry]) -> None:
        self.entries = entries
        self._log_probabilities: list[list[np.ndarray]] = [[] for _ in entries]

    def add(self, slides: torch.Tensor, logits: torch.Tensor) -> None:
        """Count one vote per bag.

        Args:
            slides: ``[B]`` index of each bag's slide.
            logits: ``[B, C]``.
        """
        votes = F.log_softmax(logits.detach().double(), dim=1).cpu().numpy()  # [B, C]
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
        logs = np.log(np.maximum(slides.probabilities, np.finfo(float).tiny))
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
