# SPDX-License-Identifier: Apache-2.0
"""From a configured trainer to a trained model, and what the model says of itself."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.handlers import CheckpointLoader

from persam_monai.clinical import RecordStatistics
from persam_monai.cohort import Cohort, Split
from persam_monai.commandline import next_command
from persam_monai.data import BagDataset, Source, generator_for
from persam_monai.engines.joining import check_feature_dim
from persam_monai.engines.outputs import TrainingFolder, lists_of, report_skipped
from persam_monai.errors import UserError
from persam_monai.files import read_tensors, replacing
from persam_monai.handlers import MLflowRun
from persam_monai.losses import PersAMLoss
from persam_monai.networks import (
    Head,
    PersAM,
    PersAMOnFeatures,
    describe_head,
    load_extractor_weights,
    resolve_precision,
)
from persam_monai.screen import log_to

logger = logging.getLogger(__name__)

Network = PersAM | PersAMOnFeatures

ROUNDING = 3e-7  # relative; other processors add up in another order, which may change the last bit of 32
# Patches, spread over each slide, whose features are looked at for their statistics.
ROWS, ROWS_IN_ALL = 64, 2**15  # 2**15 of 2,048 features are 256 MB


@dataclass
class Training:
    """From a configured trainer to a trained model.

    Args:
        trainer: its handlers validate, log and save.
        network: the network inside the trainer's.
        loss: takes its class weights from the training fold.
        cohort: all patients.
        split: the three parts of it that the fold makes.
        assignment: every patient's fold.
        train: the training part's bags.
        validation: the validation part's bags.
        state: objects of a checkpoint besides the trainer, by name.
        tracking: the MLflow run.
        output_dir: where everything goes.
        provenance: see :func:`provenance`; compared on a resume.
        extractor_weights: see :func:`persam_monai.networks.load_extractor_weights`.
        resume: go on from the last checkpoint (true) or from a path.
        overwrite: replace an earlier training in ``output_dir``.
    """

    trainer: SupervisedTrainer
    network: Network
    loss: PersAMLoss
    cohort: Cohort
    split: Split
    assignment: Mapping[str, int]
    train: BagDataset
    validation: BagDataset
    state: Mapping[str, Any]
    tracking: MLflowRun
    output_dir: str
    provenance: Mapping[str, Any]
    extractor_weights: str | None = None
    resume: str | bool = False
    overwrite: bool = False

    def run(self) -> None:
        """Fit what is fitted on the training fold, then train to the last epoch."""
        self._check_settings()
        folder = TrainingFolder(Path(self.output_dir))
        checkpoint = folder.resumed_from(self.resume, self.provenance)
        own = checkpoint is not None and checkpoint.resolve() == folder.checkpoint.resolve()
        if not own:
            folder.check(self.overwrite)
            folder.check_folds(self.assignment, self.overwrite)
        with log_to(folder.root / "training.log"), self.tracking.track():
            self._prepare(checkpoint)
            best_so_far = {} if checkpoint is None else folder.best_model_of(checkpoint)
            if not own:  # only now that nothing more can be wrong
                folder.clear()
                for file, content in best_so_far.items():
                    with replacing(file) as partial:
                        partial.write_bytes(content)
            for bad_slides in lists_of([self.train, self.validation]):
                bad_slides.begin(keep=own)
            folder.keep_folds(self.cohort, self.assignment)
            self._announce()
            self.trainer.run()
            self.tracking.log_model(folder.model.with_suffix(".json"))
            report_skipped([self.train, self.validation], self.tracking)
            logger.info("The best model is %s.", folder.model)
            if len(self.split.test) and (command := next_command("evaluating", "evaluate.json")):
                logger.info("Evaluate it on the test fold:\n  %s", command)

    def _check_settings(self) -> None:
        on_pixels = isinstance(self.network, PersAM)
        if not on_pixels and self.extractor_weights is not None:
            raise UserError(
                f"--extractor_weights {self.extractor_weights}: the features are extracted already; weights of an "
                "extractor belong to extract.json."
            )
        if on_pixels and (components := self.network.head.settings.get("reduce_features")):
            raise UserError(
                f"--reduce_features {components} goes with features that were extracted before (--features_dir): those "
                "of an extractor that learns change all the time."
            )

    def _prepare(self, checkpoint: Path | None) -> None:
        """Weights, statistics and bags, as they are before the first epoch or after the checkpoint's."""
        self.network.head.fit_records(torch.from_numpy(self.split.train.clinical_matrix()))
        self.loss.fit(self.split.train.class_counts())
        if checkpoint is not None:
            _go_on_from(checkpoint, self.trainer, self.state)
            for bad_slides in lists_of([self.train, self.validation]):
                bad_slides.restore(checkpoint.resolve().parent.parent)
        elif isinstance(self.network, PersAM):
            load_extractor_weights(self.network.extractor, self.extractor_weights)
        for dataset in (self.train, self.validation):
            dataset.prepare()
            check_feature_dim(self.network, dataset)
        if checkpoint is None:
            _fit_features(self.network, self.train)

    def _announce(self) -> None:
        """Say what the training goes through, and which classes are missing because their slides were skipped."""
        train, validation, loader = self.train, self.validation, self.trainer.data_loader
        used = [entry for i, entry in enumerate(train.entries) if i not in train.skipped]
        logger.info(
            "Training on %d slides (%d bags an epoch) of %d patients, validating on %d slides.",
            len(used),
            len(train),
            len({entry.patient_id for entry in used}),
            len(validation.entries) - len(validation.skipped),
        )
        logger.info(
            "Reading %s: %d bags in a batch, %d batches in a step, %d worker processes.",
            "slides" if train.source.pixels else "features",
            loader.batch_size,
            self.trainer.accumulation_steps,
            loader.num_workers,
        )
        if len(self.split.test) == 0:
            logger.info("Every patient is trained on: the val_ figures are theirs, and the last epoch's model is kept.")
        labels = {entry.label for entry in train.entries if entry.label is not None}
        for label in sorted(labels - {entry.label for entry in used}):
            logger.warning("All training slides of the class %s were skipped.", self.cohort.classes[label])


