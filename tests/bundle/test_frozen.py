# SPDX-License-Identifier: Apache-2.0
"""Training, evaluating and inference on features that were extracted before."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import h5py
import mlflow
import numpy as np
import pytest
import torch

from tests.bundle.running import CONFIGS, EVALUATING, INFERENCE, SMALL_EXTRACTOR, TRAINING, run_bundle, run_well

EXTRACTING = [CONFIGS / "extract.json", SMALL_EXTRACTOR]
SAME = {"batch_size": 1, "accumulation_steps": 4, "max_epochs": 3, "skip_epochs": 0}  # features have larger batches
PREDICTIONS = ("predictions.csv", "patient_predictions.csv")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def losses(output: Path) -> dict[str, list[float]]:
    client = mlflow.MlflowClient(f"sqlite:///{output}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'persam'")
    run = client.search_runs([experiment.experiment_id], order_by=["start_time"])[0]
    return {
        name: [point.value for point in client.get_metric_history(run.info.run_id, name)]
        for name in ("train_loss", "val_loss")
    }


def probabilities(folder: Path) -> np.ndarray:
    return np.array(
        [[float(row[name]) for name in ("DLBCL", "FL", "Reactive")] for row in rows(folder / "predictions.csv")]
    )


@pytest.fixture(scope="module")
def features(dataset_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of the cohort in float32, by a small extractor with random weights."""
    folder = tmp_path_factory.mktemp("frozen") / "features"
    run_well("extracting", EXTRACTING, dataset_dir=dataset_dir, features_dir=folder, features_dtype="float32")
    return folder


