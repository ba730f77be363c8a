# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from benchmark_study import measure


@pytest.mark.slow
def test_shuffled_cohorts_are_studied_and_keep_everything_else(tmp_path: Path) -> None:
    options = ["--networks", "record", "--folds", "3", "--max_epochs", "1", "--val_interval", "1", "--resamples", "10"]
    results = measure(tmp_path, seeds=[3], patients=12, kinds=["null", "image_only"], options=options)
    assert [(row["kind"], "record" in row["auroc"]) for row in results["studies"]] == [
        ("null", True),
        ("image_only", True),
    ]
    plain = pd.read_csv(tmp_path / "cohort_12_3" / "cohort.csv").drop_duplicates("patient_id").set_index("patient_id")
    null = pd.read_csv(tmp_path / "null_12_3_0" / "cohort" / "cohort.csv").set_index("patient_id")
    pd.testing.assert_frame_equal(null.drop(columns="label"), plain.drop(columns="label"))
    assert (null["label"] != plain["label"]).any()
    assert sorted(null["label"]) == sorted(plain["label"])
    records = pd.read_csv(tmp_path / "image_only_12_3_0" / "cohort" / "cohort.csv").set_index("patient_id")
    assert (records["label"] == plain["label"]).all()
    assert (records["platelets"].to_numpy() != plain["platelets"].to_numpy()).any()
