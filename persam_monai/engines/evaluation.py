# SPDX-License-Identifier: Apache-2.0
"""Predictions of a trained model: on the test fold, or on new slides."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.engines import SupervisedEvaluator
from torch import nn

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Split, read_folds
from persam_monai.data import BagDataset
from persam_monai.engines.joining import check_feature_dim, check_features, join_extractor
from persam_monai.engines.outputs import folds_of, make_writable, report_skipped
from persam_monai.errors import UserError, raise_together
from persam_monai.files import write_json
from persam_monai.handlers import MLflowRun, PredictionSaver
from persam_monai.metrics import Votes, always, report
from persam_monai.model import ModelCard, load_weights
from persam_monai.screen import log_to

logger = logging.getLogger(__name__)


@dataclass
class Prediction:
    """Predictions of a trained model on new slides.

    Args:
        evaluator: runs the network over ``dataset``.
        network: the network inside the evaluator's; gets the card's weights.
        card: of the trained model.
        dataset: the bags.
        saver: writes the predictions.
        extractor_weights: for slides, if the model was trained on features: what those were extracted with.
    """

    evaluator: SupervisedEvaluator
    network: nn.Module
    card: ModelCard
    dataset: BagDataset
    saver: PredictionSaver
    extractor_weights: str | None = None

    def run(self) -> None:
        """Load the model, look for tissue, and let the bags vote.

        Where the table has labels, ``metrics.json`` says how good the predictions are, of patients that the model was
        not trained on.

        Raises:
            UserError: if the weights do not fit, a slide cannot be used, or the folder cannot be written.
        """
        make_writable(self.saver.folder)
        with log_to(self.saver.folder / "inference.log"):
            self._predict()
            self._score()

    def _score(self) -> None:
        """Score the patients whose label is known, but for those that the model has seen."""
        votes, file = self.saver.votes, self.saver.folder / "metrics.json"
        file.unlink(missing_ok=True)
        assert votes is not None
        seen = _patients_seen(self.card)
        levels = {"slide": votes.slides().labelled, "patient": votes.patients().labelled}
        left_out = len(seen.intersection(levels["patient"].names))
        unseen = {level: predictions.without(seen) for level, predictions in levels.items()}
        if left_out:
            logger.warning(
                "%d labelled patients have identifiers of patients that the model was trained on: they are predicted, "
                "and left out of the scores.",
                left_out,
            )
        if not unseen["patient"].names:
            return
        classes = self.card.schema.classes
        scores = {level: report(predictions, classes) for level, predictions in unseen.items()}
        write_json(file, {"classes": list(classes), **scores, "patients_left_out": left_out})
        logger.info("Labels of %d patients are known: see %s.", len(unseen["patient"].names), file)

    def _predict(self, tracking: MLflowRun | None = None) -> None:
        """What evaluating and inference share."""
        network, card, dataset = self.network, self.card, self.dataset
        load_weights(network, card)
        patches = dataset.source.patches
        join_extractor(network, card, patches, self.extractor_weights)
        if patches.mpp != card.mpp or patches.size != card.patch_size:
            logger.warning(
                "The model was trained on patches of %d px at %g µm/px and is asked about patches of %d px at %g "
                "µm/px: it has never seen tissue at that scale.",
                card.patch_size,
                card.mpp,
                patches.size,
                patches.mpp,
            )
        dataset.prepare()
        if getattr(getattr(network, "head", None), "reads_patches", True):
            check_features(card, dataset)
            check_feature_dim(network, dataset)
        dataset.bad_slides.begin()
        self.evaluator.run()
        report_skipped([dataset], tracking)
        logger.info("Wrote %s.", self.saver.folder / "predictions.csv")


@dataclass(kw_only=True)
class Evaluation(Prediction):
    """Predictions on the test fold, and how good they are.

    Args:
        split: of the fold.
        tracking: the MLflow run.
        provenance: see :func:`persam_monai.engines.provenance`.
        output_dir: of the training.
    """

    split: Split
    tracking: MLflowRun
    provenance: Mapping[str, Any]
    output_dir: str = "output"

    def run(self) -> None:
        """Predict the test fold and write ``metrics.json``.

        It has scores per slide and per patient, and those of always guessing the class that is commonest in training.

        Raises:
            UserError: if the model was trained with another schema or another fold, and as :meth:`Prediction.run`.
        """
        _check_same_cohort(self.card, self.split.test.schema, self.provenance)
        if len(self.split.test) == 0:
            raise UserError(
                f"{self.card.path} was trained on every patient (--fold all), so no one is left to test it on. Predict "
                "other patients by inference; cross_validate.py says how good such a model is."
            )
        make_writable(self.saver.folder)
        with log_to(self.saver.folder / "evaluation.log"), self.tracking.track():
            self._predict(self.tracking)
            assert self.saver.votes is not None
            metrics = _metrics(self.saver.votes, self.split)
            write_json(self.saver.folder / "metrics.json", metrics)
            for level in ("slide", "patient"):
                scores = {f"test_{level}_{name}": value for name, value in metrics[level].items() if _is_number(value)}
                self.tracking.log_metrics(scores)
            self.tracking.log_file(self.saver.folder / "metrics.json")
            logger.info("Wrote %s.", self.saver.folder / "metrics.json")
            logger.info("See the results:\n  python scripts/show_results.py %s", self.output_dir)


def _patients_seen(card: ModelCard) -> set[str]:
    """Whom a model was trained or validated on, as far as the ``folds.csv`` of its training is there."""
    file = folds_of(card)
    if file is None:
        return set()
    return {patient for patient, (_, fold) in read_folds(file).items() if fold != card.settings.get("fold")}


def _check_same_cohort(card: ModelCard, schema: ClinicalSchema, provenance: Mapping[str, Any]) -> None:
    """The test fold must be the one the model was not trained on, read as the model was taught to read it."""
    if schema != card.schema or schema.component_names != card.schema.component_names:  # dictionaries have no order
        raise UserError(
            f"The clinical schema in dataset_dir is not the one that {card.path} was trained with. Evaluate with that "
            "one (it stands in model.json under schema), or train anew."
        )
    raise_together(
        f"{card.path} was trained with another split, so its test fold may hold patients it was trained on",
        [
            f"{name} was {card.trained_with(name)!r} and is now {provenance[name]!r}: give --{name} "
            f"{card.trained_with(name)}"
            for name in ("fold", "folds", "seed")
            if card.trained_with(name) != provenance.get(name)
        ],
    )
    if card.settings.get("fold_assignment") != provenance["fold_assignment"]:
        raise UserError(
            f"The patients of the cohort table, or their folds, are not those that {card.path} was trained with, so "
            "the test fold may hold patients it was trained on. Evaluate with the table as it was then, or predict new "
            "patients by inference."
        )


def _metrics(votes: Votes, split: Split) -> dict[str, Any]:
    """The scores of both levels, beside those of always guessing the commonest class."""
    classes = split.test.classes
    commonest = int(np.argmax(split.train.class_counts()))
    metrics: dict[str, Any] = {"classes": list(classes)}
    baseline: dict[str, Any] = {"always": classes[commonest]}
    for level, predictions in (("slide", votes.slides()), ("patient", votes.patients())):
        metrics[level] = report(predictions, classes)
        baseline[level] = report(always(commonest, predictions), classes)
    return {**metrics, "commonest_class": baseline}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
