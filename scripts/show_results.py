#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Show where the files of a training are and how good its test predictions were."""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from persam_monai.errors import UserError, messages_of_a_script
from persam_monai.screen import text_table

FILES = {
    "models/model.pt": "the model that was chosen on validation",
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


# What heads are called where there is little room.
HEADS = {
    "PersAMHead": "PersAM",
    "GatedAttentionMILHead": "image alone",
    "ClinicalHead": "record alone",
    "LateFusionHead": "late fusion",
    "TransformerHead": "Transformer",
}


def summarise(output_dir: str | os.PathLike[str], *others: str | os.PathLike[str]) -> str:
    """A text for the terminal."""
    folder = Path(output_dir)
    metrics = [_metrics(Path(one)) for one in (output_dir, *others)]
    names = _names([Path(one) for one in (output_dir, *others)])
    if others:
        _check_same_fold(folder, [Path(one) for one in others])
    lines = ["", f"Everything is in {folder.resolve()}:"]
    lines += [f"  {name:<36}{what}" for name, what in FILES.items() if (folder / name).exists()]
    stores = [place / "mlflow.db" for place in (folder.resolve(), folder.resolve().parent)]  # own, or of several runs
    lines += [f"\nSee the runs with:  mlflow ui --backend-store-uri sqlite:///{s}" for s in stores if s.is_file()][:1]
    return "\n".join([*lines, "", *_table(names, metrics), ""])


def _metrics(folder: Path) -> dict[str, Any]:
    file = folder / "evaluation" / "metrics.json"
    if not file.is_file():
        raise UserError(f"{file} does not exist. Run training and evaluating with --output_dir {folder} first.")
    metrics: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return metrics


def _names(folders: Sequence[Path]) -> list[str]:
    """What the models are called; those of one kind by their folders."""
    heads = [_head(folder) for folder in folders]
    return [
        folder.resolve().name if heads.count(head) > 1 else head for head, folder in zip(heads, folders, strict=True)
    ]


def _head(folder: Path) -> str:
    """What the model of a training is called."""
    try:
        name = json.loads((folder / "models" / "model.json").read_text(encoding="utf-8"))["head"]["class"]
    except (OSError, ValueError, LookupError):  # the metrics are here, the model is elsewhere
        return "model"
    return HEADS.get(name, name)


def _check_same_fold(folder: Path, others: Sequence[Path]) -> None:
    """Raise if other patients were tested."""
    tested = _tested(folder)
    for other in others:
        if _tested(other) != tested:
            raise UserError(f"{other} was evaluated on other patients than {folder}; their scores cannot be compared.")


def _tested(folder: Path) -> list[str]:
    file = folder / "evaluation" / "patient_predictions.csv"
    with file.open(newline="", encoding="utf-8") as lines:
        return [row["patient"] for row in csv.DictReader(lines)]


def _table(names: Sequence[str], metrics: Sequence[dict[str, Any]]) -> list[str]:
    """The test metrics beside those of always guessing the commonest class."""
    baseline = metrics[0]["commonest_class"]
    slides, patients = metrics[0]["slide"]["count"], metrics[0]["patient"]["count"]
    rows = []
    for level in ("slide", "patient"):
        for score, name in SCORES.items():
            values = [each[level][score] for each in (*metrics, baseline)]
            cells = ["–" if value is None else f"{value:.3f}" for value in values]  # – where a score is not defined
            rows.append([f"{name}, by {level}", *cells])
    heading = [f"Test fold: {slides} slides of {patients} patients", *names, f"always {baseline['always']}"]
    return text_table(heading, rows, right=range(1, len(heading)))


def main() -> None:
    """Parse the arguments and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output_dir", help="the output_dir of a training that was evaluated")
    parser.add_argument("others", nargs="*", help="others on the same test fold, to compare with")
    asked = parser.parse_args()
    with messages_of_a_script():
        print(summarise(asked.output_dir, *asked.others))


if __name__ == "__main__":
    main()
