# SPDX-License-Identifier: Apache-2.0
"""Each kind of bad input ends with one error that names the place and the cure."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
import pytest

from persam_monai.commandline import user_error_in
from persam_monai.synthetic import write_pyramid
from tests.bundle.running import ROOT, TRAINING

Table = list[dict[str, str]]


@pytest.fixture
def copied(dataset_dir: Path, tmp_path: Path) -> Path:
    """A copy of the cohort to damage."""
    folder = tmp_path / "cohort"
    shutil.copytree(dataset_dir, folder)
    return folder


def edit(folder: Path, change: Callable[[Table], Table]) -> None:
    """Rewrite the cohort table."""
    path = folder / "cohort.csv"
    with path.open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    table = change(table)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)


def error_of_training(monkeypatch: pytest.MonkeyPatch, dataset_dir: Path, output_dir: Path, **settings: Any) -> str:
    """The message with which a training ends."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.excepthook", None)  # the run replaces it; this puts it back afterwards
    settings = {"dataset_dir": str(dataset_dir), "output_dir": str(output_dir), "max_epochs": 1, **settings}
    with pytest.raises(Exception) as caught:  # noqa: PT011  MONAI wraps ours in one of its own
        monai.bundle.run("training", config_file=[str(path) for path in TRAINING], **settings)
    error = user_error_in(caught.value)
    assert error is not None, repr(caught.value)
    return str(error)


def replace(row: int, column: str, value: str) -> Callable[[Table], Table]:
    def change(table: Table) -> Table:
        table[row][column] = value
        return table

    return change


def test_missing_column(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(copied, lambda table: [{k: v for k, v in row.items() if k != "ldh"} for row in table])
    message = error_of_training(monkeypatch, copied, tmp_path / "o")
    assert str(copied / "cohort.csv") in message
    assert "ldh" in message


def test_unknown_label(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(copied, replace(3, "label", "dlbcl"))
    message = error_of_training(monkeypatch, copied, tmp_path / "o")
    assert "row 5" in message
    assert "dlbcl" in message
    assert "DLBCL" in message


def test_all_missing_slide_files_are_listed_at_once(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("P001", "P004", "P009"):
        (copied / "slides" / f"{name}.tif").unlink()
    message = error_of_training(monkeypatch, copied, tmp_path / "o")
    assert all(str(copied / "slides" / f"{name}.tif") in message for name in ("P001", "P004", "P009"))
    assert "P002.tif" not in message


def test_slides_that_cannot_be_used_are_listed_together(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slides = copied / "slides"
    (slides / "P001.tif").write_text("not an image")
    tissue = np.full((600, 600, 3), (180, 90, 150), np.uint8)
    (slides / "P002.tif").unlink()
    write_pyramid(slides / "P002.tif", tissue, mpp=None)
    (slides / "P003.tif").unlink()
    write_pyramid(slides / "P003.tif", np.full((600, 600, 3), 244, np.uint8), mpp=0.25)
    # All three stand in the training fold.
    edit(copied, lambda table: [{**row, "fold": _fold(row["patient_id"])} for row in table])
    message = error_of_training(monkeypatch, copied, tmp_path / "o")
    lines = message.splitlines()
    (image,) = [line for line in lines if "P001.tif" in line]
    (mpp,) = [line for line in lines if "P002.tif" in line]
    (glass,) = [line for line in lines if "P003.tif" in line]
    assert "not a whole-slide image" in image
    assert "column mpp" in mpp
    assert "no tissue found" in glass


def _fold(patient: str) -> str:
    """Folds 0 and 1 for two patients of each late number, fold 2 for all others."""
    number = int(patient[1:])
    return "0" if number in (10, 11) else "1" if number in (12, 13) else "2"


def test_class_absent_from_the_training_fold(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(table: Table) -> Table:
        for row in table:
            row["fold"] = "0" if row["label"] == "FL" else "1" if row["patient_id"] in ("P014", "P015") else "2"
        return table

    edit(copied, change)
    message = error_of_training(monkeypatch, copied, tmp_path / "o")
    assert "FL" in message
    assert "training" in message


def test_fewer_patients_than_folds(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(copied, lambda table: table[:4])
    message = error_of_training(monkeypatch, copied, tmp_path / "o")
    assert "for 5 folds" in message


def test_clinical_cell_that_is_not_a_number(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(copied, replace(6, "ldh", "high"))
    message = error_of_training(monkeypatch, copied, tmp_path / "o")
    assert "row 8" in message
    assert "ldh" in message
    assert "high" in message


def test_output_dir_not_writable(dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()  # a folder below a file cannot be made, by anyone
    message = error_of_training(monkeypatch, dataset_dir, tmp_path / "file" / "output")
    assert "not writable" in message
    assert "--output_dir" in message


def test_missing_dataset_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = error_of_training(monkeypatch, tmp_path / "nowhere", tmp_path / "o")
    assert str(tmp_path / "nowhere") in message
    assert "--dataset_dir" in message


def test_missing_extractor_weights(dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = error_of_training(monkeypatch, dataset_dir, tmp_path / "o", extractor_weights=str(tmp_path / "no.pth"))
    assert str(tmp_path / "no.pth") in message
