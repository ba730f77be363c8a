# SPDX-License-Identifier: Apache-2.0
"""Slides that turn out to be damaged while patches are read, with and without ``--on_bad_slide skip``."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import mlflow
import monai.bundle
import numpy as np
import pytest
import tifffile
import torch

from persam_monai.cohort import Cohort, Split, assign_folds, split_by
from persam_monai.commandline import user_error_in
from tests.bundle.running import EVALUATING, INFERENCE, ROOT, TRAINING, run_bundle
from tests.slides.writing import overwrite_bytes, tile_span

CONFIGS = {"training": TRAINING, "evaluating": EVALUATING, "inference": INFERENCE}
ALL_CELLS = 16  # patches in a bag: as many as a slide of 1024 pixels has tiles, so that every epoch meets the damage


def split_of(folder: Path) -> Split:
    """The parts of the first fold, as a training with the default settings makes them."""
    cohort = Cohort.load_dir(folder)
    return split_by(cohort, 0, assign_folds(cohort))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def damage(slide: Path) -> None:
    """Overwrite the bytes of one tile of the finest level: the darkest of the four in the middle, which is tissue."""
    small = tifffile.imread(slide, key=1)  # level 1, on which tissue is looked for: a tile of level 0 covers 64 pixels
    assert small.shape == (256, 256, 3)
    means = small.reshape(4, 64, 4, 64, 3).mean(axis=(1, 3, 4))
    row, column = np.unravel_index(means[1:3, 1:3].argmin(), (2, 2))
    begin, size = tile_span(slide, int((row + 1) * 4 + column + 1))
    overwrite_bytes(slide, begin, b"\0" * size)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the bundle in this process."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.excepthook", None)  # the run replaces it; this puts it back afterwards

    def run_it(run_id: str, **settings: Any) -> None:
        monai.bundle.run(run_id, config_file=[str(path) for path in CONFIGS[run_id]], **settings)

    return run_it


def error_of(run: Any, run_id: str, **settings: Any) -> str:
    """The message with which a run ends."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  MONAI wraps ours in one of its own
        run(run_id, **settings)
    error = user_error_in(caught.value)
    assert error is not None, repr(caught.value)
    return str(error)


