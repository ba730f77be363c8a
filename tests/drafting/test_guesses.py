# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from persam_monai.drafting.ranges import looks_logarithmic, plausible_range, suspected_codes, two_scales
from persam_monai.drafting.scales import in_order
from persam_monai.drafting.units import factor

from persam_monai.errors import UserError
from tests.drafting.conftest import Drafted

Draft = Callable[..., Drafted]
AGES = [str(age) for age in (34, 45, 56, 61, 62, 63, 64, 65, 71, 82)]


def repeated(*cells: str) -> list[str]:
    return [cells[i % len(cells)] for i in range(6 * len(cells))]


@pytest.mark.parametrize(
    ("cells", "declaration"),
    [
        (repeated("yes", "no", "Yes"), {"kind": "binary"}),
        (repeated("1", "0", ""), {"kind": "binary"}),
        (repeated("TRUE", "false"), {"kind": "binary"}),
        (repeated("1", "2", "2"), {"kind": "binary", "levels": ["1", "2"]}),
        (repeated("f", "m", "f"), {"kind": "binary", "levels": ["f", "m"]}),
        (repeated("positive", "positive", "negative"), {"kind": "binary", "levels": ["negative", "positive"]}),
        (repeated("+", "-", "+"), {"kind": "binary", "levels": ["-", "+"]}),
        (repeated("0", "1", "2", "3"), {"kind": "ordinal", "levels": ["0", "1", "2", "3"]}),
        (repeated("1", "2", "4"), {"kind": "ordinal", "levels": ["1", "2", "3", "4"]}),
        (repeated("I", "III", "IV"), {"kind": "ordinal", "levels": ["I", "II", "III", "IV"]}),
        (repeated("stage 2", "stage 1", "stage 3"), {"kind": "ordinal", "levels": ["stage 1", "stage 2", "stage 3"]}),
        (repeated("3b", "1", "3a", "2"), {"kind": "ordinal", "levels": ["1", "2", "3a", "3b"]}),
        (repeated("high", "Low", "medium"), {"kind": "ordinal", "levels": ["Low", "medium", "high"]}),
        (repeated("+++", "+", "++", "-"), {"kind": "ordinal", "levels": ["-", "+", "++", "+++"]}),
        (repeated("neck", "groin", "neck", "axilla"), {"kind": "categorical", "levels": ["neck", "axilla", "groin"]}),
        (repeated("1", "2", "mixed", "mixed"), {"kind": "categorical", "levels": ["mixed", "1", "2"]}),
        (repeated("1.0", "2.0", "3.0", ""), {"kind": "ordinal", "levels": ["1", "2", "3"]}),
        (repeated("1.0", "0.0", ""), {"kind": "binary"}),
        (repeated("1.0", "2.0"), {"kind": "binary", "levels": ["1", "2"]}),
        (AGES, {"kind": "numeric", "range": [0, 120]}),
        (["-3.5", "2", "1", "0.5", "1.5"], {"kind": "numeric", "range": [-5, 2.5]}),
        (["0.0011", "0.0023", "0.0049", "0.005"], {"kind": "numeric", "range": [0, 0.008]}),
        (["1,234", "2,345", "1,999", "3,100"], {"kind": "numeric", "range": [0, 4000], "thousands": ","}),
        (["5 /nL", "7 /nL", "3.5"], {"kind": "numeric", "unit": "/nL", "range": [0, 10], "units": {"/nL": 1}}),
        (["150/nL", "187/nL", "98/nL"], {"kind": "numeric", "unit": "/nL", "range": Any, "units": {"/nL": 1}}),
        (["5/L", "7/L", "3.5"], {"kind": "numeric", "unit": "/L", "range": [0, 10], "units": {"/L": 1}}),
        (repeated("3/a", "3/b", "3/c"), {"kind": "categorical", "levels": ["3/a", "3/b", "3/c"]}),
        (["120/80", "130/90", "120/80", "150/95"], {"kind": "categorical", "levels": ["120/80", "130/90", "150/95"]}),
        (["2 weeks", "1 week", "10 weeks"], {"kind": "numeric", "unit": "weeks", "range": [0, 15], "units": Any}),
    ],
)
def test_the_kind_is_what_a_person_would_say(drafted: Draft, cells: list[str], declaration: dict[str, Any]) -> None:
    draft = drafted({"x": cells})
    found = draft.variables["x"]
    assert found == {key: found.get(key) if value is Any else value for key, value in declaration.items()}
    draft.cohort()


