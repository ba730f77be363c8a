# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from persam_monai.clinical import ClinicalSchema
from persam_monai.errors import UserError

DECLARED: dict[str, Any] = {
    "classes": ["DLBCL", "FL", "Reactive"],
    "groups": {
        "interview": {
            "age": {"kind": "numeric", "unit": "years", "range": [0, 120]},
            "sex": {"kind": "categorical", "levels": ["female", "male"]},
            "b_symptoms": {"kind": "binary"},
        },
        "blood": {
            "ldh": {"kind": "numeric", "unit": "U/L", "transform": "log"},
            "stage": {"kind": "categorical", "levels": [1, 2, 3]},
        },
    },
}


@pytest.fixture
def schema() -> ClinicalSchema:
    return ClinicalSchema.from_dict(DECLARED)


def complaint(schema: ClinicalSchema, record: dict[str, object]) -> str:
    with pytest.raises(UserError) as caught:
        schema.encode(record, "cohort.csv, row 5")
    return str(caught.value)


def test_a_row_of_text_becomes_the_numbers_it_says(schema: ClinicalSchema) -> None:
    row = {"age": "63.5", "sex": "male", "b_symptoms": "Yes", "ldh": " 2.5e2 ", "stage": "3"}
    vector = schema.encode(row, "row 2")
    assert vector.dtype == np.float32
    np.testing.assert_array_equal(vector, np.array([63.5, 0, 1, 1, math.log(250), 0, 0, 1], np.float32))


def test_a_record_of_numbers_equals_its_row_of_text(schema: ClinicalSchema) -> None:
    record = {"age": 63.5, "sex": "male", "b_symptoms": True, "ldh": np.int64(250), "stage": 3.0}
    row = {"age": "63.5", "sex": "male", "b_symptoms": "true", "ldh": "250", "stage": "3"}
    np.testing.assert_array_equal(schema.encode(record, "here"), schema.encode(row, "here"))


def test_layout_names_every_number(schema: ClinicalSchema) -> None:
    assert schema.classes == ("DLBCL", "FL", "Reactive")
    assert list(schema.groups) == ["interview", "blood"]
    assert schema.group_sizes == [4, 4]
    assert schema.size == 8
    assert schema.variable_names == ["age", "sex", "b_symptoms", "ldh", "stage"]
    assert schema.component_names == [
        "age",
        "sex=female",
        "sex=male",
        "b_symptoms",
        "ldh",
        "stage=1",
        "stage=2",
        "stage=3",
    ]


@pytest.mark.parametrize(
    "missing",
    [
        *("", "  ", "NA", "n/a", "#N/A", "NaN", "<NA>", "Null", ".", "-", "–", "—", "?", "Unknown", "not known"),
        *("not available", "Missing", None, math.nan, np.float32("nan"), np.datetime64("NaT"), pd.NA, pd.NaT),
        Decimal("NaN"),
    ],
)
def test_missing_is_nan_in_every_component(schema: ClinicalSchema, missing: object) -> None:
    assert np.isnan(schema.encode(dict.fromkeys(schema.variable_names, missing), "here")).all()


def test_an_absent_variable_is_missing(schema: ClinicalSchema) -> None:
    vector = schema.encode({"age": 40}, "here")
    assert vector[0] == 40
    assert np.isnan(vector[1:]).all()


@pytest.mark.parametrize(
    ("answer", "number"),
    [("YES", 1), ("no", 0), ("True", 1), ("FALSE", 0), ("1", 1), ("0", 0), ("1.0", 1), (0, 0), (1.0, 1), (False, 0)],
)
def test_binary_answers_in_any_spelling(schema: ClinicalSchema, answer: object, number: int) -> None:
    assert schema.encode({"b_symptoms": answer}, "here")[3] == number


@pytest.mark.parametrize(
    ("column", "cell", "expected"),
    [
        ("age", "sixty", "a number"),
        ("age", "1_0", "a number"),
        ("age", "12 years", "a number"),
        ("age", "63,5", "decimal point"),
        ("age", "1e999", "finite"),
        ("age", "121", "from 0 to 120 years"),
        ("age", "-1", "from 0 to 120 years"),
        ("ldh", "0", "above 0, because the schema says transform: log"),
        ("ldh", "-3", "above 0, because the schema says transform: log"),
        ("b_symptoms", "perhaps", "yes or no"),
        ("b_symptoms", "2", "yes or no"),
        ("sex", "femal", "one of female, male; write the level as declared"),
        ("sex", "femal", 'Did you mean "female"?'),
        ("stage", "4", "one of 1, 2, 3"),
    ],
)
def test_a_bad_cell_is_named_with_what_was_expected(
    schema: ClinicalSchema, column: str, cell: str, expected: str
) -> None:
    message = complaint(schema, {column: cell})
    assert "cohort.csv, row 5" in message
    assert f'column "{column}": found "{cell}", expected ' in message
    assert expected in message


@pytest.mark.parametrize("value", [True, [1], math.inf, 10**400, object()])
def test_what_is_not_a_number_is_no_number(schema: ClinicalSchema, value: object) -> None:
    assert 'column "age"' in complaint(schema, {"age": value})


def test_too_large_for_float32_is_told() -> None:
    schema = ClinicalSchema.from_dict({"classes": ["a", "b"], "groups": {"g": {"x": {"kind": "numeric"}}}})
    assert "32-bit" in complaint(schema, {"x": "1e39"})


def test_both_ends_of_a_range_belong_to_it(schema: ClinicalSchema) -> None:
    assert schema.encode({"age": "0"}, "here")[0] == 0
    assert schema.encode({"age": "120"}, "here")[0] == 120


def test_an_unknown_name_suggests_the_known_one(schema: ClinicalSchema) -> None:
    message = complaint(schema, {"b_symptom": "yes"})
    assert 'column "b_symptom"' in message
    assert 'Did you mean "b_symptoms"?' in message


def test_all_problems_of_a_record_come_together(schema: ClinicalSchema) -> None:
    record: dict[str, object] = {
        "age": "old",
        "sex": "x",
        "b_symptoms": "perhaps",
        "ldh": "0",
        "other": "1",
        "stage": "2",
    }
    vector, problems = schema.encode_cells(record)
    assert {problem.column for problem in problems} == {"age", "sex", "b_symptoms", "ldh", "other"}
    np.testing.assert_array_equal(vector, np.array([math.nan] * 5 + [0, 1, 0], np.float32))
    message = complaint(schema, record)
    assert all(str(problem) in message for problem in problems)


def test_long_cells_are_cut_in_messages(schema: ClinicalSchema) -> None:
    assert len(complaint(schema, {"age": "x" * 5000})) < 300


def test_describing_a_record_gives_its_cells_back(schema: ClinicalSchema) -> None:
    row = {"age": "63.5", "sex": "male", "b_symptoms": "no", "ldh": "250", "stage": ""}
    vector = schema.encode(row, "here")
    described = {
        variable.name: variable.describe(vector[schema.slices[variable.name]]) for variable in schema.variables
    }
    assert described == row | {"stage": "an empty cell"}


def test_schema_survives_json(schema: ClinicalSchema) -> None:
    again = ClinicalSchema.from_dict(json.loads(json.dumps(schema.to_dict())))
    assert again == schema
    assert again.to_dict() == schema.to_dict()
