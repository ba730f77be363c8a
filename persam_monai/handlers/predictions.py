# SPDX-License-Identifier: Apache-2.0
"""Writes what the bags voted for."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from ignite.engine import Engine, Events

from persam_monai.data import BagDataset
from persam_monai.files import replacing
from persam_monai.metrics import Predictions, Votes

logger = logging.getLogger(__name__)

PREDICTION_FILES = ("predictions.csv", "patient_predictions.csv")


class PredictionSaver:
    """Collects the votes of an evaluation and writes ``predictions.csv`` and ``patient_predictions.csv``.

    Args:
        dataset: the bags' dataset.
        folder: where the files go.
        warnings: what is to be said of a patient's encoded record ``[F]``; by default nothing.
    """

    def __init__(
        self, dataset: BagDataset, folder: str, warnings: Callable[[np.ndarray], Sequence[str]] | None = None
    ) -> None:
        self.dataset = dataset
        self.folder = Path(folder)
        self.warnings = warnings
        self.votes: Votes | None = None

    def attach(self, engine: Engine) -> None:
        """Collect the votes of ``engine`` and write the files at the end of its epoch."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)

    def started(self, engine: Engine) -> None:
        """Begin anew."""
        self.votes = Votes(self.dataset.entries)

    def iteration_completed(self, engine: Engine) -> None:
        """Count the batch's votes."""
        assert self.votes is not None
        self.votes.add(engine.state.batch["slide"], engine.state.output["pred"].logits)

    def epoch_completed(self, engine: Engine) -> None:
        """Write the files."""
        assert self.votes is not None
        self.votes.discard(self.dataset.skipped)
        classes = self.dataset.data.classes
        by_slide, by_patient = (self.folder / name for name in PREDICTION_FILES)
        slides, patients = self.votes.slides(), self.votes.patients()
        warnings = self._warnings(patients.names)
        write_predictions(slides, classes, by_slide, "slide", warnings)
        write_predictions(patients, classes, by_patient, "patient", warnings)
        warned = sum(map(bool, warnings.values()))
        if warned:  # how many, and not who and what: this goes to logs
            logger.warning(
                "Something is to be said of the records of %d of %d patients: see the column warnings of %s.",
                warned,
                len(patients.names),
                by_patient,
            )

    def _warnings(self, patients: Iterable[str]) -> dict[str, str]:
        """What is to be said of each patient's record, in one line."""
        record = {entry.patient_id: entry.clinical for entry in self.dataset.entries}
        warn = self.warnings or (lambda record: ())
        return {patient: "; ".join(warn(record[patient])) for patient in patients}


def write_predictions(
    predictions: Predictions, classes: tuple[str, ...], path: Path, unit: str, warnings: Mapping[str, str]
) -> None:
    """Write predictions as CSV.

    Args:
        predictions: of slides or patients.
        classes: names, in the order of the probabilities.
        path: the file, replaced in one step.
        unit: ``slide`` (columns slide, patient, label, predicted, one per class, warnings) or ``patient`` (the same
            without slide). The label is empty where it is unknown.
        warnings: what is to be said of each patient's record.
    """
    named = unit == "slide"
    fields = (predictions.names, predictions.patients, predictions.labels, predictions.predicted)
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*["slide"] * named, "patient", "label", "predicted", *classes, "warnings"])
        for name, patient, label, predicted, row in zip(*fields, predictions.probabilities, strict=True):
            known = classes[label] if label >= 0 else ""
            shares = [f"{probability:.6f}" for probability in row]
            warning = warnings.get(patient, "")
            writer.writerow([*[name] * named, patient, known, classes[predicted], *shares, warning])
