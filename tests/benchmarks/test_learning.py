# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmark_learning import FOLDS, HEADS, measure


@pytest.mark.slow
def test_every_patient_is_held_out_once_and_all_are_scored_together(tmp_path: Path) -> None:
    results = measure(tmp_path, seeds=[3], patients=15, size=1024)
    (row,) = results["seeds"]
    assert json.loads(json.dumps(results)) == results
    assert set(row["seconds"]) == {"painting", "extracting", "training"}
    for head in HEADS:
        tested = []
        for fold in range(FOLDS):
            file = tmp_path / "seed_3" / f"{head}_{fold}" / "evaluation" / "patient_predictions.csv"
            with file.open(encoding="utf-8") as predictions:
                tested += list(csv.DictReader(predictions))
        assert len(tested) == len({cells["patient"] for cells in tested}) == 15
        areas = [
            roc_auc_score([cells["label"] == name for cells in tested], [float(cells[name]) for cells in tested])
            for name in ("DLBCL", "FL", "Reactive")
        ]
        assert row["auroc"][head] == results["mean"][head] == pytest.approx(np.mean(areas))
