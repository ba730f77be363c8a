# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from persam_monai.cohort import Cohort
from persam_monai.data import BagDataset, PatchSettings, RandomBags
from persam_monai.handlers import PredictionSaver

LOGITS = [[2.0, 0.0], [0.0, 1.0], [0.0, 3.0], [1.0, 0.0]]
SLIDES = [0, 1, 2, 0]


def predicted(cohort: Cohort, folder: Path) -> None:
    def step(engine: Engine, batch: dict[str, Any]) -> dict[str, Any]:
        return {"pred": SimpleNamespace(logits=batch["logits"])}

    engine = Engine(step)
    PredictionSaver(BagDataset(cohort, RandomBags(2, 1), PatchSettings()), str(folder)).attach(engine)
    batches = [
        {"slide": torch.tensor([slide]), "logits": torch.tensor([logits])}
        for slide, logits in zip(SLIDES, LOGITS, strict=True)
    ]
    engine.run(batches, max_epochs=2)  # every run of the engine begins anew


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_slides_and_patients_are_written_with_a_probability_per_class(cohort: Cohort, tmp_path: Path) -> None:
    predicted(cohort, tmp_path / "evaluation")
    slides = rows(tmp_path / "evaluation" / "predictions.csv")
    assert list(slides[0]) == ["slide", "patient", "label", "predicted", "DLBCL", "FL"]
    assert [(r["slide"], r["patient"], r["label"], r["predicted"]) for r in slides] == [
        ("a.tif", "P1", "FL", "DLBCL"),
        ("b.tif", "P2", "DLBCL", "FL"),
        ("c.tif", "P2", "DLBCL", "FL"),
    ]
    # Of two classes the geometric mean is the sigmoid of the mean difference of logits.
    differences = np.array([-(2 + 1) / 2, 1, 3])
    wanted = 1 / (1 + np.exp(-differences))
    np.testing.assert_allclose([float(row["FL"]) for row in slides], wanted, atol=1e-6)
    np.testing.assert_allclose([float(row["FL"]) + float(row["DLBCL"]) for row in slides], 1, atol=2e-6)
    patients = rows(tmp_path / "evaluation" / "patient_predictions.csv")
    assert [list(row.values())[:3] for row in patients] == [["P1", "FL", "DLBCL"], ["P2", "DLBCL", "FL"]]
    assert float(patients[1]["FL"]) == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-6)


def test_an_unknown_label_is_empty_and_odd_names_survive(cohort: Cohort, tmp_path: Path) -> None:
    odd = 'block "A", level 2.tif'
    entries = [replace(entry, label=None, slide=odd) for entry in cohort.entries]
    predicted(cohort.subset(entries), tmp_path)
    slides = rows(tmp_path / "predictions.csv")
    assert {row["label"] for row in slides} == {""}
    assert {row["slide"] for row in slides} == {odd}
