# SPDX-License-Identifier: Apache-2.0
"""Where runs write to: the folder of a training and what may already be in it, and the slides that were left out."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persam_monai.cohort import Cohort, read_folds, write_folds
from persam_monai.data import BadSlides, BagDataset
from persam_monai.data.bad_slides import SKIPPED_FILE
from persam_monai.errors import UserError, raise_together
from persam_monai.files import read_tensors
from persam_monai.handlers import MLflowRun
from persam_monai.handlers.saving import CHECKPOINT, PREDICTION_FILES, SETTINGS
from persam_monai.model import ModelCard, load_card

logger = logging.getLogger(__name__)

FOLDS_FILE = "folds.csv"

# What it means that a hash has changed.
HASHES = {
    "fold_assignment": "the patients of the cohort table, or their folds, were others",
    "clinical_schema": "clinical.yaml was another: classes, variables, their order or their rules have changed",
}

# What may differ between the two halves of a resumed training: where it runs, and how much longer.
FREE_ON_RESUME = {"num_workers", "device", "max_epochs", "val_interval", "on_bad_slide", "cache_gb"}
FREE_ON_RESUME |= {"extractor_weights", "extractor_checkpointing"}


@dataclass(frozen=True)
class TrainingFolder:
    """Where a training keeps its files."""

    root: Path

    @property
    def model(self) -> Path:
        """The best model's weights."""
        return self.root / "models" / "model.pt"

    @property
    def checkpoint(self) -> Path:
        """The last state of the training."""
        return self.root / "checkpoints" / CHECKPOINT

    @property
    def folds(self) -> Path:
        """Every patient's fold."""
        return self.root / FOLDS_FILE

    def check(self, overwrite: bool) -> None:
        """Make sure that a training can begin here."""
        make_writable(self.root)
        earlier = [str(file) for file in (self.model, self.checkpoint) if os.path.exists(file)]
        if earlier and not overwrite:
            raise UserError(
                f"{self.root} already holds a training ({', '.join(earlier)}). Go on with it by --resume true, replace "
                "it by --overwrite true, or name another --output_dir."
            )

    def check_folds(self, assignment: Mapping[str, int], overwrite: bool) -> None:
        """Make sure that no other ``folds.csv`` than the training's own is replaced, such as one made by hand."""
        if not overwrite and os.path.exists(self.folds) and not self._has_folds(assignment):
            raise UserError(
                f"{self.folds} is there already, and its folds are not those of this training. Use them by "
                f"--folds_file {self.folds}, replace them by --overwrite true, or name another --output_dir."
            )

    def keep_folds(self, cohort: Cohort, assignment: Mapping[str, int]) -> None:
        """Write ``folds.csv``, unless it is there with these folds, perhaps with further columns."""
        if not (os.path.exists(self.folds) and self._has_folds(assignment)):
            write_folds(cohort, assignment, self.folds)

    def _has_folds(self, assignment: Mapping[str, int]) -> bool:
        try:
            return {patient: fold for patient, (_, fold) in read_folds(self.folds).items()} == dict(assignment)
        except UserError:
            return False

    def clear(self) -> None:
        """Remove an earlier training's model, checkpoint and evaluation, and the half-written files of a killed one."""
        results = [self.root / "evaluation" / name for name in ("metrics.json", SKIPPED_FILE, *PREDICTION_FILES)]
        for file in [self.model, self.checkpoint, *results]:
            file.unlink(missing_ok=True)
            file.with_suffix(".json").unlink(missing_ok=True)
        for folder in (self.model.parent, self.checkpoint.parent):
            for partial in folder.glob(".*.partial"):
                partial.unlink()

    def best_model_of(self, checkpoint: Path) -> dict[Path, bytes]:
        """The best model so far of the training that a checkpoint belongs to.

        Returns:
            The model's two files: their places in this folder and their contents. Empty if no epoch was eligible yet.
        """
        if read_tensors(checkpoint, "Start anew, or resume from a copy.")["best_model"]["epoch"] == 0:
            return {}
        theirs = checkpoint.resolve().parent.parent / self.model.relative_to(self.root)
        load_card(theirs)
        return {
            ours: theirs.with_suffix(ours.suffix).read_bytes() for ours in (self.model, self.model.with_suffix(".json"))
        }

    def resumed_from(self, resume: str | bool, provenance: Mapping[str, Any]) -> Path | None:
        """The checkpoint to go on from.

        Returns:
            ``None`` if the training is to start from the beginning: it is not resumed, or it was stopped before its
            first checkpoint.
        """
        if resume is False:
            return None
        path = self.checkpoint if resume is True else Path(resume)
        if not os.path.isfile(path):
            if resume is not True:
                raise UserError(f"--resume {path}: there is no such checkpoint. Expected a path to a {CHECKPOINT}.")
            logger.info("%s does not exist yet: the training starts from the beginning.", path)
            return None
        _compare(path.with_name(SETTINGS), provenance)
        return path


def folds_to_go_on_with(output_dir: str | os.PathLike[str], resume: str | bool) -> str | None:
    """The ``folds.csv`` of the training that is resumed; ``None`` if none is, or it has no checkpoint yet."""
    if resume is False:
        return None
    checkpoint = TrainingFolder(Path(output_dir)).checkpoint if resume is True else Path(resume)
    return _folds_beside(checkpoint) if os.path.isfile(checkpoint) else None


def folds_of(card: ModelCard) -> str | None:
    """The ``folds.csv`` of the training that made a model, where the model still is in its folder."""
    return _folds_beside(card.path)


def _folds_beside(file: Path) -> str | None:
    """``folds.csv`` of the training folder that a model or a checkpoint is in."""
    folds = file.resolve().parent.parent / FOLDS_FILE
    return str(folds) if os.path.isfile(folds) else None


def make_writable(folder: Path, setting: str = "output_dir") -> None:
    """Make ``folder`` if need be, and make sure that files can be written there."""
    probe = folder / f".writable.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{setting} {folder} is not writable: {error.strerror or error}. Name a folder that you may write to "
            f"with --{setting}."
        ) from error


def _compare(file: Path, provenance: Mapping[str, Any]) -> None:
    """Raise if the settings written beside a checkpoint differ from ``provenance`` in what matters."""
    if not os.path.isfile(file):
        raise UserError(f"{file} is missing: it says with what settings the checkpoint beside it was made. Copy both.")
    before = json.loads(file.read_text(encoding="utf-8"))
    now = json.loads(json.dumps(dict(provenance)))
    raise_together(
        "The training cannot be resumed with other settings than it was started with; take back what was changed, or "
        "start anew in another --output_dir",
        [
            HASHES.get(name) or f"{name} was {before.get(name)!r} and is now {now.get(name)!r}"
            for name in sorted(before.keys() | now.keys())
            if name not in FREE_ON_RESUME and before.get(name) != now.get(name)
        ],
    )


def report_skipped(datasets: Iterable[BagDataset], tracking: MLflowRun | None = None) -> None:
    """Log at the end how many slides were skipped, here and in MLflow, which gets no names."""
    for bad_slides in lists_of(datasets):
        if bad_slides.skip and tracking is not None:
            tracking.log_metrics({"skipped_slides": len(bad_slides.skipped)})
        if bad_slides.skipped:
            logger.warning("%d slides were skipped; %s lists them.", len(bad_slides.skipped), bad_slides.file)


def lists_of(datasets: Iterable[BagDataset]) -> list[BadSlides]:
    """The datasets' lists of bad slides, each once: parts may share one."""
    return list({id(dataset.bad_slides): dataset.bad_slides for dataset in datasets}.values())
