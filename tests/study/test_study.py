# SPDX-License-Identifier: Apache-2.0
"""A study from one command: folds, networks and seeds become one comparison, which can be stopped and goes on."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import mlflow
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from persam_monai.synthetic import make_cohort
from persam_monai.synthetic.cohort import patient_id
from tests.bundle.running import ROOT

SMALL = {"mpp": 1.0, "patch_size": 112, "max_epochs": 2, "val_interval": 1, "bag_size": 6, "reduce_features": 4}
pytestmark = pytest.mark.slow

MODELS = ["PersAM", "record"]
SEEDS_AND_RATES = ("--seeds", "0", "1", "--learning_rates", "0.003", "0.03")


def study(dataset_dir: Path, output_dir: Path, *words: str, **overrides: object) -> list[str]:
    """The command of a small study."""
    command = [sys.executable, "scripts/cross_validate.py", "--dataset_dir", str(dataset_dir)]
    command += ["--output_dir", str(output_dir), "--features_dir", str(dataset_dir / "features"), "--folds", "3"]
    command += ["--networks", "persam", "record", "--resamples", "40", *words]
    return command + [part for key, value in {**SMALL, **overrides}.items() for part in (f"--{key}", str(value))]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighteen synthetic patients with features that are noise around the kind of tissue."""
    folder = tmp_path_factory.mktemp("study") / "cohort"
    make_cohort(folder, patients=18, seed=4, size=1024, workers=1)
    rng, side = np.random.default_rng(0), 448  # level-0 pixels of a patch
    for file in sorted((folder / "slides").glob("*.tif")):
        places = np.array([(x, y) for x in (0, 288, 576) for y in (0, 288, 576)])
        target = folder / "features" / f"{file.stem}.h5"
        target.parent.mkdir(exist_ok=True)
        with h5py.File(target, "w") as h5:
            h5["features"] = rng.standard_normal((9, 12)).astype(np.float32)
            h5["coords"] = places
            h5["coords"].attrs["patch_size_level0"] = side
    return folder


