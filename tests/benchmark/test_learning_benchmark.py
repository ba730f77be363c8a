# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from persam_monai.benchmark.learning import FOLDS, HEADS, measure, table
from tests.bundle.running import ROOT


@pytest.mark.slow
def test_every_patient_is_held_out_once_and_all_are_scored_together(tmp_path: Path) -> None:
    said: list[str] = []
    found = measure(tmp_path, ROOT / "bundle" / "configs", seeds=[3], patients=15, size=1024, progress=said.append)
    (one,) = found["seeds"]
    assert json.loads(json.dumps(found)) == found
    assert len(said) == 2
    assert set(one["seconds"]) == {"painting", "extracting", "training"}
    for head in HEADS:
        tested = []
        for fold in range(FOLDS):
            file = tmp_path / "seed_3" / f"{head}_{fold}" / "evaluation" / "patient_predictions.csv"
            with file.open(encoding="utf-8") as predictions:
                tested += list(csv.DictReader(predictions))
        assert len(tested) == len({row["patient"] for row in tested}) == 15
        areas = [
            roc_auc_score([row["label"] == name for row in tested], [float(row[name]) for row in tested])
            for name in ("DLBCL", "FL", "Reactive")
        ]
        assert one["auroc"][head] == pytest.approx(np.mean(areas))
    lines = table(found).splitlines()
    assert lines[0].startswith("Macro AUROC of 15 held-out patients in 5 folds")
    assert f"{one['auroc']['PersAMHead']:.3f}" in lines[3]
