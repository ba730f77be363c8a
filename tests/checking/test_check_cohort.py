# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from persam_monai.checking.records import describe_folds, describe_records, load_cohort

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import assign_folds
from persam_monai.errors import UserError

ROOT = Path(__file__).parents[2]
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

Run = Callable[..., "subprocess.CompletedProcess[str]"]


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
def run(tmp_path: Path) -> Run:
    """Runs the script in the test's folder."""

    def start(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "scripts/check_cohort.py"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=tmp_path)

    return start


def line(lines: Sequence[str], name: str) -> list[str]:
    """The cells of the first line of a table that begins with a name."""
    return next(words for words in map(str.split, lines) if words[:1] == [name])


def test_the_script_says_what_is_in_a_cohort(run: Run, tmp_path: Path) -> None:
    done = run(write(tmp_path / "data", many()))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith("cohort.csv: 44 slides of 40 patients (slides of a patient: 1 in 36, 2 in 4).")
    assert line(lines, "DLBCL") == ["DLBCL", "20", "24"]
    assert line(lines, "FL") == ["FL", "20", "20"]
    assert line(lines, "ldh") == ["ldh", "numeric", "U/L", "75.0", "%", "median", "118,", "100", "to", "136,", "log"]
    assert line(lines, "site") == ["site", "categorical", "0", "%", "neck:", "26,", "groin:", "14,", "axilla:", "0"]
    assert "  - site: nobody has axilla." in lines
    assert "  - grade: nobody has III." in lines
    assert "  - ldh: missing in 75.0 % of the patients." in lines
    assert not any("age:" in text for text in lines)
    assert not (tmp_path / "problems.csv").exists()


def test_medians_and_counts_are_those_of_patients_and_not_of_slides(tmp_path: Path) -> None:
    rows = many()
    lines = describe_records(load_cohort(write(tmp_path / "data", rows)))
    ages = {row[0]: int(row[3]) for row in rows}
    sexes = [row[4] for row in {row[0]: row for row in rows}.values()]
    known = f"median {np.median(list(ages.values())):g}, {min(ages.values())} to {max(ages.values())}"
    assert f"age numeric years 0 % {known}" in " ".join(" ".join(lines).split())
    assert line(lines, "sex")[-4:] == ["female:", f"{sexes.count('female')},", "male:", str(sexes.count("male"))]


def test_folds_are_those_of_a_training(run: Run, tmp_path: Path) -> None:
    folder = write(tmp_path / "data", many())
    shown = run(folder, "--folds", 4, "--seed", 3).stdout.splitlines()
    cohort = load_cohort(folder)
    fold_of = assign_folds(cohort, 4, 3)
    for label, name in enumerate(cohort.classes):
        counts = [sum(cohort.patient_labels[p] == label and f == fold for p, f in fold_of.items()) for fold in range(4)]
        assert line(shown[shown.index("") + 1 :][-2:], name)[1:] == list(map(str, counts))
    assert "Patients by fold, as a training with --folds 4 --seed 3 draws them:" in shown


def test_folds_of_the_table_are_shown(tmp_path: Path) -> None:
    rows = [[*row, str(int(row[0][1:]) % 3)] for row in many()]
    lines = describe_folds(load_cohort(write(tmp_path / "data", rows, [*HEADER, "fold"])))
    assert lines[0] == "Patients by fold, of the table:"
    assert lines[1].split() == ["class", "fold", "0", "fold", "1", "fold", "2"]


