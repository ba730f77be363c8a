# SPDX-License-Identifier: Apache-2.0
"""The look at a clinical table before a training."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

import check_cohort
from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort, assign_folds

SCHEMA = """
classes: [DLBCL, FL]
groups:
  interview:
    age: {kind: numeric, unit: years, range: [0, 120]}
    sex: {kind: binary, levels: [female, male]}
    site: {kind: categorical, levels: [neck, groin, axilla]}
  blood:
    ldh: {kind: numeric, unit: U/L, transform: log}
    grade: {kind: ordinal, levels: [I, II, III]}
"""
HEADER = ["patient_id", "slide", "label", "age", "sex", "site", "ldh", "grade"]

Run = Callable[..., tuple[int, str, str]]


def write(folder: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = HEADER, schema: str = SCHEMA) -> Path:
    """A dataset folder with slide files that are there, and empty."""
    folder.mkdir(exist_ok=True)
    (folder / "clinical.yaml").write_text(schema, encoding="utf-8")
    with (folder / "cohort.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    for row in rows:
        (folder / row[1]).touch()
    return folder


def many(patients: int = 40) -> list[list[str]]:
    """Patients of two classes in turn, every tenth with two slides; a variable of each kind, and gaps."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(patients):
        ldh = "" if i % 4 else str(100 + i)
        cells = [str(rng.integers(40, 80)), "female" if rng.uniform() < 0.5 else "male", "neck" if i % 3 else "groin"]
        record = [("DLBCL", "FL")[i % 2], *cells, ldh, ("I", "II")[int(rng.integers(2))]]
        rows += [[f"P{i}", f"{i}_{copy}.svs", *record] for copy in range(2 if i % 10 == 0 else 1)]
    return rows


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the script in the test's folder: exit status, standard output, and error."""

    def start(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["check_cohort.py", *map(str, arguments)])
        status, message = 0, ""
        try:
            check_cohort.main()
        except SystemExit as end:
            status, message = 1, str(end.code)
        captured = capsys.readouterr()
        return status, captured.out, captured.err + message

    return start


def line(lines: Sequence[str], name: str) -> list[str]:
    """The cells of the first line of a table that begins with a name."""
    return next(words for words in map(str.split, lines) if words[:1] == [name])


def test_what_is_in_a_cohort(run: Run, tmp_path: Path) -> None:
    rows = many()
    status, out, err = run(write(tmp_path / "data", [[*row, "x"] for row in rows], [*HEADER, "hobby"]))
    assert status == 0, err
    lines = out.splitlines()
    assert lines[0].endswith("cohort.csv: 44 slides of 40 patients (slides of a patient: 1 in 36, 2 in 4).")
    assert line(lines, "DLBCL") == ["DLBCL", "20", "24"]
    assert line(lines, "FL") == ["FL", "20", "20"]
    assert line(lines, "ldh") == ["ldh", "numeric", "U/L", "75.0", "%", "median", "118,", "100", "to", "136,", "log"]
    assert line(lines, "site") == ["site", "categorical", "0", "%", "neck:", "26,", "groin:", "14,", "axilla:", "0"]
    ages = list({row[0]: int(row[3]) for row in rows}.values())
    assert f"age numeric years 0 % median {np.median(ages):g}, {min(ages)} to {max(ages)}" in " ".join(out.split())
    for remark in ("site: nobody has axilla.", "grade: nobody has III.", "ldh: missing in 75.0 % of the patients."):
        assert f"  - {remark}" in lines
    assert not any("age:" in text for text in lines)
    assert not (tmp_path / "problems.csv").exists()


def test_folds_are_those_of_a_training(run: Run, tmp_path: Path) -> None:
    folder = write(tmp_path / "data", many())
    shown = run(folder, "--folds", 4, "--seed", 3)[1].splitlines()
    cohort = Cohort.load_dir(folder)
    fold_of = assign_folds(cohort, 4, 3)
    for label, name in enumerate(cohort.classes):
        counts = [sum(cohort.patient_labels[p] == label and f == fold for p, f in fold_of.items()) for fold in range(4)]
        assert line(shown[-2:], name)[1:] == list(map(str, counts))
    given = [[*row, str(int(row[0][1:]) % 3)] for row in many()]
    assert "Patients by fold, of the table:" in run(write(tmp_path / "data", given, [*HEADER, "fold"]))[1]


