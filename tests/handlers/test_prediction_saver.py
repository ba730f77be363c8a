# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events

from persam_monai.cohort import Cohort
from persam_monai.data import BagDataset, PatchSettings, RandomBags, SlidePatches
from persam_monai.handlers import PredictionSaver

Warn = Callable[[np.ndarray], list[str]]
LOGITS = [[2.0, 0.0], [0.0, 1.0], [0.0, 3.0], [1.0, 0.0]]
SLIDES = [0, 1, 2, 0]


def predicted(cohort: Cohort, folder: Path, skipped: str | None = None, warnings: Warn | None = None) -> None:
    """Let the bags vote; the slide ``skipped`` is found damaged after all but the last bag have been read."""

    def step(engine: Engine, batch: dict[str, Any]) -> dict[str, Any]:
        return {"pred": SimpleNamespace(logits=batch["logits"])}

    engine = Engine(step)
    dataset = BagDataset(cohort, RandomBags(2, 1), SlidePatches(PatchSettings()))
    PredictionSaver(dataset, str(folder), warnings).attach(engine)
    batches = [
        {"slide": torch.tensor([slide]), "logits": torch.tensor([logits])}
        for slide, logits in zip(SLIDES, LOGITS, strict=True)
    ]
    bad = {i for i, entry in enumerate(cohort.entries) if entry.slide == skipped}
    engine.add_event_handler(Events.ITERATION_COMPLETED(every=3), lambda: dataset.skipped.update(bad))
    engine.run(batches, max_epochs=2)  # every run of the engine begins anew


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_slides_and_patients_are_written_with_a_probability_per_class(cohort: Cohort, tmp_path: Path) -> None:
    predicted(cohort, tmp_path / "evaluation")
    slides = rows(tmp_path / "evaluation" / "predictions.csv")
    assert list(slides[0]) == ["slide", "patient", "label", "predicted", "DLBCL", "FL", "warnings"]
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


def test_what_is_to_be_said_of_a_record_stands_beside_its_predictions_and_not_in_the_log(
    cohort: Cohort, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = {entry.patient_id: entry.clinical for entry in cohort}

    def warnings(record: np.ndarray) -> list[str]:
        second = np.array_equal(record, records["P2"], equal_nan=True)
        return ["age: 640 years is odd", "no ldh"] if second else []

    with caplog.at_level(logging.INFO):
        predicted(cohort, tmp_path, warnings=warnings)
    said = "age: 640 years is odd; no ldh"
    assert [row["warnings"] for row in rows(tmp_path / "predictions.csv")] == ["", said, said]
    assert [row["warnings"] for row in rows(tmp_path / "patient_predictions.csv")] == ["", said]
    assert "1 of 2 patients" in caplog.text
    assert "640" not in caplog.text
    assert "P2" not in caplog.text


def test_an_unknown_label_is_empty_and_odd_names_survive(cohort: Cohort, tmp_path: Path) -> None:
    odd = 'block "A", level 2.tif'
    entries = [replace(entry, label=None, slide=odd) for entry in cohort.entries]
    predicted(cohort.subset(entries), tmp_path)
    slides = rows(tmp_path / "predictions.csv")
    assert {row["label"] for row in slides} == {""}
    assert {row["slide"] for row in slides} == {odd}


@pytest.mark.parametrize(("bad", "patients"), [("a.tif", ["P2"]), ("b.tif", ["P1", "P2"])])
def test_a_slide_that_turns_out_to_be_damaged_has_no_prediction(
    cohort: Cohort, tmp_path: Path, bad: str, patients: list[str]
) -> None:
    predicted(cohort, tmp_path / "all")
    predicted(cohort, tmp_path / "some", skipped=bad)
    before, after = (rows(tmp_path / name / "predictions.csv") for name in ("all", "some"))
    assert after == [row for row in before if row["slide"] != bad]
    assert [row["patient"] for row in rows(tmp_path / "some" / "patient_predictions.csv")] == patients
    # Of two slides one is left, which is all that is known of the patient.
    (second,) = [row for row in rows(tmp_path / "some" / "patient_predictions.csv") if row["patient"] == "P2"]
    if bad == "b.tif":
        assert second["FL"] == after[-1]["FL"]
