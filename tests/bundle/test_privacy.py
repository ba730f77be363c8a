# SPDX-License-Identifier: Apache-2.0
"""Nothing of a cohort reaches MLflow: recognisable names and values are planted, and looked for."""

from __future__ import annotations

import csv
import math
import shutil
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from persam_monai.cohort import Cohort, Split, assign_folds, split_by
from tests.bundle.running import EVALUATING, INFERENCE, TRAINING, run_well
from tests.bundle.test_bad_slides import ALL_CELLS, damage

SURNAMES = "Quillfeather"  # in every patient_id
FOLDER, ACCESSION = "Brockhurst_Amelia", "ACC-90817"  # in every slide's path
CLASSES = ("Glioquartzite", "Feldsparoma", "Tourmalinosis")
LEVELS = ("zyxelchrome", "vermicious", "oblongata")
REMARK = "seen by Dr Hawthornwaite"
FERRITIN, LDH = 48213.7, 27651.3  # every patient's, so also the medians

SCHEMA = f"""\
classes: [{", ".join(CLASSES)}]
groups:
  interview:
    growth: {{kind: categorical, levels: [{", ".join(LEVELS)}]}}
    smoker: {{kind: binary}}
  blood:
    ferritin: {{kind: numeric}}
    ldh: {{kind: numeric, transform: log}}
    crp: {{kind: numeric}}
"""


def split_of(folder: Path) -> Split:
    """The parts of the first fold, as a training with the default settings makes them."""
    cohort = Cohort.load_dir(folder)
    return split_by(cohort, 0, assign_folds(cohort))


def spellings(value: float) -> set[str]:
    """How a number, or its logarithm, might be written."""
    plain = {f"{value}", f"{value:.2f}", f"{value:.6g}", f"{value:.5e}", f"{np.float32(value):.4f}"}
    return {*plain, *(text.replace(".", ",") for text in plain), f"{math.log(value):.4f}"}


SECRETS = {SURNAMES, *FOLDER.split("_"), ACCESSION, "Hawthornwaite", *LEVELS, *spellings(FERRITIN), *spellings(LDH)}


class Planted(NamedTuple):
    """A cohort whose contents can be recognised."""

    folder: Path
    training: str  # damaged slides, one in each part
    test: str


@pytest.fixture
def planted(dataset_dir: Path, tmp_path: Path) -> Planted:
    folder = tmp_path / "cohort"
    (folder / "slides" / FOLDER).mkdir(parents=True)
    (folder / "clinical.yaml").write_text(SCHEMA)
    with (dataset_dir / "cohort.csv").open(newline="", encoding="utf-8") as file:
        before = list(csv.DictReader(file))
    labels = dict(zip(sorted({row["label"] for row in before}), CLASSES, strict=True))
    rows: list[dict[str, Any]] = []
    for i, row in enumerate(before):
        slide = f"slides/{FOLDER}/{ACCESSION}-{i:02}.tif"
        shutil.copy(dataset_dir / row["slide"], folder / slide)
        number = int(row["patient_id"][1:])
        rows.append(
            {
                "patient_id": f"{SURNAMES}-{number}",
                "slide": slide,
                "label": labels[row["label"]],
                "growth": LEVELS[number % 3],
                "smoker": ("yes", "no")[number % 2],
                "ferritin": FERRITIN,
                "ldh": LDH,
                "crp": 5 + number % 4,
                "remarks": REMARK,
            }
        )
    with (folder / "cohort.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    parts = split_of(folder)
    bad = parts.train.entries[0], parts.test.entries[0]
    for entry in bad:
        damage(entry.path)
    return Planted(folder, bad[0].slide, bad[1].slide)


def artefacts(output: Path) -> dict[str, str]:
    """Name and content of every file that MLflow keeps beside its database."""
    files = [path for path in (output / "mlruns").rglob("*") if path.is_file()]
    return {str(path.relative_to(output)): path.read_bytes().decode("latin-1") for path in files}


def database(output: Path) -> str:
    """The database as bytes and as every value of every table."""
    files = "".join(path.read_bytes().decode("latin-1") for path in output.glob("mlflow.db*"))
    with sqlite3.connect(output / "mlflow.db") as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [row for name in tables for row in connection.execute(f'SELECT * FROM "{name}"')]
    connection.close()
    return "\n".join([files, *(str(value) for row in rows for value in row)])


def secrets_in(text: str, secrets: Iterable[str] = SECRETS) -> set[str]:
    folded = text.casefold()
    return {secret for secret in secrets if secret.casefold() in folded}


def test_mlflow_gets_nothing_of_the_cohort(planted: Planted, tmp_path: Path) -> None:
    output = tmp_path / "output"
    settings: dict[str, Any] = {"dataset_dir": planted.folder, "output_dir": output, "on_bad_slide": "skip"}
    screens = {
        "training": run_well("training", TRAINING, **settings, bag_size=ALL_CELLS).stdout,
        "evaluating": run_well("evaluating", EVALUATING, **settings, bag_size=ALL_CELLS).stdout,
        "inference": run_well("inference", INFERENCE, **settings).stdout,
    }
    kept = artefacts(output)
    assert sorted(Path(file).name for file in kept) == sorted(
        [*("config.json", "model_description.json"), *("config.json", "metrics.json")]  # training, evaluation
    )
    assert secrets_in(database(output), {*SECRETS, *CLASSES}) == set()
    for file, content in kept.items():
        # An evaluation's metrics are those of its classes, which they name.
        secrets = SECRETS if file.endswith("metrics.json") else {*SECRETS, *CLASSES}
        assert secrets_in(file + content, secrets) == set(), file

    # What was planted is where it belongs: the log names slides, the model's file has levels and medians.
    assert f"Skipped slide {planted.training} (training)" in screens["training"]
    assert f"Skipped slide {planted.test} (test)" in screens["evaluating"]
    assert f"Skipped slide {planted.training} (inference)" in screens["inference"]
    assert {*LEVELS, *CLASSES} <= secrets_in((output / "models" / "model.json").read_text(), {*LEVELS, *CLASSES})
    assert secrets_in((output / "models" / "model.json").read_text(), spellings(FERRITIN))