def test_all_problems_are_shown_and_kept_without_the_cells(run: Run, tmp_path: Path) -> None:
    rows = many()
    rows[3][3], rows[5][4], rows[7][2] = "12 years", "fmale", "MCL"
    status, out, err = run(write(tmp_path / "data", rows))
    assert (status, out) == (1, "")
    for cell in ('"12 years"', '"fmale"', '"MCL"'):
        assert cell in err
    kept = (tmp_path / "problems.csv").read_text(encoding="utf-8")
    assert {row["column"] for row in csv.DictReader(kept.splitlines())} == {"age", "label", "sex"}
    assert "fmale" not in kept
    assert run(write(tmp_path / "data", many()))[0] == 0
    assert not (tmp_path / "problems.csv").exists()  # the list of before, which is no longer true


def test_slides_and_labels_may_be_absent_where_that_is_said(run: Run, tmp_path: Path) -> None:
    folder = write(tmp_path / "data", many())
    for slide in folder.glob("*.svs"):
        slide.unlink()
    assert run(folder)[0] == 1
    assert run(folder, "--without_slides")[0] == 0
    unlabelled = write(tmp_path / "new", [row[:2] + row[3:] for row in many()], HEADER[:2] + HEADER[3:])
    assert run(unlabelled)[0] == 1
    status, out, _ = run(unlabelled, "--inference")
    assert status == 0
    assert line(out.splitlines(), "(no")[-2:] == ["40", "44"]
    assert "by fold" not in out


def test_a_cohort_of_features_has_no_slides(run: Run, tmp_path: Path) -> None:
    rows = many()
    folder = write(tmp_path / "data", rows)
    (tmp_path / "features").mkdir()
    for row in rows:
        (folder / row[1]).unlink()
        with h5py.File(tmp_path / "features" / row[1].replace(".svs", ".h5"), "w") as file:
            file["features"], file["coords"] = np.ones((5, 8), np.float32), np.zeros((5, 2), np.int64)
    status, out, err = run(folder, "--features_dir", tmp_path / "features")
    assert status == 0, err
    assert "Features of 44 slides" in out
    (tmp_path / "features" / "7_0.h5").unlink()
    status, _, err = run(folder, "--features_dir", tmp_path / "features")
    assert status == 1
    assert "7_0" in err


def test_another_table_schema_and_decimal_sign_can_be_named(run: Run, tmp_path: Path) -> None:
    rows = many()
    folder = write(tmp_path / "data", [[*row[:3], f"{row[3]},5", *row[4:]] for row in rows])
    (folder / "cohort.csv").rename(folder / "second.csv")
    assert run(folder, "--table", "second.csv")[0] == 1
    status, expected, err = run(folder, "--table", "second.csv", "--decimal", ",")
    assert status == 0, err
    schema = ClinicalSchema.load(folder / "clinical.yaml").to_dict()
    (folder / "clinical.yaml").unlink()
    (tmp_path / "model.json").write_text(json.dumps({"format": 1, "schema": schema}), encoding="utf-8")
    named = ("--table", "second.csv", "--decimal", ",", "--schema", tmp_path / "model.json")
    assert run(folder, *named)[:2] == (0, expected)


def test_what_is_odd_is_remarked_on_where_it_matters(run: Run, tmp_path: Path) -> None:
    rows = many()
    for row in rows:
        row[2] = "'--" if row[0] in ("P4", "P8") else row[2]
        row[3], row[5], row[6] = "60", "", "300" if row[2] == "FL" else ""  # constant, never known, a leak
    rows[3][3:] = [""] * 5
    folder = write(tmp_path / "data", rows, schema=SCHEMA.replace("FL]", 'FL, "\'--"]'))
    out = run(folder)[1]
    for remark in (
        "age: constant",
        "site: missing in every patient",
        "ldh: SUSPECTED LEAK: whether it is known alone tells",
        "No clinical value is known of 1 patient (row 5).",
        '\'-- looks like "not known"',
    ):
        assert remark in out
    assert "sex:" not in out[out.index("Remarks:") :]
    out = run(folder, "--inference")[1]
    assert not any(word in out for word in ("constant", "LEAK", "not known", "nobody has III"))


def test_too_few_patients_for_the_folds_are_an_error_after_what_is_there(run: Run, tmp_path: Path) -> None:
    status, out, err = run(write(tmp_path / "data", many(3)))
    assert status == 1
    assert "4 slides of 3 patients" in out
    assert "Too few labelled patients to tell leaks" in out
    assert err.startswith("Error: ")
