# SPDX-License-Identifier: Apache-2.0
"""What runs keep: votes as predictions, the model that is best on validation, the last state of a training.

Whatever is there is whole at any moment.
"""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.handlers.checkpoint import BaseSaveHandler, Checkpoint
from monai.handlers import CheckpointSaver
from torch import nn

from persam_monai.data import BagDataset
from persam_monai.errors import UserError
from persam_monai.files import replacing, write_json
from persam_monai.metrics import Predictions, Votes
from persam_monai.model import save_model
from persam_monai.networks import PersAMHead

logger = logging.getLogger(__name__)

PREDICTION_FILES = ("predictions.csv", "patient_predictions.csv")
CHECKPOINT = "last.pt"
SETTINGS = "last.json"


class BestModelSaver:
    """Saves the network whenever the validation loss is the lowest so far.

    Attach it to the validation engine. The first epochs can be excluded (the paper: three), but never all of them.

    Args:
        network: the network to save (without any wrapper).
        path: where ``model.pt`` goes; ``model.json`` is written beside it.
        card: what ``model.json`` says, apart from what is known only when saving.
        max_epochs: length of the training.
        skip_epochs: epochs whose model is never chosen; at most ``max_epochs - 1`` are.
        metric: name of the engine's metric to minimise.
    """

    def __init__(
        self,
        network: nn.Module,
        path: str,
        card: Mapping[str, Any],
        max_epochs: int,
        skip_epochs: int = 3,
        metric: str = "val_loss",
    ) -> None:
        self.network = network
        self.path = path
        self.card = dict(card)
        self.skip_epochs = min(skip_epochs, max_epochs - 1)
        self.metric = metric
        self.best = math.inf
        self.epoch = 0

    def attach(self, engine: Engine) -> None:
        """Look at the metric after every run of ``engine``."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Save the network if it is the best so far."""
        epoch, value = engine.state.epoch, float(engine.state.metrics[self.metric])
        if not math.isfinite(value):
            raise UserError(
                f"{self.metric} is {value} after epoch {epoch}: the training has diverged. Lower --learning_rate (and "
                "--extractor_learning_rate), or use --precision float32."
            )
        if epoch <= self.skip_epochs or value >= self.best:
            return
        self.best, self.epoch = value, epoch
        temperature = float(engine.state.metrics.get("val_temperature", 1.0))
        card = {**self.card, "epoch": epoch, self.metric: value, "temperature": temperature}
        head = getattr(self.network, "head", None)
        if isinstance(head, PersAMHead) and head.reading is not None:
            card["reading"] = head.readings[int(head.reading)]
        save_model(self.network, self.path, card)
        logger.debug("Saved %s: %s is %.4f after epoch %d.", self.path, self.metric, value, epoch)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far and its epoch, for a resumed training."""
        return {"best": self.best, "epoch": self.epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        A best epoch that is now to be skipped (a longer training skips more) does not count.
        """
        if int(state["epoch"]) > self.skip_epochs:
            self.best, self.epoch = float(state["best"]), int(state["epoch"])


class LastCheckpoint(CheckpointSaver):
    """MONAI's checkpoint saver with one file that is replaced in a single step after every epoch.

    MONAI's own removes the previous file, then writes the next one in place: a training killed in between has none.

    Args:
        save_dir: folder of ``last.pt`` and ``last.json``.
        save_dict: what to save besides the engine itself: objects with ``state_dict()``, by name.
        settings: what the training was started with; written beside the checkpoint for the resume to compare.
    """

    def __init__(self, save_dir: str, save_dict: dict[str, Any], settings: Mapping[str, Any]) -> None:
        # Without an interval MONAI's saver builds no file handler of its own, which would make the folder at once.
        super().__init__(save_dir=save_dir, save_dict=dict(save_dict))
        self.save_interval = 1
        self._interval_checkpoint = Checkpoint(self.save_dict, _ReplacingSaver(Path(save_dir), settings), n_saved=1)

    def attach(self, engine: Engine) -> None:
        """Save after every epoch of ``engine``, with the engine's own state."""
        self.save_dict["trainer"] = engine
        super().attach(engine)


class _ReplacingSaver(BaseSaveHandler):
    """Writes every checkpoint to the same place."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings = dict(settings)

    def __call__(self, checkpoint: Mapping[str, Any], filename: str, metadata: Mapping[str, Any] | None = None) -> None:
        write_json(self.folder / SETTINGS, self.settings)
        with replacing(self.folder / CHECKPOINT) as partial:
            torch.save(checkpoint, partial)

    def remove(self, filename: str) -> None:
        """Keep the file: the next one replaces it."""


class PredictionSaver:
    """Collects the votes of an evaluation and writes ``predictions.csv`` and ``patient_predictions.csv``.

    Args:
        dataset: the bags' dataset.
        folder: where the files go.
        warnings: what is to be said of a patient's encoded record ``[F]``; by default nothing.
        temperature: of the probabilities, as it was fitted on validation.
    """

    def __init__(
        self,
        dataset: BagDataset,
        folder: str,
        warnings: Callable[[np.ndarray], Sequence[str]] | None = None,
        temperature: float = 1.0,
    ) -> None:
        self.temperature = temperature
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
        self.votes = Votes(self.dataset.entries, self.temperature)

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
