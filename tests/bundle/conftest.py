# SPDX-License-Identifier: Apache-2.0
"""A small cohort and a training on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from persam_monai.synthetic import make_cohort
from tests.bundle.running import EVALUATING, TRAINING, run_well


@pytest.fixture(scope="session")
def dataset_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic cohort of 15 patients with slides of 1024 pixels."""
    folder = tmp_path_factory.mktemp("bundle") / "cohort"
    make_cohort(folder, patients=15, seed=5, size=1024, workers=1)
    return folder


@pytest.fixture(scope="session")
def trained(dataset_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output_dir of a training and an evaluation on that cohort, without loader workers."""
    output = tmp_path_factory.mktemp("bundle") / "output"
    run_well("training", TRAINING, dataset_dir=dataset_dir, output_dir=output, max_epochs=4)
    run_well("evaluating", EVALUATING, dataset_dir=dataset_dir, output_dir=output)
    return output