@pytest.mark.parametrize(
    ("name", "cells", "reason"),
    [
        ("mrn", ["84731", "55", "90210", "1311"], "an identifier by its name"),
        ("case_id", [f"H20-{i}" for i in range(12)], "an identifier by its name"),
        ("treating_doctor", ["A. Nobody", "B. Nobody", "A. Nobody"], "an identifier by its name"),
        ("reviewer", [f"Dr. Nobody {i}" for i in range(12)], "an identifier or free text"),
        ("row", [str(i) for i in range(1, 31)], "a running number"),
        ("dateOfBiopsy", ["2020-01-01", "2021-05-05", "2020-01-01"], "dates"),
        ("visit", ["1.2.2020", "2.2.2020", "1.2.2020", "x"], "dates"),
        ("remark", ["the patient came with a swelling of the neck", "no swelling was seen by the patient"] * 9, "free"),
        ("Fold", ["0", "1", "2"], "too near to fold"),
        ("arrival", [f"{i}/Mar/2020" for i in range(1, 13)], "an identifier or free text"),
        ("glass", [f"{4700 + 13 * i}/B{20 + i}" for i in range(12)], "an identifier or free text"),
        ("const", ["a", "A", ""], "constant"),
        ("gap", ["", "NA", "unknown"], "empty in every row"),
        ("slide_stain", ["H&E", "PAS", "H&E"], "differs between the rows of a patient"),
    ],
)
def test_what_is_no_variable_is_left_out_with_a_reason(
    drafted: Draft, name: str, cells: list[str], reason: str
) -> None:
    patients = ["P0", *(f"P{i}" for i in range(len(cells) - 1))] if name == "slide_stain" else None
    ids = {"patient_id": patients, "label": ["A", "A", "B"]} if patients else {}
    draft = drafted({**ids, name: cells, "age": [str(50 + 2 * (i // 2)) for i in range(len(cells))]})
    assert name not in draft.variables
    assert reason in draft.comment_on(name)


def test_texts_of_columns_that_may_name_a_patient_are_not_shown(drafted: Draft) -> None:
    cells = [f"Secret{i}" for i in range(20)]
    draft = drafted(
        {
            "surname": cells,
            "note": cells,
            "case": cells,
            "story": [f"{cell} was seen on a day in the clinic of our town" for cell in cells],
            "ward": [cell if i < 9 else "A" for i, cell in enumerate(cells)] + ["B"] * 0,
            "size": [cells[i] if i in (3, 4) else str(i + 10.5) for i in range(20)],
        }
    )
    assert "Secret" not in draft.text
    assert "patients: 2" in draft.comment_on("size")


def test_errors_show_no_cells_either(drafted: Draft) -> None:
    with pytest.raises(UserError) as caught:
        drafted({"note": [f"Secret{i}" for i in range(9)]})
    assert "Secret" not in str(caught.value)


def test_codes_of_missing_values_are_suggested_and_refused_until_a_person_decides(drafted: Draft) -> None:
    draft = drafted({"age": [*AGES, "-9"], "ecog": [*(str(i % 3) for i in range(10)), "9"]})
    assert draft.variables["age"] == {"kind": "numeric", "range": [0, 120]}
    assert draft.variables["ecog"] == {"kind": "ordinal", "levels": ["0", "1", "2"]}
    assert "missing_codes: [-9]" in draft.comment_on("age")
    with pytest.raises(UserError, match="2 problems"):
        draft.cohort()
    text = draft.text.replace("[0, 120]}", "[0, 120], missing_codes: [-9]}").replace(
        '"2"]}', '"2"], missing_codes: [9]}'
    )
    draft.file.write_text(text, encoding="utf-8")
    assert np.isnan(draft.cohort().clinical_matrix()).sum() == 2


def test_repeated_texts_among_numbers_are_suggested_as_codes(drafted: Draft) -> None:
    draft = drafted({"ldh": [*(str(200 + 7 * i) for i in range(30)), "n.d.", "n.d.", "n.d.", "hand-written"]})
    assert draft.variables["ldh"]["kind"] == "numeric"
    assert 'missing_codes: ["n.d."]' in draft.comment_on("ldh")
    assert "hand-written" not in draft.text


def test_a_unit_that_no_prefix_explains_is_left_to_a_person(drafted: Draft) -> None:
    draft = drafted({"glucose": ["90 mg/dL", "110 mg/dL", "5.1 mmol/L", "0.8 g/L"]})
    assert draft.variables["glucose"]["units"] == {"mg/dL": 1, "g/L": 100}
    assert "refused until units has them: mmol/L (patients: 1)" in draft.comment_on("glucose")
    with pytest.raises(UserError, match="1 problem in 1 column"):
        draft.cohort()
    draft.file.write_text(draft.text.replace("g/L: 100}", "g/L: 100, mmol/L: 18.016}"), encoding="utf-8")
    np.testing.assert_allclose(draft.cohort().clinical_matrix()[:, 0], [90, 110, 91.8816, 80], rtol=1e-6)


def test_missing_values_are_counted_by_patient(drafted: Draft) -> None:
    draft = drafted(
        {
            "patient_id": ["a", "a", "b", "c", "d"],
            "label": ["X", "X", "Y", "Y", "X"],
            "age": ["", "", "50", "unknown", "61"],
        }
    )
    assert "Missing: 2 of 4 patients, 50 %; different values: 2" in draft.comment_on("age")
    assert '"unknown" (1)' in draft.comment_on("age")


@pytest.mark.parametrize(
    ("values", "codes"),
    [
        ([1, 2, 3, 4, 5, -9], [-9]),
        ([1, 2, 3, 4, 5, -9, -8, 99], [-9, -8, 99]),
        ([40, 50, 60, 70, 80, 99], []),
        ([40, 50, 60, 70, 80, 999], [999]),
        ([-1, 0, 1, 2, 3, -2], []),
        ([1, -9], []),
    ],
)
def test_codes_stand_apart(values: list[float], codes: list[float]) -> None:
    assert suspected_codes(np.array(values, dtype=float)) == codes


def test_ranges_hold_the_data_and_leave_room() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        values = rng.normal(size=9) * 10 ** rng.uniform(-6, 8) + rng.choice([0, 10.0 ** rng.uniform(-3, 6)])
        low, high = plausible_range(values)
        assert low < values.min()
        assert values.max() < high or values.max() <= 0 == high


def test_a_logarithm_is_for_what_trails_off_to_the_right() -> None:
    rng = np.random.default_rng(0)
    assert looks_logarithmic(rng.lognormal(5, 0.8, 200))
    assert not looks_logarithmic(rng.normal(100, 10, 200))
    assert not looks_logarithmic(rng.lognormal(5, 0.8, 200) - 100)
    assert not looks_logarithmic(np.array([1.0, 2, 100]))


@pytest.mark.parametrize(
    ("unit", "to", "expected"),
    [
        ("kU/L", "U/L", 1000),
        ("g/dL", "g/L", 10),
        ("mg/dL", "g/L", 0.01),
        ("umol/l", "µmol/L", 1),
        ("year", "years", 1),
        ("mmol/L", "mg/dL", None),
        ("weeks", "months", None),
        ("g", "mol", None),
    ],
)
def test_factors_of_units_come_from_prefixes_alone(unit: str, to: str, expected: float | None) -> None:
    assert factor(unit, to) == expected


@pytest.mark.parametrize(
    "levels", [["a", "b", "c"], ["I", "2", "3"], ["low", "green", "high"], ["T1", "N2", "M0"], ["I", "V"]]
)
def test_no_order_is_made_up(levels: list[str]) -> None:
    assert in_order(levels) is None


def test_a_unit_of_few_cells_is_not_taken_for_all(drafted: Draft) -> None:
    draft = drafted({"weight": [*AGES, "64 kg"], "grade": [*(str(1 + i % 3) for i in range(10)), "3 cm"]})
    assert draft.variables["weight"] == {"kind": "numeric", "range": [0, 120]}
    expected = "Patients with a unit in the cell: 1 (kg); the others have none. Say which unit they are in."
    assert expected in draft.comment_on("weight")
    assert draft.variables["grade"]["kind"] == "numeric"
    with pytest.raises(UserError, match="2 problems"):
        draft.cohort()


def test_a_logarithm_has_a_range_above_zero_and_zeros_have_none(drafted: Draft) -> None:
    rng = np.random.default_rng(0)
    skewed = [f"{value:.2f}" for value in rng.lognormal(3, 1.2, 80)]
    draft = drafted(
        {"crp": skewed, "counts": ["0", *skewed[1:]], "share": ["1 %", *(f"{10 + i % 9} %" for i in range(79))]}
    )
    crp, counts = draft.variables["crp"], draft.variables["counts"]
    assert crp["transform"] == "log"
    assert 0 < crp["range"][0] <= min(map(float, skewed)) / 2
    assert "transform" not in counts
    assert counts["range"][0] == 0
    draft.cohort()


def test_two_scales_in_one_column_are_pointed_at(drafted: Draft) -> None:
    haemoglobin = [str(10 + i % 7) for i in range(30)] + [str(10 * (10 + i % 7)) for i in range(5)]
    draft = drafted({"hb": haemoglobin})
    note = "Two scales? Some values are about 10 times the others (patients: 5): are the units the same?"
    assert note in draft.comment_on("hb")
    assert "transform" not in draft.variables["hb"]


def test_scales_are_a_clear_factor_apart() -> None:
    rng = np.random.default_rng(0)
    usual = rng.uniform(11, 16, 40)
    assert two_scales(np.append(usual, 130)) == (10, 1)
    assert two_scales(np.append(usual, [13_000, 14_500])) == (1000, 2)
    assert two_scales(usual) is None
    assert two_scales(np.array([10.0, 20, 10, 20, 10, 20, 90, 90])) is None  # three answers
    assert two_scales(np.append(usual, [40, 45])) is None  # three times
    assert sum(two_scales(rng.lognormal(3, sigma, 100)) is not None for sigma in (0.3, 1, 2) for _ in range(100)) == 0


@pytest.mark.parametrize("number", [5e-324, 1e-310, 1e-30, 9.999999999999999e22, 1e38, 3e37, 0.0, 1.0])
def test_a_range_is_found_for_numbers_of_any_size(number: float) -> None:
    low, high = plausible_range(np.array([number, 2 * number]))
    assert low <= number < high
    low, high = plausible_range(np.array([number, 2 * number]), positive=True)
    assert 0 < low <= high
    assert low <= number or number < 1e-29  # too small for a logarithm to be drafted
    assert not looks_logarithmic(number * 2.0 ** np.array([0, 0, 0, 0, 0, 0, 0, 0, 0, 1])) or number > 1e-30
    low, _ = plausible_range(np.array([-number, number]))
    assert low <= -number


def test_the_decimal_sign_is_certain_only_if_no_number_has_the_other(drafted: Draft) -> None:
    cells = ["1,5", "2,25", "3,75", "4,5"]
    assert "Not certain" not in drafted({"x": cells}, separator=";").text
    assert "Not certain" in drafted({"x": cells, "y": ["1.5", "7", "8", "9"]}, separator=";").text