def test_all_problems_are_told_and_kept_without_the_cells(run: Run, tmp_path: Path) -> None:
    rows = many()
    rows[3][3], rows[5][4], rows[7][2] = "12 years", "fmale", "MCL"
    folder = write(tmp_path / "data", rows)
    done = run(folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr
    for cell in ('"12 years"', '"fmale"', '"MCL"'):
        assert cell in done.stderr
    kept = (tmp_path / "problems.csv").read_text(encoding="utf-8")
    assert [row["column"] for row in csv.DictReader(kept.splitlines())] == ["age", "label", "sex"]
    assert "fmale" not in kept
    for row, cells in zip((3, 5, 7), (("60", "male"), ("60", "male"), ("60", "male")), strict=True):
        rows[row][2:5] = ["FL", *cells]
    write(folder, rows)
    assert run(folder).returncode == 0
    assert not (tmp_path / "problems.csv").exists()  # the list of before, which is no longer true


def test_a_file_of_somebody_else_is_not_overwritten(run: Run, tmp_path: Path) -> None:
    rows = many()
    rows[0][3] = "old"
    (tmp_path / "mine.csv").write_text("my own notes\n")
    done = run(write(tmp_path / "data", rows), "--problems", "mine.csv")
    assert done.returncode == 1
    assert "mine.csv is something else" in done.stderr
    assert (tmp_path / "mine.csv").read_text() == "my own notes\n"


def test_slides_and_labels_may_be_absent_where_that_is_said(run: Run, tmp_path: Path) -> None:
    folder = write(tmp_path / "data", many())
    for slide in folder.glob("*.svs"):
        slide.unlink()
    assert run(folder).returncode == 1
    assert run(folder, "--without_slides").returncode == 0
    unlabelled = write(tmp_path / "new", [row[:2] + row[3:] for row in many()], HEADER[:2] + HEADER[3:])
    assert run(unlabelled).returncode == 1
    done = run(unlabelled, "--inference")
    assert done.returncode == 0, done.stderr
    assert line(done.stdout.splitlines(), "(no")[-2:] == ["40", "44"]
    assert "by fold" not in done.stdout


def test_another_schema_and_another_table_can_be_named(run: Run, tmp_path: Path) -> None:
    folder = write(tmp_path / "data", many())
    schema = tmp_path / "draft.yaml"
    (folder / "clinical.yaml").rename(schema)
    (folder / "cohort.csv").rename(folder / "second.csv")
    assert run(folder, "--table", "second.csv", "--schema", schema).returncode == 0
    done = run(folder, "--schema", schema)
    assert done.returncode == 1
    assert "found no cohort table" in done.stderr


def test_too_few_patients_for_the_folds_are_told_after_what_is_there(run: Run, tmp_path: Path) -> None:
    done = run(write(tmp_path / "data", many(3)))
    assert done.returncode == 1
    assert "4 slides of 3 patients" in done.stdout
    assert "Error: " in done.stderr
    assert "Too few labelled patients to tell leaks" in done.stdout


def test_what_is_odd_is_remarked_on(tmp_path: Path) -> None:
    rows = many()
    for row in rows:
        row[3] = "60"  # age
        row[5] = ""  # site
        row[6] = "300" if row[2] == "FL" else ""  # ldh
    for row in rows[:3]:
        row[3:] = [""] * 5
    remarks = describe_records(load_cohort(write(tmp_path / "data", rows)))
    text = "\n".join(remarks[remarks.index("Remarks:") :])
    assert "age: constant" in text
    assert "site: missing in every patient" in text
    assert "ldh: SUSPECTED LEAK: whether it is known alone tells the classes" in text
    assert "No clinical value is known of 2 patients (rows 2, 4)." in text
    assert "sex:" not in text


def test_levels_and_classes_that_look_unknown_are_remarked_on(tmp_path: Path) -> None:
    rows = many()
    for row in rows:
        row[2] = "'--" if row[0] in ("P3", "P7") else row[2]
        row[5] = "[Unknown]" if row[0] == "P5" else row[5]
    schema = SCHEMA.replace("axilla]", 'axilla, "[Unknown]"]').replace("FL]", 'FL, "\'--"]')
    cohort = load_cohort(write(tmp_path / "data", rows, schema=schema))
    remarks = [remark.removeprefix("  - ") for remark in describe_records(cohort)]
    assert [remark for remark in remarks if remark.startswith("site:") and '["[Unknown]"]' in remark]
    assert [remark for remark in remarks if remark.startswith("classes:") and "'--" in remark]
    assert not [remark for remark in describe_records(cohort, inference=True) if "not known" in remark]


def test_columns_that_the_schema_does_not_have_are_named(run: Run, tmp_path: Path) -> None:
    done = run(write(tmp_path / "data", [[*row, "x"] for row in many()], [*HEADER, "hobby"]))
    assert "hobby" in done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("schema", [None, "clinical.yaml"])
def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path, schema: str | None) -> None:
    with pytest.raises(UserError, match="nowhere"):
        load_cohort(tmp_path / "nowhere", schema=schema)


def test_the_schema_of_a_model_can_be_named(run: Run, tmp_path: Path) -> None:
    folder = write(tmp_path / "data", many())
    expected = run(folder).stdout
    model = tmp_path / "model.json"
    schema = ClinicalSchema.load(folder / "clinical.yaml").to_dict()
    (folder / "clinical.yaml").unlink()
    model.write_text(json.dumps({"format": 1, "schema": schema, "settings": {}}), encoding="utf-8")
    done = run(folder, "--schema", model)
    assert (done.returncode, done.stdout) == (0, expected)
    for content, told in (("{}", "found no schema in it; expected the model.json"), ("{", "not readable as JSON")):
        model.write_text(content)
        done = run(folder, "--schema", model)
        assert done.returncode == 1
        assert done.stderr.startswith(f"Error: {model}: {told}")


def test_what_only_a_training_minds_is_not_said_before_an_inference(run: Run, tmp_path: Path) -> None:
    rows = many()
    for row in rows:
        row[3], row[5], row[6] = "60", "", "300" if row[2] == "FL" else ""  # constant, never known, a leak
    folder = write(tmp_path / "data", rows)
    for words in ("constant", "LEAK", "nobody has III", "out of the schema"):
        assert words in run(folder).stdout
    said = run(folder, "--inference").stdout
    assert said[said.index("Remarks:") :].splitlines()[1:] == ["  - site: missing in every patient."]
    few = run(write(tmp_path / "few", many(2)), "--inference")
    assert few.returncode == 0
    assert "Too few" not in few.stdout + few.stderr


def test_missing_codes_that_were_found_are_counted(tmp_path: Path) -> None:
    rows = many()
    rows[0][3] = rows[1][3] = "-9"  # of one patient
    rows[5][4] = "n.d."
    schema = SCHEMA.replace("groups:", 'missing_codes: [-9, "n.d."]\ngroups:', 1)
    lines = describe_records(load_cohort(write(tmp_path / "data", rows, schema=schema)))
    assert "  - age: 2 cells hold a missing code and count as missing (missing_codes: -9, n.d.)." in lines
    assert "  - sex: 1 cell holds a missing code and counts as missing (missing_codes: -9, n.d.)." in lines
    assert "missing code" in "".join(lines)
    assert not any("ldh" in text and "missing code" in text for text in lines)


def test_one_patient_of_whom_nothing_is_known_is_one(tmp_path: Path) -> None:
    rows = many()
    rows[3][3:] = [""] * 5
    remarks = "\n".join(describe_records(load_cohort(write(tmp_path / "data", rows))))
    assert "No clinical value is known of 1 patient (row 5)." in remarks