@pytest.fixture(scope="module")
def studied(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output_dir of a study with two seeds."""
    output = tmp_path_factory.mktemp("study") / "output"
    result = run(study(cohort, output, *SEEDS_AND_RATES, "--jobs", "2"))
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return output


def test_every_patient_is_tested_once_by_every_network_and_seed(studied: Path, cohort: Path) -> None:
    results = json.loads((studied / "comparison.json").read_text())
    assert results["patients"] == 18
    for network in ("persam", "record"):
        for seed in (0, 1):
            rows = []
            for fold in range(3):
                file = studied / "parts" / network / f"fold_{fold}_seed_{seed}" / "evaluation/patient_predictions.csv"
                rows += list(csv.DictReader(file.open()))
            assert sorted(row["patient"] for row in rows) == [patient_id(number) for number in range(18)]
            if network == "persam" and seed == 0:
                classes = results["classes"]
                areas = [
                    roc_auc_score([row["label"] == name for row in rows], [float(row[name]) for row in rows])
                    for name in classes
                ]
                assert results["confusion_matrix"]["PersAM"] == [
                    [sum(row["label"] == a and row["predicted"] == b for row in rows) for b in classes] for a in classes
                ]
    one, other = (results["spread"]["PersAM"]["auroc"]["seed_sd"], results["scores"]["PersAM"]["auroc"]["estimate"])
    assert abs(other - np.mean(areas)) == pytest.approx(one / np.sqrt(2), abs=1e-9)  # two seeds around their mean


def test_classical_models_and_all_differences_are_there(studied: Path) -> None:
    results = json.loads((studied / "comparison.json").read_text())
    classical = [f"{m}, {i}" for m in ("logistic regression", "gradient boosting") for i in ("record", "mean features")]
    assert {*MODELS, *classical} <= set(results["scores"])
    assert set(results["differences"]) == set(results["scores"]) - {"PersAM"}
    with (studied / "comparison.csv").open() as file:
        rows = {(row["model"], row["score"]): row for row in csv.DictReader(file)}
    for (model, score), row in rows.items():
        assert float(row["estimate"]) == results["scores"][model][score]["estimate"]


def test_personalisation_names_every_variable(studied: Path, cohort: Path) -> None:
    results = json.loads((studied / "comparison.json").read_text())["personalisation"]
    header = (cohort / "cohort.csv").read_text().splitlines()[0].split(",")
    assert list(results["variables"]) == [name for name in header if name not in ("patient_id", "slide", "label")]
    assert all(0 <= one["attention"] <= 1 and 0 < one["p"] <= 1 for one in results["variables"].values())
    assert set(results["deletion"]) == {"whole", "0.05", "0.1", "0.2"}


def test_the_report_is_one_file_with_its_pictures_inside(studied: Path) -> None:
    text = (studied / "report.html").read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") >= 6
    assert "http" not in text
    assert all(name in text for name in (*MODELS, "gradient boosting, both", "platelets"))


def test_a_study_that_is_done_is_not_done_again_but_compared_again(studied: Path, cohort: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(studied, copy)
    shutil.rmtree(copy / "parts" / "record" / "fold_1_seed_1")
    before = {file: file.stat().st_mtime_ns for file in copy.rglob("model.pt")}
    result = run(study(cohort, copy, *SEEDS_AND_RATES))
    assert result.returncode == 0, result.stderr[-2000:]
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert (copy / "comparison.json").read_text() == (studied / "comparison.json").read_text()


def test_a_study_that_was_killed_goes_on_to_the_same_numbers(studied: Path, cohort: Path, tmp_path: Path) -> None:
    command = study(cohort, tmp_path, *SEEDS_AND_RATES, "--jobs", "2")
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        while process.poll() is None and len(list(tmp_path.rglob("last.pt"))) < 3:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    assert not (tmp_path / "comparison.json").exists()
    assert run(command).returncode == 0
    assert (tmp_path / "comparison.json").read_text() == (studied / "comparison.json").read_text()


def test_a_part_that_fails_is_named_and_the_others_go_on(cohort: Path, tmp_path: Path) -> None:
    broken = tmp_path / "cohort"
    shutil.copytree(cohort, broken)
    output = tmp_path / "output"
    (output / "parts" / "persam" / "fold_1_seed_0").mkdir(parents=True)
    (output / "parts" / "persam" / "fold_1_seed_0" / "models").write_text("in the way")
    result = run(study(broken, output))
    assert result.returncode == 1
    results = json.loads((output / "comparison.json").read_text())
    assert list(results["failed"]) == ["PersAM, fold 1, seed 0"]
    assert "record" in results["scores"]
    assert "PersAM" not in results["scores"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--networks", "perssam"], ["perssam", "persam"]),
        (["--max_epocs", "3"], ["max_epocs", "max_epochs"]),
        (["--head#widht", "3"], ["widht", "width"]),
    ],
)
def test_what_is_misspelt_is_named(cohort: Path, tmp_path: Path, words: list[str], named: list[str]) -> None:
    result = run([*study(cohort, tmp_path / "output"), *words])
    assert result.returncode == 1
    assert all(name in result.stderr for name in named)
    assert "Traceback" not in result.stderr


def test_parts_of_other_settings_are_not_mixed(studied: Path, cohort: Path) -> None:
    result = run(study(cohort, studied, *SEEDS_AND_RATES, max_epochs=3))
    assert result.returncode == 1
    assert "max_epochs" in result.stderr
    assert "--output_dir" in result.stderr


def test_each_network_and_fold_takes_the_rate_that_is_best_on_its_validation_fold(studied: Path) -> None:
    for network in ("persam", "record"):
        for fold in range(3):
            losses = {}
            for rate in (0.003, 0.03):
                folder = studied / "trials" / network / f"fold_{fold}_seed_0_rate_{rate:g}"
                losses[rate] = json.loads((folder / "models" / "model.json").read_text())["val_loss"]
            for seed in (0, 1):
                card = json.loads((studied / f"parts/{network}/fold_{fold}_seed_{seed}/models/model.json").read_text())
                assert card["settings"]["learning_rate"] == min(losses, key=lambda rate: losses[rate])


def test_mlflow_has_a_run_of_the_study_around_those_of_its_parts(studied: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{studied}/mlflow.db")
    experiment = client.get_experiment_by_name("persam")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == len(runs) - 1
    assert len(children) == 12 + 2 * 12  # trials, and parts that are trained and evaluated
    assert {run.info.status for run in runs} == {"FINISHED"}
