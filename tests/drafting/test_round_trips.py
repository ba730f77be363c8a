# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import datetime
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openpyxl
import pytest
import yaml
from sklearn.datasets import load_breast_cancer

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort
from persam_monai.synthetic import make_cohort
from persam_monai.synthetic.cohort import patient_id
from persam_monai.synthetic.plan import CLASS_NAMES
from persam_monai.synthetic.record import GROUPS, draw_record, schema_text
from tests.drafting.conftest import Drafted

ROOT = Path(__file__).parents[2]
Draft = Callable[..., Drafted]


def synthetic_columns(patients: int) -> dict[str, list[str]]:
    """The synthetic cohort's record, with labels that it says nothing about."""
    rng = np.random.default_rng(0)
    rows = [draw_record(rng, int(rng.choice([-1, 1])), None) for _ in range(patients)]
    labels = [list(CLASS_NAMES.values())[i % 3] for i in range(patients)]
    names = [patient_id(i) for i in range(patients)]
    return {"patient_id": names, "label": labels, **{name: [row[name] for row in rows] for name in rows[0]}}


def test_the_synthetic_cohort_gets_the_schema_that_it_was_made_from(drafted: Draft) -> None:
    draft = drafted(synthetic_columns(120))
    cohort = draft.cohort()
    assert set(cohort.classes) == set(CLASS_NAMES.values())
    assert set(cohort.schema.variable_names) == {name for variables in GROUPS.values() for name in variables}
    made = ClinicalSchema.from_dict(yaml.safe_load(schema_text()))
    same = {"categorical": {"categorical", "binary"}}  # of two levels one number is enough
    for variable in made.variables:
        assert draft.variables[variable.name]["kind"] in same.get(variable.kind, {variable.kind}), variable.name
    for name in ("crp", "sil2r", "symptom_weeks"):  # log-normal by construction
        assert draft.variables[name]["transform"] == "log"
    for name in ("age", "haemoglobin", "platelets"):  # normal
        assert "transform" not in draft.variables[name]


def test_a_synthetic_dataset_can_be_trained_on_with_its_draft(tmp_path: Path) -> None:
    folder = make_cohort(tmp_path / "data", patients=6, size=512, workers=1)
    draft = Drafted(folder / "cohort.csv")
    cohort = Cohort.load(draft.table, ClinicalSchema.load(draft.file))  # the slides are there
    assert len(cohort.patients) == 6
    assert set(cohort.classes) == set(CLASS_NAMES.values())


def test_real_measurements_are_drafted_and_read(drafted: Draft) -> None:
    found = load_breast_cancer(as_frame=True)  # 569 patients of the University of Wisconsin, 30 measurements of nuclei
    columns = {name.replace(" ", "_"): [repr(float(value)) for value in found.data[name]] for name in found.data}
    labels = [str(found.target_names[index]) for index in found.target]
    draft = drafted({"patient_id": [f"W{i}" for i in range(len(labels))], "label": labels, **columns})
    cohort = draft.cohort()
    assert {name: declared["kind"] for name, declared in draft.variables.items()} == dict.fromkeys(columns, "numeric")
    assert draft.variables["mean_area"]["transform"] == "log"
    values = cohort.clinical_matrix()[:, cohort.schema.variable_names.index("mean_texture")]
    np.testing.assert_allclose(values, found.data["mean texture"], rtol=1e-6)
    assert cohort.class_counts() == [labels.count(name) for name in cohort.classes]


def test_a_german_table_is_read_with_its_decimal_comma(drafted: Draft) -> None:
    draft = drafted(
        {
            "alter": ["63", "58", "71", "", "49", "66"],
            "hämoglobin": ["12,5", "9,8", "14,1", "13,0", "", "11,25"],
            "thrombozyten": ["1.250", "987", "1.100", "1.405", "880", "1.010"],
            "geschlecht": ["männlich", "weiblich", "weiblich", "männlich", "weiblich", "weiblich"],
            "stadium": ["I", "II", "IV", "I", "II", "II"],
            "raucher": ["ja", "nein", "nein", "nein", "ja", "nein"],
        },
        separator=";",
    )
    cohort = draft.cohort()
    assert cohort.schema.decimal == ","
    assert draft.variables["stadium"] == {"kind": "ordinal", "levels": ["I", "II", "III", "IV"]}
    assert draft.variables["raucher"] == {"kind": "binary", "levels": ["nein", "ja"]}
    assert draft.variables["thrombozyten"]["thousands"] == "."
    records = dict(zip(cohort.schema.variable_names, cohort.clinical_matrix().T, strict=True))
    np.testing.assert_allclose(records["hämoglobin"], [12.5, 9.8, 14.1, 13.0, np.nan, 11.25], rtol=1e-6)
    np.testing.assert_allclose(records["thrombozyten"], [1250, 987, 1100, 1405, 880, 1010])
    np.testing.assert_allclose(records["stadium"], [0, 1, 3, 0, 1, 1])


