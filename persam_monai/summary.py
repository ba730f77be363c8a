# SPDX-License-Identifier: Apache-2.0
"""The last screen: where everything is, and what the test metrics are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from persam_monai.errors import UserError

FILES = {
    "models/model.pt": "the model that was best on validation",
    "models/model.json": "what it needs to be used: schema, classes, resolution",
    "checkpoints/last.pt": "the last state of the training (--resume true goes on from it)",
    "folds.csv": "who was trained, validated and tested on",
    "skipped_slides.csv": "slides that the training left out, and why",
    "evaluation/skipped_slides.csv": "slides that the evaluation left out, and why",
    "inference/skipped_slides.csv": "new slides that were left out, and why",
    "evaluation/predictions.csv": "test predictions, a row per slide",
    "evaluation/patient_predictions.csv": "test predictions, a row per patient",
    "evaluation/metrics.json": "test metrics",
    "inference/predictions.csv": "predictions on new slides",
    "mlflow.db": "MLflow runs",
}
SCORES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "auroc": "macro AUROC"}


def summarise(output_dir: str | os.PathLike[str]) -> str:
    """A text for the terminal.

    Args:
        output_dir: of a training that was evaluated.

    Raises:
        UserError: if it was not.
    """
    folder = Path(output_dir)
    metrics_file = folder / "evaluation" / "metrics.json"
    if not metrics_file.is_file():
        raise UserError(f"{metrics_file} does not exist. Run training and evaluating with --output_dir {folder} first.")
    metrics = json.loads(metrics_file.read_text(encoding="utf-8"))
    lines = ["", f"Everything is in {folder.resolve()}:"]
    lines += [f"  {name:<36}{what}" for name, what in FILES.items() if (folder / name).exists()]
    lines += ["", f"See the runs with:  mlflow ui --backend-store-uri sqlite:///{folder.resolve()}/mlflow.db", ""]
    return "\n".join([*lines, *_table(metrics), ""])


def _table(metrics: dict[str, Any]) -> list[str]:
    """The test metrics beside those of always guessing the commonest class."""
    baseline = metrics["commonest_class"]
    guess = f"always {baseline['always']}"
    slides, patients = metrics["slide"]["count"], metrics["patient"]["count"]
    heading = f"Test fold: {slides} slides of {patients} patients"
    lines = [f"{heading:<44}{'PersAM':>10}{guess:>18}"]
    for level in ("slide", "patient"):
        for score, name in SCORES.items():
            values = [_number(metrics[level][score]), _number(baseline[level][score])]
            lines.append(f"  {name + ', by ' + level:<42}{values[0]:>10}{values[1]:>18}")
    return lines


def _number(value: float | None) -> str:
    """Three decimals, or a dash where a score is not defined."""
    return "–" if value is None else f"{value:.3f}"
