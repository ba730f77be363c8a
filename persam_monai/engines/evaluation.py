# SPDX-License-Identifier: Apache-2.0
"""Predictions of a trained model: on the test fold, or on new slides."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from monai.engines import SupervisedEvaluator
from torch import nn

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Split
from persam_monai.data import BagDataset
from persam_monai.engines.joining import check_feature_dim, check_features, join_extractor
from persam_monai.engines.outputs import make_writable
from persam_monai.engines.skipping import report_skipped
from persam_monai.errors import UserError, raise_together
from persam_monai.files import write_json
from persam_monai.handlers import MLflowRun, PredictionSaver
from persam_monai.metrics import Votes, always, report
from persam_monai.model import ModelCard, load_weights

logger = logging.getLogger(__name__)


def evaluate(
    evaluator: SupervisedEvaluator,
    network: nn.Module,
    card: ModelCard,
    split: Split,
    dataset: BagDataset,
    saver: PredictionSaver,
    tracking: MLflowRun,
    provenance: Mapping[str, Any],
    extractor_weights: str | None = None,
) -> dict[str, Any]:
    """Predict the test fold and say how good the predictions are.

    Args:
        evaluator: runs the network over ``dataset``.
        network: the network inside the evaluator's; gets the card's weights.
        card: of the trained model.
        split: of the fold.
        dataset: bags of the test fold.
        saver: writes the predictions.
        tracking: the MLflow run.
        provenance: see :func:`persam_monai.engines.provenance`.
        extractor_weights: see :func:`predict`.

    Returns:
        What ``metrics.json`` says: scores per slide and per patient, and those of always guessing the class that is
        commonest in the training fold.

    Raises:
        UserError: if the model was trained with another schema or another fold, and as :func:`predict`.
    """
    _check_same_cohort(card, split.test.schema, provenance)
    with tracking.track():
        predict(evaluator, network, card, dataset, saver, tracking, extractor_weights)
        assert saver.votes is not None
        metrics = _metrics(saver.votes, split)
        write_json(saver.folder / "metrics.json", metrics)
        for level in ("slide", "patient"):
            scores = {f"test_{level}_{name}": value for name, value in metrics[level].items() if _is_number(value)}
            tracking.log_metrics(scores)
        tracking.log_file(saver.folder / "metrics.json")
    logger.info("Wrote %s.", saver.folder / "metrics.json")
    return metrics


def predict(
    evaluator: SupervisedEvaluator,
    network: nn.Module,
    card: ModelCard,
    dataset: BagDataset,
    saver: PredictionSaver,
    tracking: MLflowRun | None = None,
    extractor_weights: str | None = None,
) -> None:
    """Load the model, look for tissue, and let the bags vote. Evaluating and inference share this.

    Args:
        evaluator: runs the network over ``dataset``.
        network: the network inside the evaluator's; gets the card's weights.
        card: of the trained model.
        dataset: the bags.
        saver: writes the predictions.
        tracking: the MLflow run, if there is one.
        extractor_weights: for slides, if the model was trained on features: what those were extracted with.

    Raises:
        UserError: if the weights do not fit, a slide cannot be used, or the folder cannot be written.
    """
    make_writable(saver.folder)
    load_weights(network, card)
    join_extractor(network, card, dataset.source.patches, extractor_weights)
    if dataset.source.patches.mpp != card.mpp or dataset.source.patches.size != card.patch_size:
        logger.warning(
            "The model was trained on patches of %d px at %g µm/px and is asked about patches of %d px at %g µm/px: it "
            "has never seen tissue at that scale.",
            card.patch_size,
            card.mpp,
            dataset.source.patches.size,
            dataset.source.patches.mpp,
        )
    dataset.prepare()
    if getattr(getattr(network, "head", None), "reads_patches", True):
        check_features(card, dataset)
        check_feature_dim(network, dataset)
    dataset.bad_slides.begin()
    evaluator.run()
    report_skipped([dataset], tracking)
    logger.info("Wrote %s.", saver.folder / "predictions.csv")


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