def test_units_and_limits_of_detection_are_declared(drafted: Draft) -> None:
    draft = drafted(
        {
            "crp": ["<5", "12 mg/L", "7", "0.9 mg/dL", "101 mg/L", "<5 mg/L"],
            "share": ["10 %", "20%", "30 %", "55 %", "", "1 %"],
        }
    )
    assert draft.variables["crp"] == {
        "kind": "numeric",
        "unit": "mg/L",
        "range": [0, 150],
        "units": {"mg/L": 1, "mg/dL": 10},
        "comparisons": "limit",
    }
    assert "half" in draft.comment_on("crp")
    assert draft.variables["share"] == {"kind": "numeric", "unit": "%", "range": [0, 100], "units": {"%": 1}}
    crp, share = draft.cohort().clinical_matrix().T
    np.testing.assert_allclose(crp, [5, 12, 7, 9, 101, 5])
    np.testing.assert_allclose(share, [10, 20, 30, 55, np.nan, 1])


def test_a_workbook_is_read_with_its_own_numbers_dates_and_truth_values(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["patient_id", "slide", "label", "age", "grade", "fever", "seen"])
    for i in range(8):
        day = datetime.datetime(2020, 1, 1 + i)
        sheet.append([i, f"{i}.svs", "AB"[i % 2], 40.5 + i, 1 + i % 3, bool(i % 2 or i > 5), day])
    book.save(tmp_path / "cohort.xlsx")
    draft = Drafted(tmp_path / "cohort.xlsx")
    assert draft.variables["age"] == {"kind": "numeric", "range": [0, 60]}
    assert draft.variables["grade"] == {"kind": "ordinal", "levels": ["1", "2", "3"]}
    assert draft.variables["fever"] == {"kind": "binary"}
    assert "seen" not in draft.variables
    age, grade, fever = draft.cohort().clinical_matrix().T
    np.testing.assert_allclose(age, 40.5 + np.arange(8))
    np.testing.assert_allclose(grade, np.arange(8) % 3)
    np.testing.assert_allclose(fever, [0, 1, 0, 1, 0, 1, 1, 1])


@pytest.mark.parametrize(
    "levels",
    [
        ["yes", "no", "unclear"],
        ["on", "off", "true"],
        ["y", "n", "m"],
        ["1", "2", "mixed"],
        ["2020-01", "1:30", "0x1f"],
        ["=a", "&b", "*c"],
        ["a, b", "[c]", "{d: e}"],
        ['say "x"', "it's", "back\\slash"],
        ["# none", "a # b", "a: b"],
        ["1e5x", ".5x", "~"],
        ["größer", "μ", "日本"],
        ["none", "other", "null value"],
        ["T1a", "T1b", "T2"],
        ["0", "I", "II"],
        ["+", "++", "-"],
        ["never", "often", "always"],
    ],
)
def test_levels_of_any_spelling_come_back(drafted: Draft, levels: list[str]) -> None:
    cells = [levels[i % 3] for i in range(30)] + [levels[0], ""]
    draft = drafted({"finding": cells})
    assert sorted(draft.variables["finding"]["levels"]) == sorted(levels)
    known = draft.cohort().clinical_matrix()
    assert np.isnan(known[-1]).all()
    assert not np.isnan(known[:-1]).any()


@pytest.mark.parametrize("name", ["yes", "1", "a: b", "# c", "größe", "no", "x y", '"q"', "null-ish"])
def test_names_of_columns_come_back(drafted: Draft, name: str) -> None:
    draft = drafted({name: ["1.5", "2.5", "3.5", "9.75"]})
    assert draft.cohort().schema.variable_names == [name]


def test_the_script_prints_or_writes_and_never_overwrites(drafted: Draft, tmp_path: Path) -> None:
    draft, output = drafted({"age": ["60", "70", "80"]}), tmp_path / "clinical.yaml"
    script = [sys.executable, str(ROOT / "scripts/draft_schema.py"), str(draft.table)]
    printed = subprocess.run(script, capture_output=True, text=True, encoding="utf-8", check=True)
    assert printed.stdout == draft.text
    for expected in (0, 1):
        done = subprocess.run([*script, "--output", str(output)], capture_output=True, text=True, encoding="utf-8")
        assert done.returncode == expected, done.stderr
        assert output.read_text(encoding="utf-8") == draft.text
        if not expected:
            assert done.stdout == (
                f"Wrote {output}: correct it, save it as clinical.yaml beside the table, then run "
                f"scripts/check_cohort.py (or check it as it is with --schema {output}).\n"
            )
    assert done.stderr.startswith(f"Error: {output} is there already")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("Patient_ID,slide,label", "a,b,c", 'column "patient_id": is missing'),
        ("patient_id,slide,Label", "a,b,c", 'Did you mean "Label"?'),
        ("patient_id,slide,label", "a,b,c", "found 1 different labels; expected at least 2"),
        ("patient_id,slide,label,x,x", "a,b,c,1,2", 'column "x": stands 2 times'),
    ],
)
def test_a_table_that_cannot_be_drafted_from_is_refused(tmp_path: Path, header: str, row: str, message: str) -> None:
    table = tmp_path / "cohort.csv"
    table.write_text(f"{header}\n{row}\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/draft_schema.py"), str(table)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_table_without_any_variable_says_why(drafted: Draft) -> None:
    with pytest.raises(Exception, match=r"(?s)no column that may be a clinical variable.*const: constant.*gap: empty"):
        drafted({"const": ["1", "1"], "gap": ["", "NA"]})


def test_nothing_of_the_draft_is_wider_than_a_terminal(drafted: Draft) -> None:
    text = drafted({"x" * 30: ["low", "high", "medium"] * 10, "remark": [f"see letter {i}" for i in range(30)]}).text
    assert all(len(line) <= 120 for line in text.splitlines())
