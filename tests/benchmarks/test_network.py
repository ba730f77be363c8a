# SPDX-License-Identifier: Apache-2.0
"""The network benchmark measures what it is said to; its figures depend on the machine and are no test."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from benchmark_network import batched_over_single, extractor_over_default, measure, measure_step
from tests.bundle.running import ROOT
from turns import in_own_process

pytestmark = pytest.mark.slow


def test_batching_is_compared_as_a_ratio_of_rates() -> None:
    results = batched_over_single(repeats=1, bags=2, patches=4)
    ratio = results["batched_bags_per_s"] / results["single_bags_per_s"]
    assert results["batched_over_single"] == pytest.approx(ratio)


def test_the_extractor_gives_the_features_of_monais_network() -> None:
    results = extractor_over_default(repeats=1, patches=2)
    assert results["extractor_relative_error"] < 0.01
    ratio = results["ours_patches_per_s"] / results["default_patches_per_s"]
    assert results["extractor_over_default"] == pytest.approx(ratio)


def test_a_step_in_its_own_process_takes_more_memory_for_more_patches() -> None:
    small, large = (in_own_process(measure_step, "PersAMHead", 1, patches, 1, 1) for patches in (64, 2048))
    assert large["peak_mib"] > small["peak_mib"] + 20
    assert large["seconds"] > 0


def test_parameters_add_up() -> None:
    words = [sys.executable, str(ROOT / "scripts/benchmarks/benchmark_network.py"), "--json", "--only", "parameters"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    parameters = json.loads(done.stdout)["parameters"]
    for name in ("paper", "public_code"):
        total = parameters[name].pop("total")
        assert sum(parameters[name].values()) == total
    assert total == 28_915_267
    assert parameters["public_code"]["extractor"] == 23_508_032


def test_without_time_everything_is_left_out() -> None:
    threads = torch.get_num_threads()
    results = measure(minutes=0)
    torch.set_num_threads(threads)
    assert {name.split(",")[0] for name in results["left_out"]} == {
        "head",
        "extractor",
        "parameters",
        "memory_by_bags",
        "memory_by_patches",
        "steps",
    }
