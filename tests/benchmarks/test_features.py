# SPDX-License-Identifier: Apache-2.0
"""The features benchmark measures what it is said to; its figures depend on the machine and are no test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from benchmark_features import Settings, bounds, cohort_of, measure_extraction, stretches, write_folder
from persam_monai.data import FeatureFiles
from persam_monai.errors import UserError
from slides import jpeg_slide
from tests.bundle.running import ROOT

pytestmark = pytest.mark.slow

SMALL = Settings(files=5, patches=40, features=16, precisions=("float32",), threads=1, copies=2)
WORDS = ["--files", "5", "--patches", "450", "--features", "16", "--cache-gb", "1", "--precision", "bf16"]
WORDS += ["--stretches", "1", "--stretch-batches", "1", "--threads", "1"]


class SmallBackbone(nn.Sequential):
    """The mean of each colour, in the place of ResNet50."""

    def __init__(self) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 8))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script prints of the training."""
    folder = tmp_path_factory.mktemp("kept")
    words = [sys.executable, str(ROOT / "scripts/benchmarks/benchmark_features.py"), "--json", "--only", "training"]
    done = subprocess.run([*words, "--folder", str(folder), *WORDS], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []  # it removes what it wrote
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def test_training_is_compared_with_the_bare_computation(results: dict[str, Any]) -> None:
    assert set(results) == {"machine", "training", "must_hold", "left_out"}
    (run,) = results["training"]["runs"]
    assert run["cache_gb"] == 1
    assert run["bags"] == 3 * 4
    assert run["measured"] == {"epoch": "later", "batches": 1, "of": 2}
    assert run["later_epoch_over_bare"] == pytest.approx(run["epoch_s"] / run["bare_s"])
    assert run["first_epoch_over_bare"] == pytest.approx((run["bare_s"] + run["first_pass_s"]) / run["bare_s"])
    assert run["peak_gb"] > 0.1


def test_bounds_are_those_of_the_first_cache(results: dict[str, Any]) -> None:
    (run,) = results["training"]["runs"]
    figures = [run[name] for name in ("start_s", "first_epoch_over_bare", "later_epoch_over_bare", "peak_gb")]
    assert [row["figure"] for row in results["must_hold"]] == figures
    slow = {**run, "start_s": 10.1, "first_epoch_over_bare": 1.9, "later_epoch_over_bare": 2.1, "peak_gb": 5.9}
    rows = bounds({"training": {"runs": [slow, {**slow, "cache_gb": 0.5}]}})
    assert [row["holds"] for row in rows] == [False, True, False, True]


def test_extraction_is_compared_with_the_slower_of_network_and_reader(tmp_path: Path) -> None:
    extraction = measure_extraction(jpeg_slide(tmp_path, 1024), SMALL, SmallBackbone())
    assert extraction["patches"] == 2 * 16  # twice the 4 x 4 patches of 224 px in 1024 px
    rates = extraction["precisions"]["float32"]
    slower = min(rates["network_patches_per_s"], rates["reader_patches_per_s"])
    assert rates["extraction_over_slower"] == pytest.approx(rates["extraction_patches_per_s"] / slower)
    (row,) = bounds({"extraction": [extraction]})
    assert row["figure"] == rates["extraction_over_slower"]
    assert row["holds"] == (row["figure"] >= 0.9)


def test_files_are_those_of_a_cohort(tmp_path: Path) -> None:
    write_folder(tmp_path, SMALL)
    files = FeatureFiles(tmp_path).look(cohort_of(SMALL, 0, SMALL.files).entries)
    generator = np.random.default_rng(0)
    read = [file.read(np.arange(40), generator)[0] for file in files if not isinstance(file, UserError)]
    assert len(read) == SMALL.files
    for features in read:
        assert features.dtype == np.float16
        assert features.std() == pytest.approx(1, abs=0.1)
    assert not np.array_equal(read[0], read[1])
    np.testing.assert_array_equal(np.sort(read[0], axis=0), np.sort(read[1], axis=0))


def test_a_disk_without_room_is_an_error_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"[0-9.]+ GB, .*--folder"):
        write_folder(tmp_path, Settings(patches=10**9))
    assert list(tmp_path.iterdir()) == []


def test_stretches_are_spread_over_the_epoch() -> None:
    assert stretches(100, 3, 10) == [(0, 10), (45, 55), (90, 100)]
    assert stretches(10, 3, None) == [(0, 3), (3, 7), (7, 10)]
    assert stretches(4, 3, 2) == stretches(4, 3, None)  # no more than there is
    assert stretches(100, 1, 10) == [(0, 10)]
