# SPDX-License-Identifier: Apache-2.0
"""The benchmark of features measures what it says; what it finds depends on the machine and is no test."""

from __future__ import annotations

import json
import runpy
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from persam_monai.benchmark.features import Sizes, measure_extraction, table, verdicts
from persam_monai.benchmark.features.extraction import over_slower
from persam_monai.benchmark.features.folder import cohort, evict, write_folder
from persam_monai.benchmark.features.training import stretches
from persam_monai.data.features import FeatureFiles
from persam_monai.errors import UserError
from tests.bundle.running import ROOT

SCRIPT = ROOT / "scripts/benchmark_features.py"
SMALL = Sizes(files=5, training=3, patches=40, features=16, bags=3, bag_size=10, batch_size=2)
WORDS = ["--files", "5", "--training", "3", "--patches", "40", "--features", "16", "--bags", "3", "--bag-size", "10"]
WORDS += ["--batch-size", "2", "--stretches", "2", "--stretch-batches", "1", "--cache-gb", "1", "--precision", "bf16"]
WORDS += ["--slide-side", "1024", "--extractor-batch", "8", "--repeats", "1", "--threads", "1", "--copies", "2"]


class SmallBackbone(nn.Sequential):
    """The mean of each colour, in the place of ResNet50."""

    def __init__(self) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 8))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script prints, with a small network for the extraction."""
    folder, printed, threads = tmp_path_factory.mktemp("kept"), StringIO(), torch.get_num_threads()
    measure_small = partial(measure_extraction, make_backbone=SmallBackbone)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setattr("persam_monai.benchmark.features.report.measure_extraction", measure_small)
        patch.setattr("sys.argv", [str(SCRIPT), "--json", "--folder", str(folder), *WORDS])
        runpy.run_path(str(SCRIPT), run_name="__main__")
    torch.set_num_threads(threads)
    assert list(folder.iterdir()) == []  # it removes what it wrote
    measured: dict[str, Any] = json.loads(printed.getvalue())
    return measured


def test_the_script_prints_all_figures(found: dict[str, Any]) -> None:
    assert set(found) == {"machine", "extraction", "training", "must_hold", "left_out"}
    (slide,) = found["extraction"]
    assert slide["patches"] == 2 * 16  # twice the 4 x 4 patches of 224 px in 1024 px
    assert set(slide["precisions"]) == {"bf16"}
    (run,) = found["training"]["runs"]
    assert run["bags"] == 3 * 3
    assert run["measured"] == {"epoch": "later", "batches": 2, "of": 5}
    assert run["peak_gb"] > 0.1


def test_the_ratios_are_quotients_of_the_figures(found: dict[str, Any]) -> None:
    rates = found["extraction"][0]["precisions"]["bf16"]
    slower = min(rates["network_patches_per_s"], rates["reader_patches_per_s"])
    assert rates["extraction_over_slower"] == pytest.approx(rates["extraction_patches_per_s"] / slower)
    (run,) = found["training"]["runs"]
    assert run["later_epoch_over_bare"] == pytest.approx(run["epoch_s"] / run["bare_s"])
    assert run["first_epoch_over_bare"] == pytest.approx((run["bare_s"] + run["first_pass_s"]) / run["bare_s"])


def test_what_must_hold_stands_beside_the_figures(found: dict[str, Any]) -> None:
    assert verdicts(found) == found["must_hold"]
    (run,) = found["training"]["runs"]
    ratio = found["extraction"][0]["precisions"]["bf16"]["extraction_over_slower"]
    figures = [ratio, run["start_s"], run["first_epoch_over_bare"], run["later_epoch_over_bare"], run["peak_gb"]]
    assert [row["figure"] for row in found["must_hold"]] == figures
    assert [row["holds"] for row in found["must_hold"]] == [
        ratio >= 0.9,
        *(figure < bound for figure, bound in zip(figures[1:], (10, 2, 2, 6), strict=True)),
    ]
    slow = {**run, "start_s": 10.0, "later_epoch_over_bare": 2.1, "peak_gb": 5.9, "first_epoch_over_bare": 1.9}
    again = {"machine": {}, "training": {**found["training"], "runs": [slow]}}
    assert [row["holds"] for row in verdicts(again)] == [False, True, False, True]
    assert table({**again, "must_hold": verdicts(again)}).count("FALLS SHORT") == 2


def test_runs_with_another_cache_show_figures_and_no_verdicts(found: dict[str, Any]) -> None:
    (run,) = found["training"]["runs"]
    training = {**found["training"], "runs": [run, {**run, "cache_gb": 0.5}]}
    assert len(verdicts({"training": training})) == 4
    text = table({"machine": {}, "training": training, "must_hold": []})
    assert "1, bf16" in text
    assert "0.5, bf16" in text


def test_extraction_is_compared_with_what_it_waits_for() -> None:
    rates = {"network_patches_per_s": 50.0, "reader_patches_per_s": 40.0, "extraction_patches_per_s": 38.0}
    assert over_slower(rates) == pytest.approx(0.95)
    assert over_slower({**rates, "network_patches_per_s": 38.0}) == pytest.approx(1)


def test_files_are_those_of_a_cohort(tmp_path: Path) -> None:
    write_folder(tmp_path, SMALL)
    evict(tmp_path)
    found = FeatureFiles(tmp_path).look(cohort(SMALL, 0, SMALL.files).entries)
    generator = np.random.default_rng(0)
    read = [one.read(np.arange(40), generator)[0] for one in found if not isinstance(one, UserError)]
    assert len(read) == SMALL.files
    for features in read:
        assert features.dtype == np.float16
        assert features.std() == pytest.approx(1, abs=0.1)
    assert not np.array_equal(read[0], read[1])
    np.testing.assert_array_equal(np.sort(read[0], axis=0), np.sort(read[1], axis=0))


def test_a_disk_without_room_is_an_error_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"take [0-9.]+ GB, and .* has room for .*--folder"):
        write_folder(tmp_path, Sizes(patches=10**9))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("values", [{"files": 0}, {"batch_size": -1}, {"files": 3, "training": 4}])
def test_impossible_sizes_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected at"):
        Sizes(**values)


def test_stretches_are_spread_over_the_epoch() -> None:
    assert stretches(100, 3, 10) == [(0, 10), (45, 55), (90, 100)]
    assert stretches(10, 3, None) == [(0, 3), (3, 7), (7, 10)]
    assert stretches(4, 3, 2) == stretches(4, 3, None)  # no more than there is
    assert stretches(100, 1, 10) == [(0, 10)]
