# SPDX-License-Identifier: Apache-2.0
"""Training, evaluating and inference as users type them."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, roc_auc_score

from tests.bundle.running import (
    CONFIGS,
    EVALUATING,
    INFERENCE,
    ROOT,
    TRAINING,
    command,
    run_bundle,
    run_well,
)

CLASSES = ["DLBCL", "FL", "Reactive"]
APERIO = ROOT.parent / "shared" / "slides" / "CMU-1-Small-Region.svs"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def tensors(state: object, prefix: str = "") -> dict[str, torch.Tensor]:
    """All tensors of a nested checkpoint, by path."""
    if isinstance(state, torch.Tensor):
        return {prefix: state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list | tuple) else ()
    return {name: tensor for key, value in items for name, tensor in tensors(value, f"{prefix}/{key}").items()}


def test_training_leaves_the_files_that_the_documentation_names(trained: Path) -> None:
    names = ["models/model.pt", "models/model.json", "checkpoints/last.pt", "folds.csv", "mlflow.db"]
    names += ["evaluation/predictions.csv", "evaluation/patient_predictions.csv", "evaluation/metrics.json"]
    assert [name for name in names if not (trained / name).is_file()] == []
    leftovers = [path for path in trained.rglob("*") if "partial" in path.name or "tmp" in path.name]
    assert leftovers == []


def test_checkpoints_hold_nothing_but_tensors_and_plain_values(trained: Path) -> None:
    weights = torch.load(trained / "models" / "model.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in weights.values())
    assert {name.split(".")[0] for name in weights} == {"extractor", "head"}
    last = torch.load(trained / "checkpoints" / "last.pt", weights_only=True)
    assert set(last) == {"network", "optimizer", "lr_scheduler", "best_model", "trainer"}


def test_no_patient_is_tested_who_was_trained_on(trained: Path, dataset_dir: Path) -> None:
    fold_of = {row["patient_id"]: row["fold"] for row in rows(trained / "folds.csv")}
    cohort = {row["slide"]: row["patient_id"] for row in rows(dataset_dir / "cohort.csv")}
    predicted = rows(trained / "evaluation" / "predictions.csv")
    assert {row["slide"] for row in predicted} == {
        slide for slide, patient in cohort.items() if fold_of[patient] == "0"
    }


def test_metrics_are_those_of_the_predictions_file(trained: Path) -> None:
    metrics = json.loads((trained / "evaluation" / "metrics.json").read_text())
    for level, name in (("slide", "predictions.csv"), ("patient", "patient_predictions.csv")):
        table = rows(trained / "evaluation" / name)
        truth = np.array([CLASSES.index(row["label"]) for row in table])
        probabilities = np.array([[float(row[c]) for c in CLASSES] for row in table])
        guess = np.array([CLASSES.index(row["predicted"]) for row in table])
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_array_equal(guess, probabilities.argmax(axis=1))
        assert metrics[level]["accuracy"] == pytest.approx(accuracy_score(truth, guess))
        assert metrics[level]["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, guess))
        areas = [
            roc_auc_score(truth == c, probabilities[:, c]) for c in range(3) if 0 < (truth == c).sum() < len(truth)
        ]
        assert metrics[level]["auroc"] == pytest.approx(np.mean(areas))
        assert metrics[level]["confusion_matrix"] == confusion_matrix(truth, guess, labels=range(3)).tolist()


def test_the_progress_bar_and_the_random_extractor_are_told(dataset_dir: Path, tmp_path: Path) -> None:
    result = run_well("run", TRAINING, dataset_dir=dataset_dir, output_dir=tmp_path / "o", max_epochs=1)
    assert "random weights" in result.stdout
    assert "100%" in result.stderr


def test_equal_predictions_whatever_the_number_of_loader_workers(
    trained: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    settings = {"dataset_dir": dataset_dir, "output_dir": tmp_path, "max_epochs": 4, "num_workers": 2}
    run_well("training", TRAINING, **settings)
    run_well("evaluating", EVALUATING, dataset_dir=dataset_dir, output_dir=tmp_path, num_workers=2)
    ours = (tmp_path / "evaluation" / "predictions.csv").read_bytes()
    assert ours == (trained / "evaluation" / "predictions.csv").read_bytes()


def test_a_killed_training_resumes_to_the_same_weights_bit_for_bit(
    trained: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    settings = {"dataset_dir": dataset_dir, "output_dir": tmp_path, "max_epochs": 4}
    with subprocess.Popen(
        command("training", TRAINING, **settings), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        while not (tmp_path / "checkpoints" / "last.pt").exists():
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(0.2)  # into the middle of the second epoch
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    killed_at = torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)["trainer"]["iteration"]
    result = run_well("training", TRAINING, **settings, resume="true")
    assert "Going on from" in result.stdout
    for name in ("models/model.pt", "checkpoints/last.pt"):
        whole = tensors(torch.load(trained / name, weights_only=True))
        resumed = tensors(torch.load(tmp_path / name, weights_only=True))
        assert whole.keys() == resumed.keys()
        assert [key for key in whole if not torch.equal(whole[key], resumed[key])] == []
    finished = torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)["trainer"]["iteration"]
    assert killed_at < finished

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("persam")
    assert experiment is not None
    statuses = [run.info.status for run in client.search_runs([experiment.experiment_id], order_by=["start_time"])]
    assert statuses == ["FAILED", "FINISHED"]


def test_a_training_goes_on_from_another_folder_s_checkpoint_into_a_new_one(
    trained: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    settings = {"dataset_dir": dataset_dir, "output_dir": tmp_path / "longer", "max_epochs": 5}
    before = (trained / "checkpoints" / "last.pt").read_bytes()
    run_well("training", TRAINING, **settings, resume=trained / "checkpoints" / "last.pt")
    last = torch.load(tmp_path / "longer" / "checkpoints" / "last.pt", weights_only=True)
    assert last["trainer"]["iteration"] // last["trainer"]["epoch_length"] == 5
    assert (tmp_path / "longer" / "models" / "model.pt").is_file()
    assert (trained / "checkpoints" / "last.pt").read_bytes() == before


def test_a_finished_training_is_neither_overwritten_nor_resumed_with_other_settings(
    trained: Path, dataset_dir: Path
) -> None:
    settings = {"dataset_dir": dataset_dir, "output_dir": trained, "max_epochs": 4}
    again = run_bundle("training", TRAINING, **settings)
    assert again.returncode == 1
    assert "--overwrite true" in again.stderr.splitlines()[-1]
    unsure = run_bundle("training", TRAINING, **settings, overwrite="false")
    assert unsure.returncode == 1
    assert (trained / "models" / "model.pt").is_file()
    other = run_bundle("training", TRAINING, **settings, resume="true", bag_size=9)
    assert other.returncode == 1
    assert "bag_size was 8 and is now 9" in other.stderr.splitlines()[-1]


def test_an_overwriting_training_that_cannot_begin_leaves_the_earlier_one(
    trained: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    output = tmp_path / "my output"
    shutil.copytree(trained, output)
    before = {path.relative_to(output): path.read_bytes() for path in output.glob("[mce]*/*.*")}
    result = run_bundle(
        "training", TRAINING, dataset_dir=dataset_dir, output_dir=output, overwrite="true", extractor_weights="no.pth"
    )
    assert result.returncode == 1
    assert "no.pth" in result.stderr
    assert {path.relative_to(output): path.read_bytes() for path in output.glob("[mce]*/*.*")} == before


def test_a_model_is_not_evaluated_on_patients_who_were_dealt_out_anew(
    trained: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    smaller = tmp_path / "cohort"
    shutil.copytree(dataset_dir, smaller)
    lines = (smaller / "cohort.csv").read_text().splitlines()
    (smaller / "cohort.csv").write_text("\n".join([*lines[:-1], ""]))
    result = run_bundle("evaluating", EVALUATING, dataset_dir=smaller, output_dir=trained)
    assert result.returncode == 1
    assert f"{trained / 'folds.csv'}: the folds are not those of {smaller / 'cohort.csv'}" in result.stderr
    assert "use the table as it was when the folds were drawn" in result.stderr.splitlines()[-1]
    drawn = run_bundle("evaluating", EVALUATING, dataset_dir=smaller, output_dir=trained, folds_file="null")
    assert drawn.returncode == 1
    assert "may hold patients it was trained on" in drawn.stderr.splitlines()[-1]


def test_mlflow_has_parameters_metrics_of_every_epoch_and_the_config(trained: Path, dataset_dir: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{trained}/mlflow.db")
    experiment = client.get_experiment_by_name("persam")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"training", "evaluating"}
    training = runs["training"]
    assert training.info.status == "FINISHED"
    assert training.data.params["bag_size"] == "8"
    for metric in ("train_loss", "val_loss", "val_slide_accuracy", "lr_head"):
        history = client.get_metric_history(training.info.run_id, metric)
        assert [point.step for point in history] == [1, 2, 3, 4]
    config = json.loads(
        Path(client.download_artifacts(training.info.run_id, "config.json")).read_text(encoding="utf-8")
    )
    assert config["max_epochs"] == 4
    assert config["dataset_dir"] == str(dataset_dir)
    assert "test_slide_accuracy" in runs["evaluating"].data.metrics


def test_a_crashed_training_is_failed_in_mlflow(dataset_dir: Path, tmp_path: Path) -> None:
    broken = tmp_path / "cohort"
    shutil.copytree(dataset_dir, broken)
    slide = broken / rows(broken / "cohort.csv")[0]["slide"]
    slide.write_bytes(slide.read_bytes()[:2000])
    result = run_bundle("training", TRAINING, dataset_dir=broken, output_dir=tmp_path / "output")
    assert result.returncode == 1
    assert str(slide) in result.stderr.splitlines()[-1]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/output/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "persam"]
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FAILED"]


@pytest.mark.slow
def test_a_training_whose_store_breaks_ends_with_its_model(dataset_dir: Path, tmp_path: Path) -> None:
    words = command("training", TRAINING, dataset_dir=dataset_dir, output_dir=tmp_path, max_epochs=4)
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "checkpoints" / "last.pt").exists():
            assert process.poll() is None
            time.sleep(0.01)
        with closing(sqlite3.connect(tmp_path / "mlflow.db", timeout=60)) as connection:
            connection.execute("ALTER TABLE metrics RENAME TO gone")
        out, err = process.communicate()
    assert process.returncode == 0, err[-3000:]
    assert "Traceback" not in out + err
    assert (tmp_path / "models" / "model.pt").is_file()
    warnings = [line for line in out.splitlines() if line.startswith("Warning: MLflow")]
    assert len(warnings) == 2
    assert out.splitlines()[-1] == warnings[-1]


def test_inference_gives_a_slide_the_prediction_that_evaluating_gave_it(
    trained: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    table = rows(dataset_dir / "cohort.csv")
    columns = [name for name in table[0] if name != "label"]
    with (dataset_dir / "unlabelled.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(table)
    run_well(
        "inference",
        INFERENCE,
        dataset_dir=dataset_dir,
        table="unlabelled.csv",
        model=trained / "models" / "model.pt",
        output_dir=tmp_path,
    )
    inferred = {row["slide"]: row for row in rows(tmp_path / "inference" / "predictions.csv")}
    assert len(inferred) == len(table)
    for row in rows(trained / "evaluation" / "predictions.csv"):
        assert {**inferred[row["slide"]], "label": row["label"]} == row


def test_evaluating_and_inference_choose_the_same_patches_whatever_the_model_was_seeded_with() -> None:
    evaluate, inference = (
        json.loads((ROOT / CONFIGS / f"{name}.json").read_text()) for name in ("evaluate", "inference")
    )
    draw = inference["dataset"]["draw"]
    assert evaluate["evaluate"]["dataset"]["draw"] == draw
    assert "seed" not in draw
    for key in ("patches_per_slide", "partitions", "bag_size", "mpp"):
        assert evaluate[key] == inference[key]


def test_the_record_moves_the_prediction_of_a_single_slide(trained: Path, dataset_dir: Path, tmp_path: Path) -> None:
    slide = dataset_dir / rows(dataset_dir / "cohort.csv")[0]["slide"]
    common = {"model": trained / "models" / "model.pt", "slide": slide}
    alone = run_well("inference", INFERENCE, **common, output_dir=tmp_path / "a")
    assert "No --record" in alone.stdout
    run_well("inference", INFERENCE, **common, output_dir=tmp_path / "b", record="{age: 80, sex: male, ldh: 900}")
    a, b = (rows(tmp_path / name / "inference" / "predictions.csv")[0] for name in "ab")
    assert [a[c] for c in CLASSES] != [b[c] for c in CLASSES]


@pytest.mark.slow
def test_the_bundle_runs_from_its_own_folder(trained: Path, dataset_dir: Path, tmp_path: Path) -> None:
    words = command(
        "run",
        ["configs/inference.json", str(ROOT / INFERENCE[1])],
        dataset_dir=dataset_dir,
        model=trained / "models" / "model.pt",
        output_dir=tmp_path,
    )
    result = subprocess.run(words, cwd=ROOT / "bundle", capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / "inference" / "predictions.csv").is_file()


@pytest.mark.skipif(not APERIO.is_file(), reason="the Aperio test slide is not beside this checkout")
def test_inference_on_a_real_aperio_slide_explains_its_resolution(trained: Path, tmp_path: Path) -> None:
    common = {"model": trained / "models" / "model.pt", "slide": APERIO, "output_dir": tmp_path}
    refused = run_bundle("inference", INFERENCE, **common)
    assert refused.returncode == 1
    assert "0.499 µm per pixel" in refused.stderr.splitlines()[-1]
    assert "--mpp 0.5" in refused.stderr.splitlines()[-1]
    accepted = run_well("inference", INFERENCE, **common, mpp=0.5)
    assert "never seen tissue at that scale" in accepted.stdout
    (row,) = rows(tmp_path / "inference" / "predictions.csv")
    assert sum(float(row[c]) for c in CLASSES) == pytest.approx(1, abs=1e-5)


def test_a_misspelt_override_is_refused_with_the_right_spelling(dataset_dir: Path, tmp_path: Path) -> None:
    result = run_bundle("training", TRAINING, dataset_dir=dataset_dir, output_dir=tmp_path / "o", max_epocs=1)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("Error: --max_epocs")
    assert '"max_epochs"' in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "o").exists()


def test_nested_overrides_go_on_working_and_debug_keeps_the_traceback(dataset_dir: Path, tmp_path: Path) -> None:
    output = tmp_path / "o"
    settings: dict[str, Any] = {"dataset_dir": dataset_dir, "output_dir": output, "max_epochs": 1}
    run_well("training", TRAINING, **settings, **{"optimizer#lr": 0.1})
    groups = torch.load(output / "checkpoints" / "last.pt", weights_only=True)["optimizer"]["param_groups"]
    assert {group["name"]: group["initial_lr"] for group in groups}["head"] == 0.1
    again = run_bundle("training", TRAINING, **settings, debug=True)
    assert again.returncode == 1
    assert "Traceback" in again.stderr
    assert "already holds a training" in again.stderr


def test_monai_s_own_tracking_argument_is_accepted(dataset_dir: Path, tmp_path: Path) -> None:
    run_well("training", TRAINING, dataset_dir=dataset_dir, output_dir=tmp_path, max_epochs=1, tracking="mlflow")


def test_metadata_is_valid() -> None:
    schema = ROOT.parent / "shared" / "meta_schema_20240725.json"
    if not schema.is_file():
        pytest.skip("MONAI's metadata schema is not beside this checkout")
    words = [*command("x", [])[:3], "verify_metadata", "--meta_file", str(CONFIGS / "metadata.json")]
    result = subprocess.run([*words, "--filepath", str(schema)], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "verified with no error" in result.stdout + result.stderr