@pytest.fixture(scope="module")
def frozen(dataset_dir: Path, features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output_dir of a training on them, evaluated on them."""
    output = tmp_path_factory.mktemp("frozen") / "output"
    folders = {"dataset_dir": dataset_dir, "features_dir": features, "output_dir": output}
    run_well("training", TRAINING, **folders, **SAME)
    run_well("evaluating", EVALUATING, **folders)
    return output


def test_frozen_features_give_the_losses_of_end_to_end_training_with_an_extractor_that_stays(
    dataset_dir: Path, frozen: Path, tmp_path: Path
) -> None:
    still = {"extractor_learning_rate": 0, "freeze_extractor": "true", "train#dataset#augment": "false"}
    run_well("training", TRAINING, dataset_dir=dataset_dir, output_dir=tmp_path, sampling="grid", **still, **SAME)
    ours, theirs = losses(frozen), losses(tmp_path)
    assert len(ours["train_loss"]) == 3
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-4)
    assert len(set(ours["train_loss"])) == 3  # it has learnt something, or nothing would be compared
    heads = [torch.load(output / "models" / "model.pt", weights_only=True) for output in (frozen, tmp_path)]
    assert {name for name in heads[1] if name.startswith("head.")} == set(heads[0])
    for name, tensor in heads[0].items():
        torch.testing.assert_close(tensor, heads[1][name], atol=1e-4, rtol=1e-3)


def test_predictions_have_the_temperature_that_was_fitted_on_validation(
    dataset_dir: Path, features: Path, frozen: Path, tmp_path: Path
) -> None:
    shutil.copytree(frozen / "models", tmp_path / "models")
    shutil.copy(frozen / "folds.csv", tmp_path)
    file = tmp_path / "models" / "model.json"
    card = json.loads(file.read_text())
    assert 0.5 <= card["temperature"] <= 10
    file.write_text(json.dumps(card | {"temperature": 2 * card["temperature"]}))
    run_well("evaluating", EVALUATING, dataset_dir=dataset_dir, features_dir=features, output_dir=tmp_path)
    roots = np.sqrt(probabilities(frozen / "evaluation"))
    expected = roots / roots.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities(tmp_path / "evaluation"), expected, atol=1e-5)


def test_a_training_on_every_patient_keeps_its_last_epoch_and_is_tested_on_no_one(
    dataset_dir: Path, features: Path, tmp_path: Path
) -> None:
    folders = {"dataset_dir": dataset_dir, "features_dir": features, "output_dir": tmp_path}
    run_well("training", TRAINING, **folders, **SAME, fold="all")
    card = json.loads((tmp_path / "models" / "model.json").read_text())
    assert card["trained_on"]["patients"] == 15
    assert card["epoch"] == 3
    assert card["temperature"] == 1
    result = run_bundle("evaluating", EVALUATING, **folders)
    assert result.returncode == 1
    assert "--fold all" in result.stderr
    run_well("inference", INFERENCE, **folders)


def test_inference_scores_labelled_patients_that_the_model_has_not_seen(
    dataset_dir: Path, features: Path, frozen: Path, tmp_path: Path
) -> None:
    folders = {"dataset_dir": dataset_dir, "features_dir": features, "output_dir": frozen}
    result = run_well("inference", INFERENCE, **folders, inference_dir=tmp_path)
    ours, theirs = (json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path, frozen / "evaluation"))
    tested = {row["patient"] for row in rows(frozen / "evaluation" / "patient_predictions.csv")}
    assert ours["patients_left_out"] == 15 - len(tested)
    assert ours["patient"] == theirs["patient"]
    assert ours["slide"] == theirs["slide"]
    assert len(rows(tmp_path / "patient_predictions.csv")) == 15
    assert f"{15 - len(tested)} labelled patients" in result.stdout + result.stderr


def test_slides_and_their_features_are_evaluated_alike(
    dataset_dir: Path, features: Path, frozen: Path, tmp_path: Path
) -> None:
    settings = {"dataset_dir": dataset_dir, "output_dir": frozen, "extractor_weights": features / "extractor.pt"}
    run_well("evaluating", EVALUATING, **settings, evaluation_dir=tmp_path)
    assert [row["slide"] for row in rows(tmp_path / "predictions.csv")] == [
        row["slide"] for row in rows(frozen / "evaluation" / "predictions.csv")
    ]
    np.testing.assert_allclose(probabilities(tmp_path), probabilities(frozen / "evaluation"), atol=1e-4)


def test_inference_takes_slides_or_their_features_and_needs_no_slide_for_these(
    dataset_dir: Path, features: Path, frozen: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(dataset_dir / "cohort.csv", bare)
    model = {"output_dir": tmp_path, "model": frozen / "models" / "model.pt"}
    by_features = {"dataset_dir": bare, "features_dir": features, "inference_dir": tmp_path / "features"}
    run_well("inference", INFERENCE, **model, **by_features)
    weights = {"extractor_weights": features / "extractor.pt"}
    by_slides = {"dataset_dir": dataset_dir, "inference_dir": tmp_path / "slides"}
    run_well("inference", INFERENCE, **model, **by_slides, **weights)
    assert len(probabilities(tmp_path / "features")) == len(rows(dataset_dir / "cohort.csv"))
    np.testing.assert_allclose(probabilities(tmp_path / "features"), probabilities(tmp_path / "slides"), atol=1e-4)


def test_a_model_says_which_features_it_was_trained_on(features: Path, frozen: Path) -> None:
    card = json.loads((frozen / "models" / "model.json").read_text())
    with h5py.File(next(features.rglob("*.h5"))) as file:
        weights = json.loads(file.attrs["made"])["weights"] if "made" in file.attrs else file.attrs["weights"]
    assert card["features"]["weights"] == weights
    assert card["settings"]["features"] == card["features"]


def test_slides_without_the_extractor_that_made_the_features_are_refused(
    dataset_dir: Path, features: Path, frozen: Path, tmp_path: Path
) -> None:
    settings = {"dataset_dir": dataset_dir, "output_dir": frozen, "inference_dir": tmp_path}
    none = run_bundle("inference", INFERENCE, **settings)
    assert none.returncode == 1
    assert "Name the file of those weights by --extractor_weights" in none.stderr
    weights = torch.load(features / "extractor.pt", weights_only=True)
    weights["conv1.weight"] += 1
    torch.save(weights, tmp_path / "others.pt")
    others = run_bundle("inference", INFERENCE, **settings, extractor_weights=tmp_path / "others.pt")
    assert others.returncode == 1
    said = others.stderr.replace("\n", " ")
    assert "is not the one that made the features" in said
    assert re.search(r"weights: .*but the model has", said)
    assert not (tmp_path / "predictions.csv").exists()


def test_features_of_another_extractor_than_the_model_s_own_are_refused(
    dataset_dir: Path, features: Path, trained: Path, tmp_path: Path
) -> None:
    settings = {"dataset_dir": dataset_dir, "features_dir": features, "output_dir": trained, "inference_dir": tmp_path}
    result = run_bundle("inference", INFERENCE, **settings)
    assert result.returncode == 1
    assert f"--extractor_weights {trained / 'models' / 'model.pt'}" in result.stderr
    own = tmp_path / "features"
    weights = {"extractor_weights": trained / "models" / "model.pt"}
    run_well("extracting", EXTRACTING, dataset_dir=dataset_dir, features_dir=own, features_dtype="float32", **weights)
    run_well("inference", INFERENCE, **{**settings, "features_dir": own})
    run_well("inference", INFERENCE, dataset_dir=dataset_dir, output_dir=trained, inference_dir=tmp_path / "slides")
    np.testing.assert_allclose(probabilities(tmp_path), probabilities(tmp_path / "slides"), atol=1e-4)


@pytest.mark.parametrize(
    ("setting", "both"),
    [
        ({"mpp": 0.5}, ("0.25", "0.5")),
        ({"patch_size": 256}, ("224", "256")),
        ({"extractor_name": "uni_v1"}, ("monai.networks.nets", "uni_v1")),
    ],
)
def test_features_that_are_not_as_the_settings_say_are_refused_with_both(
    setting: dict[str, object], both: tuple[str, str], dataset_dir: Path, features: Path, tmp_path: Path
) -> None:
    folders = {"dataset_dir": dataset_dir, "features_dir": features, "output_dir": tmp_path}
    result = run_bundle("training", TRAINING, **folders, **setting)
    assert result.returncode == 1
    assert "Error:" in result.stderr
    error = result.stderr[result.stderr.rindex("Error:") :]
    assert [one for one in both if one not in error] == []


def test_a_training_on_features_has_no_place_for_extractor_weights(
    dataset_dir: Path, features: Path, tmp_path: Path
) -> None:
    folders = {"dataset_dir": dataset_dir, "features_dir": features, "output_dir": tmp_path}
    result = run_bundle("training", TRAINING, **folders, extractor_weights="imagenet")
    assert result.returncode == 1
    assert "the features are extracted already" in result.stderr


def test_components_of_features_go_through_training_resuming_evaluating_and_inference(
    dataset_dir: Path, features: Path, tmp_path: Path
) -> None:
    folders = {"dataset_dir": dataset_dir, "features_dir": features}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    settings = {**folders, "reduce_features": 4, "skip_epochs": 0}
    run_well("training", TRAINING, **settings, output_dir=whole, max_epochs=4)
    run_well("training", TRAINING, **settings, output_dir=parts, max_epochs=2)
    run_well("training", TRAINING, **settings, output_dir=parts, max_epochs=4, resume="true")
    ends = [torch.load(one / "checkpoints" / "last.pt", weights_only=True)["network"] for one in (whole, parts)]
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())
    assert ends[0]["head.reduction.components"].shape[0] == 4
    run_well("evaluating", EVALUATING, **folders, output_dir=whole)
    run_well("evaluating", EVALUATING, dataset_dir=dataset_dir, output_dir=whole, evaluation_dir=tmp_path / "slides",
             extractor_weights=features / "extractor.pt")  # fmt: skip
    np.testing.assert_allclose(probabilities(whole / "evaluation"), probabilities(tmp_path / "slides"), atol=1e-4)


def test_features_of_an_extractor_that_learns_are_not_reduced(dataset_dir: Path, tmp_path: Path) -> None:
    result = run_bundle("training", TRAINING, dataset_dir=dataset_dir, output_dir=tmp_path, reduce_features=4)
    assert result.returncode == 1
    assert "--features_dir" in result.stderr


def test_a_damaged_file_of_features_is_left_out_on_request(dataset_dir: Path, features: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "features"
    shutil.copytree(features, damaged)
    (bad,) = damaged.rglob("P002.h5")
    with h5py.File(bad, "r+") as file:
        file["features"][3, 5] = np.nan
    folders = {"dataset_dir": dataset_dir, "features_dir": damaged, "output_dir": tmp_path}
    refused = run_bundle("training", TRAINING, **folders, fold=1)
    assert refused.returncode == 1
    assert "P002.h5" in refused.stderr
    run_well("training", TRAINING, **folders, fold=1, on_bad_slide="skip", overwrite="true")
    (skipped,) = rows(tmp_path / "skipped_slides.csv")
    assert skipped["slide"] == "slides/P002.tif"
    assert "P002.h5" in skipped["problem"]


def test_whole_slides_go_through_the_network_together(dataset_dir: Path, features: Path, tmp_path: Path) -> None:
    folders = {"dataset_dir": dataset_dir, "features_dir": features, "output_dir": tmp_path}
    result = run_well("training", TRAINING, **folders, bag_size=1000, batch_size=64, cache_gb=0)
    training = next(line for line in result.stdout.splitlines() if "Training on" in line)
    assert training.split("(")[1].startswith(training.split("Training on ")[1].split()[0])  # a bag for each slide


def test_features_of_another_number_are_refused_with_both_numbers(
    dataset_dir: Path, features: Path, frozen: Path, tmp_path: Path
) -> None:
    for path in features.rglob("*.h5"):
        torch.save(torch.zeros(3, 17), tmp_path / f"{path.stem}.pt")  # says nothing of an extractor
    settings = {"dataset_dir": dataset_dir, "features_dir": tmp_path, "inference_dir": tmp_path / "inference"}
    result = run_bundle("inference", INFERENCE, **settings, output_dir=frozen)
    assert result.returncode == 1
    assert "17 features for each patch, the network takes 32" in result.stderr


@pytest.mark.parametrize("form", ["trident", "clam", "pt"])
def test_features_that_others_have_extracted_train_and_infer(
    form: str, dataset_dir: Path, features: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for path in features.rglob("*.h5"):
        with h5py.File(path) as file:
            found, coords = file["features"][:], file["coords"][:]
        if form == "pt":
            torch.save(torch.from_numpy(found), theirs / f"{path.stem}.pt")
            continue
        with h5py.File(theirs / path.name, "w") as file:
            file["features"] = found[None] if form == "trident" else found
            file["coords"] = coords
            if form == "trident":
                file["coords"].attrs.update({"patch_size": 224, "patch_size_level0": 224, "target_magnification": 40})
                file["features"].attrs["encoder"] = "uni_v1"
    folders = {"dataset_dir": dataset_dir, "features_dir": theirs, "output_dir": tmp_path}
    run_well("training", TRAINING, **folders)
    run_well("inference", INFERENCE, **folders)
    assert np.isfinite(probabilities(tmp_path / "inference")).all()
