# SPDX-License-Identifier: Apache-2.0
"""The benchmark measures what it says; what it finds depends on the machine and is no test."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from persam_monai.benchmark.network import batched_over_single, measure_step, parameters, table
from tests.bundle.running import ROOT


def test_batching_is_compared_as_a_ratio_of_rates() -> None:
    found = batched_over_single(repeats=1, bags=2, patches=4)
    ratio = found["batched_bags_per_s"] / found["single_bags_per_s"]
    assert found["batched_over_single"] == pytest.approx(ratio)


def test_a_step_in_its_own_process_takes_more_memory_for_more_patches() -> None:
    small, large = (measure_step("persam", 1, patches, threads=1, repeats=1) for patches in (64, 2048))
    assert large["peak_mib"] > small["peak_mib"] + 20
    assert large["seconds"] > 0


def test_a_step_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="invalid choice"):
        measure_step("nothing", 1, 4)


def test_parameters_of_the_rooms_add_up() -> None:
    rooms = parameters()
    for name in ("paper", "public_code"):
        assert sum(count for room, count in rooms[name].items() if room != "total") == rooms[name]["total"]
    assert rooms["public_code"]["total"] == 28_915_267
    assert rooms["public_code"]["extractor"] == 23_508_032
    assert "28,915,267" in table({"parameters": rooms})


def test_the_script_prints_one_json_object() -> None:
    words = [sys.executable, str(ROOT / "scripts/benchmark_network.py"), "--json", "--only", "parameters"]
    result = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["parameters"]["public_code"]["total"] == 28_915_267
