# SPDX-License-Identifier: Apache-2.0
"""What MONAI's ``ConfigWorkflow`` finds in the configs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

from tests.bundle.running import CONFIGS, EVALUATING, INFERENCE, ROOT, SMALL_EXTRACTOR, TRAINING

# In a process of its own, for the configs' `initialize` changes this one's logging and random state.
SCRIPT = """
import json, sys
from monai.bundle import ConfigWorkflow
missing = []
common = {"meta_file": sys.argv[3], "logging_file": False, **json.loads(sys.argv[2])}
for files, kind in json.loads(sys.argv[1]):
    workflow = ConfigWorkflow(config_file=files, workflow_type=kind, **common)
    workflow.initialize()
    missing.append(workflow.check_properties())
print(json.dumps(missing))
"""


def test_no_config_lacks_a_property_that_monai_requires(trained: Path, dataset_dir: Path, tmp_path: Path) -> None:
    for slide in (dataset_dir / "slides").iterdir():
        torch.save(torch.zeros(3, 8), tmp_path / f"{slide.stem}.pt")
    folders = {"dataset_dir": str(dataset_dir), "features_dir": str(tmp_path), "output_dir": str(trained)}
    combinations = [
        (TRAINING, "train"),
        ([CONFIGS / "train.json", CONFIGS / "recipe.json"], "train"),
        (EVALUATING, "train"),
        (INFERENCE, "infer"),
        ([CONFIGS / "extract.json", SMALL_EXTRACTOR], None),  # MONAI has no type for it
    ]
    words = [
        json.dumps([([str(file) for file in files], kind) for files, kind in combinations]),
        json.dumps(folders),
        str(CONFIGS / "metadata.json"),
    ]
    result = subprocess.run([sys.executable, "-c", SCRIPT, *words], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    assert json.loads(result.stdout.splitlines()[-1]) == [[]] * len(combinations)
