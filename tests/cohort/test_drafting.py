# SPDX-License-Identifier: Apache-2.0
"""The first schema from a table: what a person would say of a column, and what stays out."""

from __future__ import annotations

import datetime
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort.drafting import plausible_range
from persam_monai.errors import UserError
from tests.cohort.conftest import Drafted, write_rows

ROOT = Path(__file__).parents[2]
Draft = Callable[..., Drafted]
AGES = [str(age) for age in (34, 45, 56, 61, 62, 63, 64, 65, 71, 82)]
ROWS = 24
AGE = {"age": [str(40 + i % 9) for i in range(ROWS)]}


def repeated(*cells: str) -> list[str]:
    return [cells[i % len(cells)] for i in range(6 * len(cells))]


@pytest.mark.parametrize(
    ("cells", "declaration"),
    [
        (repeated("yes", "no", "Yes"), {"kind": "binary"}),
        (repeated("1.0", "0.0", ""), {"kind": "binary"}),
        (repeated("1", "2", "2"), {"kind": "binary", "levels": ["1", "2"]}),
        (repeated("positive", "positive", "negative"), {"kind": "binary", "levels": ["negative", "positive"]}),
        (repeated("+", "-", "+"), {"kind": "binary", "levels": ["-", "+"]}),
        (repeated("1", "2", "4"), {"kind": "ordinal", "levels": ["1", "2", "3", "4"]}),
        (repeated("1.0", "2.0", "3.0", ""), {"kind": "ordinal", "levels": ["1", "2", "3"]}),
        (repeated("I", "III", "IV"), {"kind": "ordinal", "levels": ["I", "II", "III", "IV"]}),
        (repeated("stage 2", "stage 1", "stage 3"), {"kind": "ordinal", "levels": ["stage 1", "stage 2", "stage 3"]}),
        (repeated("3b", "1", "3a", "2"), {"kind": "ordinal", "levels": ["1", "2", "3a", "3b"]}),
        (repeated("high", "Low", "medium"), {"kind": "ordinal", "levels": ["Low", "medium", "high"]}),
        (repeated("+++", "+", "++", "-"), {"kind": "ordinal", "levels": ["-", "+", "++", "+++"]}),
        (repeated("neck", "groin", "neck", "axilla"), {"kind": "categorical", "levels": ["neck", "groin", "axilla"]}),
        (repeated("1", "2", "mixed", "mixed"), {"kind": "categorical", "levels": ["mixed", "1", "2"]}),
        (repeated("I", "2", "III"), {"kind": "categorical", "levels": ["I", "2", "III"]}),
        (repeated("3/a", "3/b", "3/c"), {"kind": "categorical", "levels": ["3/a", "3/b", "3/c"]}),
        (AGES, {"kind": "numeric", "range": [0, 120]}),
        (["-3.5", "2", "1", "0.5", "1.5"], {"kind": "numeric", "range": [-5, 2.5]}),
        (["0.0011", "0.0023", "0.0049", "0.005"], {"kind": "numeric", "range": [0, 0.008]}),
        (["<5", "7", "12.5", "3"], {"kind": "numeric", "range": [0, 20], "comparisons": "limit"}),
    ],
)
def test_the_kind_is_what_a_person_would_say(drafted: Draft, cells: list[str], declaration: dict[str, Any]) -> None:
    draft = drafted({"x": cells})
    assert draft.variables["x"] == declaration
    draft.cohort()


# Names, and cells that are shown nowhere.
IDENTIFIERS = [
    *("Vorname", "patient_name", "tumor_name", "Überweisender Arzt", "treatingPhysician", "PLZ", "phone_home", "city"),
    *("Straße", "Aufnahmenummer", "case_number", "MRN", "pat_id", "NHS no", "birth_year", "DOB", "remarks", "Freitext"),
]
OUTCOMES = ["os_months", "PFS", "Vitalstatus", "death", "follow_up_months", "Rezidiv", "therapy", "days_to_death"]
BOOKKEEPING = ["train", "isTrain", "split", "cv_fold", "batch", "cohort"]
CLINICAL = [
    *("toxicity", "ethnicity", "tumor_marker", "thyroid", "number_of_nodes", "bmi", "pathological_t", "zipper"),
    *("cardiac_event_history", "skin_fold_mm", "stress_test", "hiv_test", "HLA-DR", "drug"),
]