@pytest.fixture(scope="module")
def damaged(dataset_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A copy of the cohort, and the slides in it that are damaged: one for training, one for the test."""
    folder = tmp_path_factory.mktemp("damaged") / "cohort"
    shutil.copytree(dataset_dir, folder)
    parts = split_of(folder)
    bad = parts.train.entries[2], parts.test.entries[0]
    for entry in bad:
        damage(entry.path)
    return folder, bad[0].slide, bad[1].slide


def mlflow_run(output: Path, number: int) -> tuple[mlflow.MlflowClient, Any]:
    """The run that was started as the ``number``-th."""
    client = mlflow.MlflowClient(f"sqlite:///{output}/mlflow.db")
    experiment = client.get_experiment_by_name("persam")
    assert experiment is not None
    return client, client.search_runs([experiment.experiment_id], order_by=["start_time"])[number]


def test_a_training_that_met_a_damaged_slide_goes_on_without_it(
    damaged: tuple[Path, str, str], dataset_dir: Path, tmp_path: Path, run: Any
) -> None:
    folder, slide, _ = damaged
    output = tmp_path / "output"
    settings: dict[str, Any] = {"output_dir": str(output), "bag_size": ALL_CELLS}
    run("training", dataset_dir=str(dataset_dir), max_epochs=1, **settings)  # while the slide was whole
    settings.update({"dataset_dir": str(folder), "max_epochs": 2, "resume": True})

    result = run_bundle("training", TRAINING, **settings)
    assert result.returncode == 1
    (message,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert str(folder / slide) in message
    assert "level 0 is damaged" in message
    assert "--on_bad_slide skip" in message
    assert "Traceback" not in result.stderr
    assert not (output / "skipped_slides.csv").exists()

    run("training", **settings, on_bad_slide="skip", num_workers=1)
    (line,) = rows(output / "skipped_slides.csv")
    assert (line["part"], line["slide"]) == ("training", slide)
    assert str(folder / slide) in line["problem"]
    finished = torch.load(output / "checkpoints" / "last.pt", weights_only=True)["trainer"]
    assert finished["iteration"] == 2 * finished["epoch_length"]
    assert (output / "models" / "model.pt").is_file()
    client, last_run = mlflow_run(output, 2)
    assert last_run.info.status == "FINISHED"
    assert last_run.data.metrics["skipped_slides"] == 1
    assert [point.step for point in client.get_metric_history(last_run.info.run_id, "val_loss")] == [2]

    # Taken up again, it skips the same slide from the beginning, and its epochs are shorter.
    run("training", **{**settings, "max_epochs": 3}, on_bad_slide="skip")
    assert rows(output / "skipped_slides.csv") == [line]
    longer = torch.load(output / "checkpoints" / "last.pt", weights_only=True)["trainer"]
    assert longer["epoch_length"] == len(split_of(folder).train) - 1
    assert longer["iteration"] == 3 * longer["epoch_length"]


def test_a_training_of_whole_slides_skips_none(dataset_dir: Path, tmp_path: Path, run: Any) -> None:
    tmp_path.joinpath("skipped_slides.csv").write_text("part,slide,problem\ntraining,old.tif,old\n")
    run("training", dataset_dir=str(dataset_dir), output_dir=str(tmp_path), max_epochs=1, on_bad_slide="skip")
    assert not (tmp_path / "skipped_slides.csv").exists()
    _, only = mlflow_run(tmp_path, 0)
    assert only.data.metrics["skipped_slides"] == 0


def test_evaluating_leaves_a_damaged_slide_out(
    damaged: tuple[Path, str, str], trained: Path, tmp_path: Path, run: Any
) -> None:
    folder, _, slide = damaged
    settings = {
        "dataset_dir": str(folder),
        "output_dir": str(tmp_path),
        "model": str(trained / "models" / "model.pt"),
        "num_workers": 1,
    }
    message = error_of(run, "evaluating", **settings)
    assert str(folder / slide) in message
    assert "level 0 is damaged" in message
    assert not (tmp_path / "evaluation" / "predictions.csv").exists()

    run("evaluating", **settings, on_bad_slide="skip")
    whole = rows(trained / "evaluation" / "predictions.csv")
    assert slide in [row["slide"] for row in whole]
    assert rows(tmp_path / "evaluation" / "predictions.csv") == [row for row in whole if row["slide"] != slide]
    (line,) = rows(tmp_path / "evaluation" / "skipped_slides.csv")
    assert (line["part"], line["slide"]) == ("test", slide)
    _, last_run = mlflow_run(tmp_path, -1)
    assert last_run.data.metrics["skipped_slides"] == 1


def test_inference_leaves_damaged_slides_out(
    damaged: tuple[Path, str, str], trained: Path, tmp_path: Path, run: Any
) -> None:
    folder, *bad = damaged
    settings = {
        "dataset_dir": str(folder),
        "output_dir": str(tmp_path),
        "model": str(trained / "models" / "model.pt"),
    }
    message = error_of(run, "inference", **settings)
    assert any(str(folder / slide) in message for slide in bad)
    run("inference", **settings, on_bad_slide="skip")
    names = [row["slide"] for row in rows(folder / "cohort.csv")]
    predicted = {row["slide"]: row for row in rows(tmp_path / "inference" / "predictions.csv")}
    assert list(predicted) == [name for name in names if name not in bad]
    assert {line["slide"] for line in rows(tmp_path / "inference" / "skipped_slides.csv")} == set(bad)
    for row in rows(trained / "evaluation" / "predictions.csv"):
        assert row["slide"] in bad or predicted[row["slide"]] == row


@pytest.mark.parametrize(
    ("run_id", "name", "value", "meant"),
    [
        ("training", "backend", "opensilde", "openslide"),
        ("evaluating", "on_bad_slide", "Skips", "skip"),
        ("inference", "backend", "cuCIm", "cucim"),
    ],
)
def test_values_that_cannot_be_meant_are_refused_with_a_suggestion(
    dataset_dir: Path, trained: Path, tmp_path: Path, run: Any, run_id: str, name: str, value: str, meant: str
) -> None:
    model = {} if run_id == "training" else {"model": str(trained / "models" / "model.pt")}
    settings = {"dataset_dir": str(dataset_dir), "output_dir": str(tmp_path / "o"), **model, name: value}
    message = error_of(run, run_id, **settings)
    assert f"{name} is {value!r}; expected one of " in message
    assert f'Did you mean "{meant}"?' in message
    assert not list(tmp_path.glob("o/**/*.csv"))
