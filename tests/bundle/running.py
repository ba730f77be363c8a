# SPDX-License-Identifier: Apache-2.0
"""Ways to run the bundle in a test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.bundle.forking import Forker

ROOT = Path(__file__).parents[2]
CONFIGS = Path("bundle/configs")
SMALL = Path("tests/bundle/small.json")
SMALL_EXTRACTOR = Path("tests/bundle/small_extractor.json")
FORKER = Forker()


def command(run_id: str, configs: list[Path] | list[str], **overrides: Any) -> list[str]:
    """The words of a ``python -m monai.bundle run`` command."""
    words = [sys.executable, "-m", "monai.bundle", "run", run_id]
    words += ["--config_file", str([str(config) for config in configs])]
    for name, value in overrides.items():
        words += [f"--{name}", str(value)]
    return words


def run_bundle(run_id: str, configs: list[Path], **overrides: Any) -> subprocess.CompletedProcess[str]:
    """Run the bundle's command line from the repository root."""
    return FORKER.run(command(run_id, configs, **overrides)[3:], ROOT)


def run_well(run_id: str, configs: list[Path], **overrides: Any) -> subprocess.CompletedProcess[str]:
    """As :func:`run_bundle`, and fail with its output unless it ends well."""
    result = run_bundle(run_id, configs, **overrides)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result


TRAINING = [CONFIGS / "train.json", SMALL]
EVALUATING = [CONFIGS / "train.json", CONFIGS / "evaluate.json", SMALL_EXTRACTOR]
INFERENCE = [CONFIGS / "inference.json", SMALL_EXTRACTOR]