def _fit_features(network: Network, train: BagDataset) -> None:
    """Take the principal components of features from the training slides, if the head asks for them."""
    if network.head.settings.get("reduce_features") is None:
        return
    found, most = [], max(2, min(ROWS, ROWS_IN_ALL // len(train.entries)))
    for i, (entry, one) in enumerate(zip(train.entries, train.instances, strict=True)):
        if one is not None and i not in train.skipped:
            rows = np.unique(np.linspace(0, len(one) - 1, most).astype(int))
            try:
                found.append(one.read(rows, generator_for(entry.slide))[0].astype(np.float32))
            except UserError as error:
                train.skip(i, error)
    if sum(map(len, found)) < 2:
        raise UserError("--reduce_features: the training slides have a single patch, which does not vary.")
    network.head.fit_features(torch.from_numpy(np.concatenate(found)))


def _go_on_from(checkpoint: Path, trainer: SupervisedTrainer, state: Mapping[str, Any]) -> None:
    """Load the checkpoint when the trainer starts; refuse at once one that was fitted to other records."""
    _check_same_records(checkpoint, state["network"].head)
    loader = CheckpointLoader(str(checkpoint), {**state, "trainer": trainer}, map_location="cpu")

    def load(engine: SupervisedTrainer) -> None:
        try:
            loader(engine)
        except (ValueError, KeyError, RuntimeError) as error:
            raise UserError(f"The checkpoint {checkpoint} cannot be resumed: {error}") from error
        logger.info("Going on from %s after epoch %d.", checkpoint, engine.state.epoch)

    trainer.add_event_handler(Events.STARTED, load)


def _check_same_records(checkpoint: Path, head: Head) -> None:
    """Raise if the head, fitted to this training's records, has other statistics than the checkpoint's."""
    before = read_tensors(checkpoint, "Start anew, or resume from a copy.")["network"]
    changed = [
        name.rpartition(".")[2]
        for name, now in head.named_buffers(prefix="head")
        if name in before and "reduction" not in name and not _equal(before[name].double(), now.cpu().double())
    ]
    if changed:
        raise UserError(
            f"The clinical values of the training patients are not those that {checkpoint} was trained with: "
            f"{', '.join(changed)} would change under the trained weights. Take back what was changed in the table or "
            "the schema, or start anew with --overwrite true or another --output_dir."
        )


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=ROUNDING, atol=0)


def provenance(
    settings: Mapping[str, Any], source: Source, cohort: Cohort, assignment: Mapping[str, int]
) -> dict[str, Any]:
    """What a training's result depends on.

    Args:
        settings: see :func:`persam_monai.commandline.running_settings`.
        source: where the bags come from.
        cohort: all patients.
        assignment: every patient's fold.

    Returns:
        JSON-able: the settings, with the precision that is used; what made the features (``features``); and the SHA-256
        of every patient's fold (``fold_assignment``) and of the schema (``clinical_schema``).
    """
    return {
        **settings,
        "precision": resolve_precision(settings["precision"], settings["device"]),
        "features": source.made_of(cohort.entries),
        "fold_assignment": _digest(sorted(assignment.items())),
        "clinical_schema": _digest(cohort.schema.to_dict()),  # the order of classes, groups and levels counts
    }


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def describe(
    network: PersAM | PersAMOnFeatures, train: Cohort, source: Source, bag_size: int, provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """What ``model.json`` says of a network that is being trained.

    Args:
        network: has a ``head`` with ``settings``.
        train: the training part of the cohort.
        source: where the bags come from.
        bag_size: patches in a bag.
        provenance: see :func:`provenance`.
    """
    labels = list(train.patient_labels.values())
    slides = dict(zip(train.classes, train.class_counts(), strict=True))
    counts = {name: {"patients": labels.count(i), "slides": slides[name]} for i, name in enumerate(train.classes)}
    return {
        "schema": train.schema.to_dict(),
        "statistics": RecordStatistics.fit(train.schema, train.clinical_matrix()).to_dict(),
        "trained_on": {"patients": len(labels), "slides": len(train), "classes": counts},
        "head": describe_head(network.head),
        "patch_size": source.patches.size,
        "mpp": source.patches.mpp,
        "features": source.made_of(train.entries),
        "bag_size": bag_size,
        "settings": dict(provenance),
    }
