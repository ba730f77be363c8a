# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from persam_monai.clinical import CellError, ClinicalSchema, NumberFormat, decimal_evidence, parse_number


@pytest.mark.parametrize(
    ("text", "sign"),
    [
        *((text, ".") for text in ("1.5", "0.250", "<1.5", "≥ .5", "-2.5 U/L", "5.", "1,234.5", "1'234.567", "1.2e3")),
        *(
            (text, ",")
            for text in ("1,5", "0,250", "<1,5", "1.234,5", "1 234,567", "5,2 10^9/L", "1,200e3", "1234,567")
        ),
        *((text, "either") for text in ("1,200", "1.200", "-12.345", "<= 999,999 mg/dL", " 1,200%")),
        *((text, None) for text in ("", "12", "-", ".", "NA", "3 kg", "1,234,567", "01.02.2020", "Dr. No", "1.5-2.0")),
        *((text, None) for text in ("2024-03-01", "1,5,2", "1_0.5", "<NA>", "x1,5", "1.000.000")),
        *((text, None) for text in ("2.Mai", "3,x", "<2.Mai", "1.234,x", "2.\u00b5g", "2.e")),
        *((text, ".") for text in ("2. g/L", "2.e3", "2.5g/L")),
    ],
)
def test_a_cell_shows_the_decimal_sign_it_can_only_have(text: str, sign: str | None) -> None:
    assert decimal_evidence(text) == sign


def test_long_cells_are_judged_quickly() -> None:
    for cell in ("1" * 50_000 + "x", "1 " * 50_000, "1," * 50_000, "1 234" * 20_000 + "-"):
        assert decimal_evidence(cell) in (None, ",", ".")
        with pytest.raises(CellError):
            parse_number(cell + "?", NumberFormat(",", " "))


@pytest.mark.parametrize("value", [5, 5.0, np.int64(5), np.float32(5), Decimal(5), "5", "5,0", "+5", "0,5e1", "5,"])
def test_typed_numbers_are_taken_as_they_are_and_text_in_its_format(value: object) -> None:
    assert parse_number(value, NumberFormat(",", ".")) == 5


def test_the_tables_sign_holds_where_the_schema_settles_none() -> None:
    variables = {
        "open": {"kind": "numeric"},
        "own": {"kind": "numeric", "decimal": "."},
        "grouped": {"kind": "numeric", "thousands": ","},
        "spaced": {"kind": "numeric", "thousands": " "},
        "answer": {"kind": "binary"},
    }
    schema = ClinicalSchema.from_dict({"classes": ["a", "b"], "groups": {"g": variables}})
    assert schema.undecided_decimals == ["open", "spaced"]
    row = {"open": "1,5", "own": "1.5", "grouped": "1,200.5", "spaced": "1 200,5", "answer": "y"}
    np.testing.assert_array_equal(schema.encode(row, "row 2", ","), np.array([1.5, 1.5, 1200.5, 1200.5, 1], np.float32))
    assert [problem.column for problem in schema.encode_cells(row)[1]] == ["open", "spaced"]
    np.testing.assert_array_equal(schema.encode({"open": 1.5}, "--record", ",")[:1], [1.5])


def test_nothing_is_undecided_where_the_schema_declares_the_sign() -> None:
    declared = {"classes": ["a", "b"], "decimal": ",", "groups": {"g": {"x": {"kind": "numeric"}}}}
    schema = ClinicalSchema.from_dict(declared)
    assert schema.undecided_decimals == []
    assert schema.encode({"x": "1,5"}, "row 2", ".")[0] == 1.5
    assert schema.describe(np.array([1.5], np.float32)) == {"x": "1,5"}


@pytest.mark.parametrize(
    ("declared", "cell", "described"),
    [
        ({"unit": "g", "units": {"g": 1, "kg": 1000}}, "0.009 kg", "9 g"),
        ({"unit": "g", "units": {"kg": 1000}}, "0.009 kg", "9 g"),
        ({"unit": " g ", "units": {"kg": 1000}}, "0.009 kg", "9 g"),
        ({"unit": "\u00b5g", "units": {"\u03bcg": 1, "mg": 1000}}, "0.009 mg", "9 \u00b5g"),
        ({"unit": "g", "units": {"kg": 1000}, "missing_codes": [9, "9 g"]}, "0.009 kg", "9.000000000000002"),
        ({"comparisons": "half", "range": [0, 9]}, "<18", "8.999999999999998"),
    ],
)
def test_a_value_that_looks_like_a_missing_code_is_described_as_another_text(
    declared: dict[str, object], cell: str, described: str
) -> None:
    variable = {"kind": "numeric", "missing_codes": [9], **declared}
    schema = ClinicalSchema.from_dict({"classes": ["a", "b"], "groups": {"g": {"x": variable}}})
    vector = schema.encode({"x": cell}, "row 2")
    assert vector[0] == 9
    assert schema.describe(vector) == {"x": described}
    np.testing.assert_array_equal(schema.encode({"x": described}, "row 3"), vector)
