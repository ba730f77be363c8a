# SPDX-License-Identifier: Apache-2.0
"""What becomes of the clinical record on its way through training, evaluating and inference."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pytest
import torch
import yaml

from tests.bundle.running import EVALUATING, INFERENCE, TRAINING, run_bundle, run_well

Rows = list[dict[str, str]]


def rows(path: Path) -> Rows:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path, table: Rows) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)


@pytest.fixture
def copied(dataset_dir: Path, tmp_path: Path) -> Path:
    """The cohort with a table and a schema of its own to change; the slides are those of the original."""
    folder = tmp_path / "cohort"
    folder.mkdir()
    for name in ("cohort.csv", "clinical.yaml"):
        shutil.copy(dataset_dir / name, folder / name)
    os.symlink(dataset_dir / "slides", folder / "slides")
    return folder


def test_the_model_remembers_the_training_records_and_nothing_of_the_others(trained: Path, dataset_dir: Path) -> None:
    card = json.loads((trained / "models" / "model.json").read_text())
    fold = {row["patient_id"]: int(row["fold"]) for row in rows(trained / "folds.csv")}
    table = pd.read_csv(dataset_dir / "cohort.csv").drop_duplicates("patient_id")
    training = table[[fold[patient] not in (0, 1) for patient in table["patient_id"]]]  # 0 is tested, 1 validated
    assert card["trained_on"]["patients"] == len(training)
    assert {name: found["patients"] for name, found in card["trained_on"]["classes"].items()} == dict(
        training["label"].value_counts()
    )
    state = torch.load(trained / "models" / "model.pt", weights_only=True)
    schema = yaml.safe_load((dataset_dir / "clinical.yaml").read_text())
    names = [
        component
        for variables in schema["groups"].values()
        for name, declared in variables.items()
        for component in ([f"{name}={level}" for level in declared["levels"]] if "levels" in declared else [name])
    ]
    for name, logarithm in (("age", False), ("ldh", True), ("haemoglobin", False)):
        values = np.log(training[name]) if logarithm else training[name]
        filled = values.fillna(values.median())
        place = names.index(name)
        for statistic, wanted in (("median", values.median()), ("mean", filled.mean()), ("scale", filled.std(ddof=0))):
            fitted = float(state[f"head.clinical_encoder.{statistic}"][place])
            assert math.isclose(fitted, wanted, rel_tol=1e-5), (name, statistic)
        assert card["statistics"]["variables"][name]["known"] == values.notna().sum()


def test_a_value_far_outside_the_training_range_is_flagged_and_nothing_else(
    trained: Path, dataset_dir: Path, copied: Path, tmp_path: Path
) -> None:
    table = rows(dataset_dir / "cohort.csv")
    for row in table:
        del row["label"]
    slip, empty = table[0]["patient_id"], table[3]["patient_id"]
    schema = (copied / "clinical.yaml").read_text()
    known = list(table[0])[2:]
    for row in table:
        if row["patient_id"] == slip:
            row["platelets"] = "899"  # inside the schema's plausible range, far outside the training's
        if row["patient_id"] == empty:
            row.update(dict.fromkeys(known, ""))
    assert "platelets" in schema
    write(copied / "cohort.csv", table)
    result = run_well(
        "inference", INFERENCE, dataset_dir=copied, model=trained / "models" / "model.pt", output_dir=tmp_path / "out"
    )
    patients = {row["patient"]: row for row in rows(tmp_path / "out" / "inference" / "patient_predictions.csv")}
    assert "platelets: 899 10^9/L is far outside the training range" in patients[slip]["warnings"]
    assert "is the unit right?" in patients[slip]["warnings"]
    assert "no clinical value is known" in patients[empty]["warnings"]
    probabilities = [float(patients[empty][name]) for name in ("DLBCL", "FL", "Reactive")]
    assert math.isclose(sum(probabilities), 1, abs_tol=1e-5)
    fold = {row["patient_id"]: int(row["fold"]) for row in rows(trained / "folds.csv")}
    untouched = [patients[name] for name in patients if name not in (slip, empty) and fold[name] not in (0, 1)]
    assert {row["warnings"] for row in untouched} == {""}  # who was trained on is not outside the training range
    slides = [row for row in rows(tmp_path / "out" / "inference" / "predictions.csv") if row["patient"] == slip]
    assert {row["warnings"] for row in slides} == {patients[slip]["warnings"]}
    assert "see the column warnings" in result.stdout.replace("\n", " ")
    assert "899" not in result.stdout + result.stderr


def test_a_training_does_not_go_on_when_a_clinical_value_of_a_training_patient_has_changed(
    trained: Path, copied: Path, tmp_path: Path
) -> None:
    fold = {row["patient_id"]: int(row["fold"]) for row in rows(trained / "folds.csv")}
    checkpoint = trained / "checkpoints" / "last.pt"
    settings = {"dataset_dir": copied, "max_epochs": 4, "resume": checkpoint}
    table = rows(copied / "cohort.csv")
    for training, name in ((False, "tested"), (True, "trained")):
        changed = next(row["patient_id"] for row in table if (fold[row["patient_id"]] > 1) == training)
        write(copied / "cohort.csv", [{**r, "age": "19"} if r["patient_id"] == changed else r for r in table])
        result = run_bundle("training", TRAINING, **settings, output_dir=tmp_path / name)
        assert result.returncode == int(training), result.stderr[-2000:]
    assert "clinical values of the training patients are not those" in result.stderr.splitlines()[-1]
    assert "start anew" in result.stderr.splitlines()[-1]


@pytest.mark.slow
def test_saved_folds_are_read_back(trained: Path, dataset_dir: Path, tmp_path: Path) -> None:
    settings = {"dataset_dir": dataset_dir, "output_dir": tmp_path / "out", "seed": 7}
    run_well("training", TRAINING, **settings, folds_file=trained / "folds.csv", max_epochs=1)
    assert (tmp_path / "out" / "folds.csv").read_bytes() == (trained / "folds.csv").read_bytes()
    run_well("evaluating", EVALUATING, dataset_dir=dataset_dir, output_dir=tmp_path / "out")
    tested = {row["patient"] for row in rows(tmp_path / "out" / "evaluation" / "patient_predictions.csv")}
    assert tested == {row["patient_id"] for row in rows(trained / "folds.csv") if row["fold"] == "0"}
    file = tmp_path / "out" / "folds.csv"
    table = rows(file)
    one, other = (next(row for row in table if row["fold"] == fold) for fold in "03")
    one["fold"], other["fold"] = other["fold"], one["fold"]
    write(file, table)
    result = run_bundle("evaluating", EVALUATING, dataset_dir=dataset_dir, output_dir=tmp_path / "out")
    assert result.returncode == 1
    assert "may hold patients it was trained on" in result.stderr.splitlines()[-1]


@pytest.mark.slow
def test_learned_missing_values_and_clinical_dropout_go_all_the_way(dataset_dir: Path, tmp_path: Path) -> None:
    settings = {"dataset_dir": dataset_dir, "output_dir": tmp_path}
    run_well("training", TRAINING, **settings, max_epochs=2, missing="learned", clinical_dropout=0.3)
    head = json.loads((tmp_path / "models" / "model.json").read_text())["head"]
    assert (head["missing"], head["clinical_dropout"]) == ("learned", 0.3)
    assert [sum(widths) for widths in head["clinical_variables"]] == head["clinical_groups"]
    run_well("evaluating", EVALUATING, **settings)
    run_well("inference", INFERENCE, **settings)
    inferred = {row["slide"]: row for row in rows(tmp_path / "inference" / "predictions.csv")}
    for row in rows(tmp_path / "evaluation" / "predictions.csv"):
        assert inferred[row["slide"]] == row


@pytest.mark.slow
def test_a_workbook_gives_the_model_that_its_text_gives(trained: Path, copied: Path, tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    table = rows(copied / "cohort.csv")
    book.active.append(list(table[0]))
    for row in table:
        book.active.append([_typed(cell) for cell in row.values()])
    book.save(copied / "cohort.xlsx")
    settings = {"dataset_dir": copied, "output_dir": tmp_path / "out", "max_epochs": 4}
    result = run_bundle("training", TRAINING, **settings)
    assert result.returncode == 1
    assert "cohort.csv" in result.stderr
    assert "--table" in result.stderr
    run_well("training", TRAINING, **settings, table="cohort.xlsx")
    ours, theirs = (torch.load(o / "models" / "model.pt", weights_only=True) for o in (tmp_path / "out", trained))
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


def _typed(cell: str) -> str | float | None:
    """A cell as Excel holds it when a person has typed it."""
    try:
        return float(cell) if cell else None
    except ValueError:
        return cell


def test_all_problems_of_a_table_are_in_a_file_without_the_cells(copied: Path, tmp_path: Path) -> None:
    table = rows(copied / "cohort.csv")
    good = [dict(row) for row in table]
    for row in table[::2]:
        row["ldh"] = "plenty"
    table[1]["sex"] = "woman"
    write(copied / "cohort.csv", table)
    output = tmp_path / "out"
    result = run_bundle("training", TRAINING, dataset_dir=copied, output_dir=output, max_epochs=1)
    assert result.returncode == 1
    assert 'column "ldh"' in result.stderr
    assert '"plenty" in row 2' in result.stderr
    assert 'row 3, column "sex": found "woman"' in result.stderr
    assert str(output / "problems.csv") in result.stderr
    problems = rows(output / "problems.csv")
    assert {int(row["row"]) for row in problems if row["column"] == "ldh"} == set(range(2, len(table) + 2, 2))
    assert "plenty" not in (output / "problems.csv").read_text()
    write(copied / "cohort.csv", good)
    run_well("training", TRAINING, dataset_dir=copied, output_dir=output, max_epochs=1)
    assert not (output / "problems.csv").exists()


def test_neither_classes_nor_groups_may_change_their_order_under_a_trained_model(
    trained: Path, copied: Path, tmp_path: Path
) -> None:
    schema = (copied / "clinical.yaml").read_text()
    (copied / "clinical.yaml").write_text(schema.replace("[DLBCL, FL, Reactive]", "[Reactive, FL, DLBCL]"))
    settings = {"dataset_dir": copied, "max_epochs": 5, "resume": trained / "checkpoints" / "last.pt"}
    result = run_bundle("training", TRAINING, **settings, output_dir=tmp_path / "out")
    assert result.returncode == 1
    assert "clinical.yaml was another" in result.stderr.splitlines()[-1]
    declared = yaml.safe_load(schema)
    declared["groups"] = dict(reversed(declared["groups"].items()))
    (copied / "clinical.yaml").write_text(yaml.safe_dump(declared, sort_keys=False))
    result = run_bundle("evaluating", EVALUATING, dataset_dir=copied, output_dir=trained)
    assert result.returncode == 1
    assert "The clinical schema in dataset_dir is not the one" in result.stderr.splitlines()[-1]


def test_a_file_of_folds_that_is_not_the_trainings_own_is_not_replaced(dataset_dir: Path, tmp_path: Path) -> None:
    table = {row["patient_id"]: row for row in rows(dataset_dir / "cohort.csv")}
    mine = [
        {"patient_id": patient, "label": row["label"], "fold": str(number % 3), "centre": "Kurume"}
        for number, (patient, row) in enumerate(table.items())
    ]
    write(tmp_path / "folds.csv", mine)
    before = (tmp_path / "folds.csv").read_bytes()
    settings = {"dataset_dir": dataset_dir, "output_dir": tmp_path, "max_epochs": 1}
    result = run_bundle("training", TRAINING, **settings)
    assert result.returncode == 1
    assert "--folds_file" in result.stderr.splitlines()[-1]
    assert (tmp_path / "folds.csv").read_bytes() == before
    run_well("training", TRAINING, **settings, folds_file=tmp_path / "folds.csv")
    assert (tmp_path / "folds.csv").read_bytes() == before


def test_no_record_is_written_to_a_tracker_or_a_config_by_an_inference(
    trained: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    slide = dataset_dir / rows(dataset_dir / "cohort.csv")[0]["slide"]
    settings = {"model": trained / "models" / "model.pt", "slide": slide, "output_dir": tmp_path / "out"}
    store = f"sqlite:///{tmp_path}/runs.db"
    record = "{haemoglobin: 13.77 , site: Neck}"
    run_well("inference", INFERENCE, **settings, record=record, tracking="mlflow", tracking_uri=store)
    found = [path for path in tmp_path.rglob("*") if path.is_file() and b"13.77" in path.read_bytes()]
    assert found == []
    (row,) = rows(tmp_path / "out" / "inference" / "predictions.csv")
    assert row["warnings"] == ""


def test_a_table_in_another_unit_is_refused_with_the_place_of_the_schema(
    trained: Path, copied: Path, tmp_path: Path
) -> None:
    table = rows(copied / "cohort.csv")
    write(copied / "cohort.csv", [{**row, "haemoglobin": "128"} for row in table])
    settings = {"dataset_dir": copied, "model": trained / "models" / "model.pt", "output_dir": tmp_path / "out"}
    result = run_bundle("inference", INFERENCE, **settings)
    assert result.returncode == 1
    assert "is the unit right?" in result.stderr
    assert f"model's own, in {trained / 'models' / 'model.json'}" in result.stderr
    assert {row["column"] for row in rows(tmp_path / "out" / "inference" / "problems.csv")} == {"haemoglobin"}
