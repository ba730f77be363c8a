# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer
from sklearn.metrics import accuracy_score
from torch import nn

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort, Split
from persam_monai.data import BagDataset, BagLoader, PartitionBags, PatchSettings, SlidePatches, prepare_bags
from persam_monai.engines import Evaluation, Prediction, new_slides
from persam_monai.errors import UserError
from persam_monai.handlers import PredictionSaver
from persam_monai.model import ModelCard, load_card, save_model
from persam_monai.networks import AttendingNetwork, PersAM, PersAMHead

PROVENANCE: dict[str, Any] = {"fold": 0, "folds": 5, "seed": 0, "fold_assignment": "abc"}


def network() -> PersAM:
    extractor = nn.Sequential(nn.Conv2d(3, 16, 8, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    head = PersAMHead(2, [3, 1], 16, width=16, projection_hidden=None, heads=2, feedforward=16)
    head.clinical_encoder.assume_standardised()
    return PersAM(extractor, head)


@pytest.fixture
def card(tmp_path: Path, schema: ClinicalSchema) -> ModelCard:
    torch.manual_seed(1)
    content = {
        "schema": schema.to_dict(),
        "head": network().head.settings,
        "patch_size": 32,
        "mpp": 0.25,
        "bag_size": 5,
        "settings": PROVENANCE,
    }
    save_model(network(), tmp_path / "model.pt", content)
    return load_card(tmp_path / "model.pt")


class Tracking:
    """Remembers what is logged."""

    def __init__(self) -> None:
        self.metrics: dict[str, Any] = {}
        self.files: list[str] = []

    @contextmanager
    def track(self) -> Iterator[Tracking]:
        yield self

    def log_metrics(self, metrics: dict[str, Any]) -> None:
        self.metrics.update(metrics)

    def log_file(self, path: Path) -> None:
        self.files.append(path.name)


class Workplace:
    """An evaluator of a cohort with everything it needs."""

    def __init__(self, cohort: Cohort, folder: Path, mpp: float = 0.25, bag_size: int = 5, workers: int = 0) -> None:
        self.network, self.tracking = network(), Tracking()
        patches = PatchSettings(size=32, mpp=mpp, sampling="grid")
        self.dataset = BagDataset(cohort, PartitionBags(bag_size, 22, 2), SlidePatches(patches))
        self.saver = PredictionSaver(self.dataset, str(folder))
        self.evaluator = SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=BagLoader(self.dataset, batch_size=2, num_workers=workers),
            network=AttendingNetwork(self.network),
            inferer=SimpleInferer(),
            prepare_batch=prepare_bags,
            val_handlers=[self.saver],
            decollate=False,
        )

    def evaluate(self, card: ModelCard, split: Split, provenance: dict[str, Any]) -> None:
        parts = (self.evaluator, self.network, card, self.dataset, self.saver)
        tracking = cast(Any, self.tracking)
        Evaluation(*parts, split=split, tracking=tracking, provenance=provenance).run()

    def predict(self, card: ModelCard) -> None:
        Prediction(self.evaluator, self.network, card, self.dataset, self.saver).run()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_metrics_are_those_of_the_predictions_beside_the_commonest_class(
    cohort: Cohort, card: ModelCard, tmp_path: Path
) -> None:
    place = Workplace(cohort, tmp_path / "evaluation")
    train = cohort.subset([cohort.entries[0], cohort.entries[0], cohort.entries[1]])  # FL is commonest there
    place.evaluate(card, Split(train, train, cohort), PROVENANCE)
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    predictions = rows(tmp_path / "evaluation" / "predictions.csv")
    labels, guesses = ([row[name] for row in predictions] for name in ("label", "predicted"))
    assert len(labels) == metrics["slide"]["count"] == 3
    assert metrics["slide"]["accuracy"] == pytest.approx(accuracy_score(labels, guesses))
    assert metrics["patient"]["count"] == 2
    assert metrics["commonest_class"]["always"] == "FL"
    assert metrics["commonest_class"]["slide"]["accuracy"] == pytest.approx(1 / 3)
    assert place.tracking.metrics["test_slide_accuracy"] == metrics["slide"]["accuracy"]
    assert place.tracking.files == ["metrics.json"]


def test_a_cohort_whose_patients_have_changed_since_training_is_refused(
    cohort: Cohort, card: ModelCard, tmp_path: Path
) -> None:
    place = Workplace(cohort, tmp_path / "evaluation")
    with pytest.raises(UserError, match="test fold may hold patients it was trained on"):
        place.evaluate(card, Split(cohort, cohort, cohort), {**PROVENANCE, "fold_assignment": "def"})


@pytest.mark.parametrize("setting", ["fold", "folds", "seed"])
def test_another_split_than_the_trainings_is_refused(
    cohort: Cohort, card: ModelCard, tmp_path: Path, setting: str
) -> None:
    place = Workplace(cohort, tmp_path / "evaluation")
    with pytest.raises(UserError, match="was trained with another split") as caught:
        place.evaluate(card, Split(cohort, cohort, cohort), {**PROVENANCE, setting: 3})
    assert f"{setting} was {PROVENANCE[setting]} and is now 3: give --{setting} {PROVENANCE[setting]}" in str(
        caught.value
    )
    assert not (tmp_path / "evaluation").exists()


def test_another_schema_than_the_models_is_refused(
    cohort: Cohort, card: ModelCard, schema: ClinicalSchema, tmp_path: Path
) -> None:
    other = ClinicalSchema.from_dict({**schema.to_dict(), "classes": ["FL", "DLBCL"]})
    renamed = Cohort(cohort.entries, other)
    with pytest.raises(UserError, match="The clinical schema in dataset_dir is not the one"):
        Workplace(renamed, tmp_path / "x").evaluate(card, Split(renamed, renamed, renamed), PROVENANCE)


def test_a_slides_prediction_is_the_same_alone_and_for_any_number_of_workers(
    cohort: Cohort, card: ModelCard, tmp_path: Path
) -> None:
    Workplace(cohort, tmp_path / "all").predict(card)
    Workplace(cohort, tmp_path / "helped", workers=2).predict(card)
    together = (tmp_path / "all" / "predictions.csv").read_text()
    assert (tmp_path / "helped" / "predictions.csv").read_text() == together
    renamed = replace(cohort.entries[1], slide="another name")
    Workplace(cohort.subset([renamed]), tmp_path / "one").predict(card)
    (alone,) = rows(tmp_path / "one" / "predictions.csv")
    wanted = rows(tmp_path / "all" / "predictions.csv")[1]
    np.testing.assert_allclose(
        [float(alone[c]) for c in cohort.classes], [float(wanted[c]) for c in cohort.classes], atol=2e-6
    )


def test_another_resolution_than_the_models_is_warned_of(
    cohort: Cohort, card: ModelCard, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Workplace(cohort, tmp_path / "same").predict(card)
    assert "never seen tissue at that scale" not in caplog.text
    with caplog.at_level(logging.WARNING):
        Workplace(cohort, tmp_path / "other", mpp=0.5).predict(card)
    assert "32 px at 0.25 µm/px and is asked about patches of 32 px at 0.5 µm/px" in caplog.text


def test_one_slide_with_its_record_is_a_cohort(cohort: Cohort, card: ModelCard, schema: ClinicalSchema) -> None:
    path = str(cohort.entries[0].path)
    (entry,) = new_slides(card, "nowhere", slide=path, record={"age": 61, "sex": "female"}, slide_mpp=0.5)
    assert (entry.slide, entry.path, entry.label, entry.mpp) == (path, Path(path), None, 0.5)
    np.testing.assert_array_equal(entry.clinical, schema.encode({"age": 61, "sex": "female"}, ""))


def test_a_record_that_python_fire_cannot_read_means_the_same(cohort: Cohort, card: ModelCard) -> None:
    path = str(cohort.entries[0].path)
    (typed,) = new_slides(card, "nowhere", slide=path, record={"age": 61.5, "sex": "female"})
    (text,) = new_slides(card, "nowhere", slide=path, record=cast(Any, "{age: 61.5, sex: female, ldh: }"))
    np.testing.assert_array_equal(typed.clinical, text.clinical)
    with pytest.raises(UserError, match="250 U/L"):
        new_slides(card, "nowhere", slide=path, record=cast(Any, "{age: 61.5, ldh: 250 U/L}"))


def test_a_slide_without_record_is_predicted_with_a_warning(
    cohort: Cohort, card: ModelCard, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        (entry,) = new_slides(card, "nowhere", slide=str(cohort.entries[0].path))
    assert np.isnan(entry.clinical).all()
    assert "No --record" in caplog.text


def test_a_table_of_new_slides_needs_no_labels(cohort: Cohort, card: ModelCard, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text(f"patient_id,slide,age,sex,ldh\nP9,{cohort.entries[0].path},50,male,200\n")
    (entry,) = new_slides(card, str(tmp_path), "new.csv")
    assert (entry.patient_id, entry.label) == ("P9", None)
    np.testing.assert_array_equal(entry.clinical, [50, 0, 1, 200])


def test_what_is_wrong_with_slide_or_record_is_told(cohort: Cohort, card: ModelCard) -> None:
    path = str(cohort.entries[0].path)
    with pytest.raises(UserError, match="--record goes with --slide"):
        new_slides(card, "data", record={"age": 61})
    with pytest.raises(UserError, match=r"--slide nowhere\.svs: there is no such file"):
        new_slides(card, "data", slide="nowhere.svs")
    with pytest.raises(UserError, match=r"--record is 'age 61'; expected values by name"):
        new_slides(card, "data", slide=path, record=cast(Any, "age 61"))
    with pytest.raises(UserError, match="--record: the clinical record needs correcting") as caught:
        new_slides(card, "data", slide=path, record={"agee": 61, "sex": "mail"})
    assert "agee" in str(caught.value)
    assert "mail" in str(caught.value)
