# SPDX-License-Identifier: Apache-2.0
"""What a cell becomes: numbers of the record, or an error that says what is expected."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persam_monai.clinical import CellError, CellRules, ClinicalSchema
from persam_monai.clinical.cells import DECIMALS, THOUSANDS, is_ambiguous, parse_number

NAN = math.nan
NUMBER: dict[str, Any] = {"kind": "numeric"}
BINARY: dict[str, Any] = {"kind": "binary"}
SITE: dict[str, Any] = {"kind": "categorical", "levels": ["neck", "groin"]}
STAGE: dict[str, Any] = {"kind": "ordinal", "levels": ["I", "II", "III"]}
COMMA: dict[str, Any] = {"decimal": ","}
GERMAN: dict[str, Any] = {"decimal": ",", "thousands": "."}
DAY = datetime.date(2024, 3, 1)

Case = tuple[dict[str, Any], dict[str, Any], object, Any]


def cases(declared: dict[str, Any], top: dict[str, Any], cells: Iterable[object], outcome: Any) -> Iterator[Case]:
    return ((declared, top, cell, outcome) for cell in cells)


# Declaration of x, what holds for all variables, cell, and its numbers, or a part of the error.
CELLS: list[Case] = [
    # Missing values
    *cases(NUMBER, {}, ("", " ", "na", "#N/A", "<NA>", "null", ".", "—", "?", None, NAN), [NAN]),
    *cases(SITE, {}, ("Unknown", "NOT KNOWN", "not available", "missing", "-", "–"), [NAN, NAN]),
    ({"kind": "binary", "levels": ["-", "+"]}, {}, "-", [0]),
    ({"kind": "categorical", "levels": ["known", "unknown"]}, {}, "Unknown", [0, 1]),
    *cases(NUMBER | {"missing_codes": [-9]}, {}, ("-9", "-9.0", -9, -9.0), [NAN]),
    (NUMBER | {"missing_codes": [-9]}, COMMA, "-9,00", [NAN]),
    (NUMBER | {"missing_codes": [99], "range": [0, 120]}, {}, "99", [NAN]),
    (NUMBER, {"missing_codes": ["k. A."]}, "K. a.", [NAN]),
    (STAGE, {"missing_codes": [9]}, "9.0", [NAN]),
    (BINARY | {"missing_codes": ["9"]}, {}, 9, [NAN]),
    (NUMBER, {}, "none", "a number"),
    # Numbers
    *cases(NUMBER, {}, ("-1500", " -1500. ", "-1.5e3", "-1.5E+3", "−1500", -1500, Decimal(-1500)), [-1500]),
    (NUMBER, {}, "+.5", [0.5]),
    *cases(NUMBER, {}, ("1_000", "१२", "--1", "0x10", "1e", "inf", "1 2", "1e999", math.inf, True), "a number"),
    *cases(NUMBER, {}, ("12 years", "5 %", "1,5", "<<5"), "a number"),
    *cases(NUMBER, COMMA, ("1,5", "+1,50", 1.5), [1.5]),
    (NUMBER, COMMA, "1.5", "a number such as 1234,5"),
    *cases(NUMBER, {"thousands": ","}, ("1,234,567.5", "1234567.5"), [1234567.5]),
    (NUMBER, GERMAN, "-1.234,5", [-1234.5]),
    *cases(NUMBER, {"thousands": " "}, ("12 345", "12\u202f345", "12\u00a0345"), [12345]),
    *cases(NUMBER, {"thousands": "'"}, ("12'345", "12’345"), [12345]),
    *cases(NUMBER, {"thousands": ","}, ("12,34", "0,123", "1234,567"), "a number such as 1,234.5"),
    # Comparisons, ranges, logarithms
    *cases(NUMBER | {"comparisons": "limit"}, {}, ("<5", "≤ 5", ">=5", "≥5", "5"), [5]),
    *cases(NUMBER | {"comparisons": "half"}, {}, ("<5", "≤5", "<= 5", "> 2.5"), [2.5]),
    (NUMBER | {"comparisons": "half"}, {}, "<-5", "from 0 up"),
    (NUMBER, {}, "<5", "declare comparisons"),
    (NUMBER | {"range": [0, 100], "unit": "mg/L"}, {}, "100", [100]),
    (NUMBER | {"range": [0, 100], "unit": "mg/L"}, {}, "101", "a number from 0 to 100 mg/L"),
    (NUMBER | {"range": [5, 9], "comparisons": "half"}, {}, "<8", "a number from 5 to 9"),
    (NUMBER | {"range": [1, 100], "transform": "log"}, {}, "100", [math.log(100)]),
    (NUMBER | {"transform": "log"}, {}, "0", "above 0"),
    (NUMBER, {}, 1e300, "32-bit"),
    # Levels
    *cases(BINARY, {}, ("yes", "Y", "TRUE", "1", "1.0", 1, True, np.True_), [1]),
    *cases(BINARY, {}, ("No", "n", "false", "0", 0.0, False), [0]),
    *cases(BINARY, {}, ("2", 2, "0.5", "maybe", "-1"), "yes or no"),
    ({"kind": "binary", "levels": ["f", "m"]}, {}, "M", [1]),
    ({"kind": "binary", "levels": ["1", "2"]}, {}, 2.0, [1]),
    *cases({"kind": "binary", "levels": ["f", "m"]}, {}, ("yes", True, "x"), "one of f, m"),
    (SITE, {}, " Groin", [0, 1]),
    *cases(SITE | {"other": True}, {}, ("elbow", "Other", 17), [0, 0, 1]),
    (SITE | {"other": True}, {}, "NECK", [1, 0, 0]),
    (SITE | {"other": True}, {}, "unknown", [NAN, NAN, NAN]),
    ({"kind": "categorical", "levels": ["a", "A", "b"]}, {}, "A", [0, 1, 0]),
    ({"kind": "categorical", "levels": ["Hüfte", "b"]}, {}, "HU\u0308FTE\u200b", [1, 0]),
    ({"kind": "ordinal", "levels": ["ab", "AB", "c"]}, {}, "Ab", "one of ab, AB, c"),
    (STAGE, {}, "iii", [2]),
    (STAGE, {}, "IV", "one of I, II, III"),
    ({"kind": "ordinal", "levels": ["1", "2", "3"]}, {}, "2.0", [1]),
    # Whatever the kind
    *cases(NUMBER, {}, ("#REF!", "#DIV/0!", "#BEZUG!"), "no error of a spreadsheet"),
    *cases(SITE | {"other": True}, {}, ("#REF!", "#NAME?"), "no error of a spreadsheet"),
    *((declared, {}, DAY, "no date") for declared in (NUMBER, BINARY, SITE | {"other": True})),
    *cases(SITE | {"other": True}, {}, (["neck"],), "text, a number or a truth value"),
]


@pytest.mark.parametrize(("declared", "top", "cell", "outcome"), CELLS)
def test_a_cell_becomes_numbers_or_an_error(
    declared: dict[str, Any], top: dict[str, Any], cell: object, outcome: list[float] | str
) -> None:
    schema = ClinicalSchema.from_dict({"classes": ["a", "b"], **top, "groups": {"g": {"x": declared}}})
    vector, problems = schema.encode_cells({"x": cell}, schema.rules())
    if isinstance(outcome, str):
        assert outcome in problems["x"].expected
        assert np.isnan(vector).all()
        assert not isinstance(cell, str) or cell not in problems["x"].expected.split()  # it goes into a file
    else:
        assert problems == {}
        np.testing.assert_array_equal(vector, np.array(outcome, np.float32))


def test_a_near_level_is_a_hint_apart() -> None:
    schema = ClinicalSchema.from_dict({"classes": ["a", "b"], "groups": {"g": {"x": SITE}}})
    problem = schema.encode_cells({"x": "groyn"}, schema.rules())[1]["x"]
    assert "groin" in problem.hint
    assert "mean" not in problem.expected


SIGNS = [(sign, mark) for sign in DECIMALS for mark in (None, *THOUSANDS) if mark != sign]


@given(st.sampled_from(SIGNS), st.decimals(-(10**9), 10**9, places=2))
def test_a_number_is_read_as_it_was_written_or_refused(signs: tuple[str, str | None], number: Decimal) -> None:
    sign, mark = signs
    grouped = f"{number:,.2f}".translate({ord(","): mark or "", ord("."): sign})
    assert parse_number(grouped, CellRules(sign, mark)) == float(number)
    assert parse_number(f"{number:.2f}".replace(".", sign), CellRules(sign, mark)) == float(number)
    for other_sign, other_mark in SIGNS:
        try:
            read = parse_number(grouped, CellRules(other_sign, other_mark))
        except CellError:
            continue
        assert read == float(number)  # two decimals cannot be taken for thousands


def test_a_text_with_three_digits_behind_its_only_sign_may_be_two_numbers() -> None:
    assert all(map(is_ambiguous, ("1.234", "12,500", "-999.000")))
    assert not any(map(is_ambiguous, ("1.23", "1234,567", "0,123", "1.234,5", "1.234.567", "1234", "")))