@pytest.mark.parametrize("name", IDENTIFIERS)
def test_a_column_called_like_a_person_is_set_aside_and_shown_nowhere(drafted: Draft, name: str) -> None:
    draft = drafted({name: ["Koch, Ida", "Zabel, Uwe"] * (ROWS // 2), **AGE})
    assert list(draft.variables) == ["age"]
    assert not any(word in draft.text for word in ("Koch", "Ida", "Zabel", "Uwe"))
    assert "by its name" in draft.comment_on(name)


@pytest.mark.parametrize(("name", "reason"), [(name, "SUSPECTED LEAK") for name in OUTCOMES])
@pytest.mark.parametrize("taken", [False, True])
def test_outcomes_are_set_aside_and_can_be_taken_in(drafted: Draft, name: str, reason: str, taken: bool) -> None:
    draft = drafted({name: ["A", "B", "C"] * (ROWS // 3), **AGE})
    assert list(draft.variables) == ["age"]
    assert reason in draft.comment_on(name)
    if taken:
        draft.file.write_text(draft.text.replace(f"    # {name}: {{", f"    {name}: {{"), encoding="utf-8")
        assert draft.cohort().schema.variable_names == ["age", name]


def test_bookkeeping_is_set_aside_and_clinical_names_are_not(drafted: Draft) -> None:
    for name in BOOKKEEPING:
        draft = drafted({name: ["A", "B", "C"] * (ROWS // 3), **AGE})
        assert "bookkeeping" in draft.comment_on(name), name
    rows = ["A", "B", "C"] * (ROWS // 3)
    assert set(drafted(dict.fromkeys(CLINICAL, rows)).variables) == set(CLINICAL)


@pytest.mark.parametrize(
    ("name", "cells", "reason"),
    [
        ("case_id", [f"H20-{i}" for i in range(12)], "an identifier by its name"),
        ("reviewer", [f"Dr. Nobody {i % 3}" for i in range(12)], "an identifier or free text"),
        ("row", [str(i) for i in range(1, 31)], "a running number"),
        ("x", [str(481_516 + 9_973 * i) for i in range(12)], "an identifier"),
        ("dateOfBiopsy", ["2020-01-01", "2021-05-05", "2020-01-01"], "dates"),
        ("visit", ["1.2.2020", "2.2.2020", "1.2.2020", "x"], "dates"),
        ("story", ["the patient came with a swelling of the neck", "no swelling was seen by the patient"] * 9, "free"),
        ("Fold", ["0", "1", "2"], "too near to fold"),
        ("const", ["a", "A", ""], "constant"),
        ("gap", ["", "NA", "", "null"], "empty in every row"),
        ("lone", repeated("positive", "k.A."), "at most one value"),
    ],
)
def test_what_is_no_variable_is_left_out_with_a_reason(
    drafted: Draft, name: str, cells: list[str], reason: str
) -> None:
    draft = drafted({name: cells, "age": [str(50 + 2 * (i // 2)) for i in range(len(cells))]})
    assert name not in draft.variables
    assert reason in draft.comment_on(name)
    assert not any(cell in draft.text for cell in ("H20-", "Nobody", "481516", "swelling"))


@pytest.mark.parametrize(
    ("cells", "kind", "levels", "codes"),
    [
        (("1", "2", "3", "k.A."), "ordinal", ["1", "2", "3"], ["k.A."]),
        (("T1", "T2", "T3", "TX"), "ordinal", ["T1", "T2", "T3"], ["TX"]),
        (("low", "medium", "high", "not done"), "ordinal", ["low", "medium", "high"], ["not done"]),
        (("yes", "no", "no", "unbekannt"), "binary", None, ["unbekannt"]),
        (("G1", "G1", "G2", "[Not Available]"), "binary", ["G1", "G2"], ["[Not Available]"]),
        (("a", "a", "b", "'--", "--"), "binary", ["a", "b"], ["'--", "--"]),
    ],
)
def test_what_looks_unknown_is_a_missing_code(
    drafted: Draft, cells: tuple[str, ...], kind: str, levels: list[str] | None, codes: list[str]
) -> None:
    draft = drafted({"x": repeated(*cells)})
    declared = {"kind": kind, **({"levels": levels} if levels else {})}
    assert draft.variables["x"] == {**declared, "missing_codes": codes}
    unknown = 6 * sum(cell in codes for cell in cells)
    assert np.isnan(draft.cohort().clinical_matrix()).any(axis=1).sum() == unknown


@pytest.mark.parametrize(
    "cells",
    [
        *(("A", "B", "AB", "0"), ("clear", "unclear", "mixed"), ("-3.5", "-1", "-9.5", "2"), ("R0", "MX2", "C3")),
        *(("--", "+", "++"), ("-/-", "+/-", "+/+"), ("<", ">", "=")),
    ],
)
def test_values_are_not_taken_for_unknown(drafted: Draft, cells: tuple[str, ...]) -> None:
    draft = drafted({"x": repeated(*cells)})
    assert "not known" not in draft.text
    assert not np.isnan(draft.cohort().clinical_matrix()).any()


def test_codes_among_numbers_are_suggested_and_refused_until_a_person_decides(drafted: Draft) -> None:
    draft = drafted({"age": [*AGES, "-9"], "ecog": [*(str(i % 3) for i in range(10)), "9"]})
    assert draft.variables["age"] == {"kind": "numeric", "range": [0, 120]}
    assert draft.variables["ecog"] == {"kind": "ordinal", "levels": ["0", "1", "2"]}
    assert "missing_codes: [-9]" in draft.comment_on("age")
    with pytest.raises(UserError, match="2 problems"):
        draft.cohort()
    text = draft.text.replace("[0, 120]}", "[0, 120], missing_codes: [-9]}").replace(
        "'2']}", "'2'], missing_codes: [9]}"
    )
    draft.file.write_text(text, encoding="utf-8")
    assert np.isnan(draft.cohort().clinical_matrix()).sum() == 2


def test_missing_values_and_disagreeing_rows_are_counted_by_patient(drafted: Draft) -> None:
    patients, labels = [f"P{i // 2}" for i in range(100)], ["AB"[i // 2 % 2] for i in range(100)]
    age = ["" if i // 2 in (3, 4) else str(40 + i // 2) for i in range(100)]
    size, stain = [str(30 + 3 * (i // 2) % 50) for i in range(100)], [("H&E", "PAS", "IHC")[i % 3] for i in range(100)]
    size[0] = "77.5"
    draft = drafted({"patient_id": patients, "label": labels, "age": age, "size": size, "stain": stain})
    assert list(draft.variables) == ["age", "size"]
    assert "Missing: 2 of 50 patients, 4 %; different values: 48" in draft.comment_on("age")
    assert "The rows of one patient disagree (patients: 1)" in draft.comment_on("size")
    assert "differs between the rows of a patient" in draft.comment_on("stain")


def test_classes_are_those_of_the_patients_and_unknown_is_none(drafted: Draft) -> None:
    draft = drafted({"label": repeated("FL", "fl", "DLBCL", "[Unknown]"), **AGE})
    assert yaml.safe_load(draft.text)["classes"] == ["DLBCL", "FL"]
    text = " ".join(draft.text.replace("\n# ", " ").split())
    assert "fl and FL differ in case or spaces alone" in text
    assert "[Unknown]. Leave these rows out" in text


def test_a_german_table_is_drafted_with_its_signs(drafted: Draft) -> None:
    draft = drafted(
        {
            "hämoglobin": ["12,5", "9,8", "14,1", "13,0", "", "11,25"],
            "thrombozyten": ["1.250", "987", "1.100", "1.405", "880", "1.010"],
            "stadium": ["I", "II", "IV", "I", "II", "II"],
            "raucher": ["ja", "nein", "nein", "nein", "ja", "nein"],
        },
        separator=";",
    )
    cohort = draft.cohort()
    assert (cohort.schema.decimal, cohort.schema.thousands) == (",", ".")
    records = dict(zip(cohort.schema.variable_names, cohort.clinical_matrix().T, strict=True))
    np.testing.assert_allclose(records["hämoglobin"], [12.5, 9.8, 14.1, 13.0, np.nan, 11.25], rtol=1e-6)
    np.testing.assert_allclose(records["thrombozyten"], [1250, 987, 1100, 1405, 880, 1010])
    assert draft.variables["raucher"] == {"kind": "binary", "levels": ["nein", "ja"]}


def test_signs_that_may_mean_two_things_are_left_to_a_person(drafted: Draft) -> None:
    draft = drafted({"x": ["1.250", "2.100", "3.405", "1.010"], "y": ["1", "7", "12", "30"]}, separator=";")
    assert '# decimal: "."' in draft.text
    with pytest.raises(UserError, match="decimal"):
        draft.cohort()
    draft.file.write_text(draft.text.replace('# decimal: "."', 'decimal: "."'), encoding="utf-8")
    assert draft.cohort().clinical_matrix()[0, 0] == np.float32(1.25)


def test_real_measurements_are_drafted_and_read(drafted: Draft) -> None:
    found = load_breast_cancer(as_frame=True)  # 569 patients of the University of Wisconsin, 30 measurements of nuclei
    columns = {name: [repr(float(value)) for value in found.data[name]] for name in found.data}
    labels = [str(found.target_names[index]) for index in found.target]
    draft = drafted({"patient_id": [f"W{i}" for i in range(len(labels))], "label": labels, **columns})
    cohort = draft.cohort()
    assert {name: declared["kind"] for name, declared in draft.variables.items()} == dict.fromkeys(columns, "numeric")
    assert draft.variables["mean area"]["transform"] == "log"
    values = cohort.clinical_matrix()[:, cohort.schema.variable_names.index("mean texture")]
    np.testing.assert_allclose(values, found.data["mean texture"], rtol=1e-6)


def test_a_table_of_a_hospital_is_drafted_and_read(drafted: Draft) -> None:
    """760 patients with names of LOINC, integer grades, codes, limits of detection, and what must stay out."""
    rng, n = np.random.default_rng(1), 760
    labels = rng.choice(["DLBCL", "FL", "MCL"], n)
    draft = drafted(
        {
            "patient_id": [f"{i:05d}" for i in rng.permutation(10 * n)[:n]],
            "label": labels.tolist(),
            "Leukocytes [#/volume] in Blood": [f"{x:.2f}" for x in rng.lognormal(1.9, 0.5, n)],
            "Hemoglobin [Mass/volume] in Blood": [
                f"{x:.1f}" if rng.random() > 0.1 else "" for x in rng.normal(13, 2, n)
            ],
            "C reactive protein [Mass/volume] in Serum": [
                "<5" if x < 5 else f"{x:.1f}" for x in rng.lognormal(2, 1.2, n)
            ],
            "Histologic grade": rng.choice(["1", "2", "3", ""], n).tolist(),
            "ECOG performance status": rng.integers(0, 5, n).astype(str).tolist(),
            "pT": rng.choice(["T1", "T2", "T3", "TX"], n).tolist(),
            "Age at diagnosis": rng.integers(18, 95, n).astype(str).tolist(),
            "Sex": rng.choice(["f", "m"], n).tolist(),
            "CD20 clone": ["L26" if label == "DLBCL" else "other" for label in labels],
            "Date of biopsy": [f"2019-{1 + i % 12:02d}-{1 + i % 28:02d}" for i in range(n)],
            "MRN": rng.integers(10**6, 10**7, n).astype(str).tolist(),
        }
    )
    kinds = {name: declared["kind"] for name, declared in draft.variables.items()}
    assert kinds == {
        "Leukocytes [#/volume] in Blood": "numeric",
        "Hemoglobin [Mass/volume] in Blood": "numeric",
        "C reactive protein [Mass/volume] in Serum": "numeric",
        "Histologic grade": "ordinal",
        "ECOG performance status": "ordinal",
        "pT": "ordinal",
        "Age at diagnosis": "numeric",
        "Sex": "binary",
    }
    assert draft.variables["Leukocytes [#/volume] in Blood"]["transform"] == "log"
    assert draft.variables["pT"]["missing_codes"] == ["TX"]
    assert "SUSPECTED LEAK: its value alone tells DLBCL from the other classes" in draft.text
    assert len(draft.cohort().patients) == n


def test_a_workbook_is_read_with_its_own_numbers_dates_and_truth_values(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["patient_id", "slide", "label", "age", "grade", "fever", "seen"])
    for i in range(8):
        day = datetime.datetime(2020, 1, 1 + i)
        book.active.append([i, f"{i}.svs", "AB"[i % 2], 40.5 + i, 1 + i % 3, bool(i % 2 or i > 5), day])
    book.save(tmp_path / "cohort.xlsx")
    draft = Drafted(tmp_path / "cohort.xlsx")
    assert draft.variables == {
        "age": {"kind": "numeric", "range": [0, 60]},
        "grade": {"kind": "ordinal", "levels": ["1", "2", "3"]},
        "fever": {"kind": "binary"},
    }
    age, grade, fever = draft.cohort().clinical_matrix().T
    np.testing.assert_allclose(age, 40.5 + np.arange(8))
    np.testing.assert_allclose(grade, np.arange(8) % 3)
    np.testing.assert_allclose(fever, [0, 1, 0, 1, 0, 1, 1, 1])


@pytest.mark.parametrize("number", [1e-300, 1e-30, 9.999999999999999e22, 1e38, 0.0, 1.0, 18.0])
def test_a_range_holds_numbers_of_any_size(number: float) -> None:
    low, high = plausible_range(np.array([number, 2 * number]))
    assert low <= number < high
    low, _ = plausible_range(np.array([-number, number]))
    assert low <= -number


NUMBER = st.floats(-1e6, 1e9, allow_nan=False).map(lambda value: f"{value:.4g}")
CELL = st.one_of(
    st.text(max_size=12).map(lambda text: text.replace("\0", "").encode("utf-8", "ignore").decode()),
    NUMBER,
    st.integers(-20, 3000).map(str),
    st.sampled_from(["<5", "≥ 1,5", "7 mg/L", "1,200", "1.234,5", "12'000", "-9", "999", "3a", "IV", "++", "-", "?"]),
    st.sampled_from(["yes", "no", "on", "1", "0", "~", "null", "2020-01-01", "1:30", "0x1f", ".5", "5.", "1e400"]),
    st.sampled_from(["=a", "&b", "*c", "a: b", "# none", "[c]", "{d: e}", 'say "x"', "it's", "back\\slash", "größer"]),
)
COLUMN = st.lists(CELL, min_size=1, max_size=6).flatmap(
    lambda cells: st.lists(st.sampled_from(cells), min_size=ROWS, max_size=ROWS)
)
NAME = st.sampled_from(["yes", "1", "a: b", "# c", "größe", "no", "x y", '"q"', "null-ish", "0x1f", "[p]"])


@settings(max_examples=80, deadline=None)
@given(columns=st.dictionaries(NAME, COLUMN, max_size=4), separator=st.sampled_from([",", ";", "\t"]))
def test_a_draft_of_whatever_table_is_a_valid_schema(columns: dict[str, list[str]], separator: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        draft = Drafted(write_rows(Path(folder) / "cohort.csv", columns | AGE, separator))
        assert ClinicalSchema.load(draft.file).variable_names == list(draft.variables)


def test_the_script_prints_or_writes_and_never_overwrites(drafted: Draft, tmp_path: Path) -> None:
    draft, output = drafted({"age": ["60", "70", "80"]}), tmp_path / "clinical.yaml"
    script = [sys.executable, str(ROOT / "scripts/draft_schema.py"), str(draft.table)]
    printed = subprocess.run(script, capture_output=True, text=True, encoding="utf-8", check=True)
    assert printed.stdout == draft.text
    for expected in (0, 1):
        done = subprocess.run([*script, "--output", str(output)], capture_output=True, text=True, encoding="utf-8")
        assert done.returncode == expected, done.stderr
        assert output.read_text(encoding="utf-8") == draft.text
    assert done.stderr.startswith(f"Error: {output} is there already")


@pytest.mark.parametrize(
    ("header", "row", "part"),
    [
        ("Patient_ID,slide,label,x", "a,b,c,1", 'column "patient_id": is missing'),
        ("patient_id,slide,Label,x", "a,b,c,1", 'mean "Label"'),
        ("patient_id,slide,label,x", "a,b,c,1", "found 1 classes; expected at least 2"),
        ("patient_id,slide,label,x,x", "a,b,c,1,2", 'column "x": is in the header 2 times'),
    ],
)
def test_a_table_that_cannot_be_drafted_from_is_refused(tmp_path: Path, header: str, row: str, part: str) -> None:
    (tmp_path / "cohort.csv").write_text(f"{header}\n{row}\n")
    with pytest.raises(UserError) as caught:
        Drafted(tmp_path / "cohort.csv")
    assert part in str(caught.value)


def test_a_table_without_any_variable_says_why_and_shows_no_cells(drafted: Draft) -> None:
    with pytest.raises(UserError) as caught:
        drafted({"const": ["1", "1"], "gap": ["", "NA"], "surname": ["Secret1", "Secret2"]})
    for part in ("const: constant", "gap: empty", "surname: an identifier"):
        assert part in str(caught.value)
    assert "Secret" not in str(caught.value)
