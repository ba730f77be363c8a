# SPDX-License-Identifier: Apache-2.0
"""What is told about a cell: the cure that fits what stands there, and nothing of the cell where a file keeps it."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pytest

from persam_monai.clinical import CellError, CellProblem, ClinicalSchema, decimal_evidence, parse_number

NUMBER: dict[str, Any] = {"kind": "numeric"}
KILO: dict[str, Any] = {"kind": "numeric", "unit": "U/L", "units": {"kU/L": 1000}}
NOT_KNOWN = 'if it stands for "not known", declare missing_codes'


def problem(declaration: dict[str, Any], cell: object, **top: Any) -> CellProblem:
    schema = ClinicalSchema.from_dict({"classes": ["a", "b"], **top, "groups": {"g": {"x": declaration}}})
    _, (found,) = schema.encode_cells({"x": cell})
    return found


def value(declaration: dict[str, Any], cell: object, **top: Any) -> list[float]:
    schema = ClinicalSchema.from_dict({"classes": ["a", "b"], **top, "groups": {"g": {"x": declaration}}})
    return [float(number) for number in schema.encode({"x": cell}, "row 2")]


@pytest.mark.parametrize(
    ("declaration", "cell", "hint"),
    [
        ({"kind": "binary", "levels": ["ja", "nein"]}, "j", ' Did you mean "ja"?'),
        ({"kind": "ordinal", "levels": ["low", "high"]}, "hihg", ' Did you mean "high"?'),
        (KILO, "2 KU/L", ' Did you mean "kU/L"?'),
        (KILO, "2 u/l", ' Did you mean "U/L"?'),
        (NUMBER | {"unit": "µg", "units": {"µg": 1}}, "2 \u03bcG", ' Did you mean "µg"?'),
        (KILO, "2 mU/L", ""),  # near, and off by a factor
        (NUMBER | {"unit": "U/L", "units": {"mU/L": 0.001, "MU/L": 1e6}}, "2 mu/l", ""),  # may be either
    ],
)
def test_what_gives_a_cell_away_is_a_hint_apart(declaration: dict[str, Any], cell: str, hint: str) -> None:
    found = problem(declaration, cell)
    assert found.hint == hint
    assert "Did you mean" not in found.expected
    assert str(found).endswith(f"expected {found.expected}{hint}")
    assert not hint or found.expected.endswith(".")


def test_an_error_and_a_problem_have_no_hint_unless_one_is_given() -> None:
    assert CellProblem("x", "5", "6").hint == CellError("6").hint == ""
    assert str(CellError("a level.", " Did you mean this?")) == "a level."


def test_an_unknown_variable_is_suggested_apart() -> None:
    schema = ClinicalSchema.from_dict({"classes": ["a", "b"], "groups": {"g": {"age": NUMBER}}})
    _, (found,) = schema.encode_cells({"aeg": "5"})
    assert (found.expected, found.hint) == ("a variable of the clinical schema.", ' Did you mean "age"?')


def test_the_own_unit_may_stand_in_a_cell_wherever_units_are_declared() -> None:
    assert value(KILO, "250 U/L") == value(KILO, "0.25 kU/L") == value(KILO, "250") == [250]
    assert value(NUMBER | {"unit": "\u00b5g", "units": {"mg": 1000}}, "5 \u03bcg") == [5]
    assert problem(KILO, "5 %").expected.startswith("a number, alone or with one of the units U/L, kU/L; correct")
    assert "without the unit" in problem(NUMBER | {"unit": "U/L"}, "250 U/L").expected
    assert problem(NUMBER | {"unit": "2", "units": {"kg": 2}}, "1 2").column == "x"  # no unit, but half a number


@pytest.mark.parametrize(
    ("declaration", "told"), [(NUMBER, "numbers"), ({"kind": "binary"}, "text"), (KILO, "numbers")]
)
def test_a_date_has_to_be_typed_again(declaration: dict[str, Any], told: str) -> None:
    expected = problem(declaration, datetime.date(2020, 1, 1)).expected
    assert expected.endswith(f"format the column as {told}, then type the cells again")


@pytest.mark.parametrize(
    ("declaration", "cell"),
    [
        (NUMBER | {"range": [0, 120]}, "999"),
        (NUMBER | {"range": [0, 120]}, 999),
        (NUMBER, "k. A."),
        ({"kind": "binary"}, "9"),
        ({"kind": "binary", "levels": ["f", "m"]}, "x"),
        ({"kind": "ordinal", "levels": ["I", "II"]}, "9"),
    ],
)
def test_a_code_for_not_known_is_thought_of(declaration: dict[str, Any], cell: object) -> None:
    assert NOT_KNOWN in problem(declaration, cell).expected
    assert np.isnan(value(declaration | {"missing_codes": [cell]}, cell)).all()


@pytest.mark.parametrize("cell", ["1'200", "1’200", "1 200", "-1\u202f200.5", "1'200 U/L", "1,234,567"])
def test_signs_between_thousands_are_told_before_units(cell: str) -> None:
    for declaration in (NUMBER, NUMBER | {"unit": "U/L"}):
        assert "if one is meant, declare thousands: in the schema" in problem(declaration, cell).expected
    told = problem(NUMBER | {"thousands": "."}, cell, decimal=",").expected
    assert told.startswith("a number such as 1.234,5") or "decimal comma" in told


@pytest.mark.parametrize("cell", ["1_000", "0x10", "6O", "1l", "5/10", "5 /100", "1-2", "12.03.2020", "5+"])
def test_what_does_not_look_like_a_unit_is_not_called_one(cell: str) -> None:
    assert problem(NUMBER | {"unit": "U/L"}, cell).expected == f"a number, or an empty cell; {NOT_KNOWN}"


@pytest.mark.parametrize(
    "cell",
    ["45 %", "45%", "5 g", "5g", "11 10^9/L", "11x10^9/L", "5 × 10⁹/L", "5 /nL", "2e3 U/L", "\u22125 kg", "5 °C"],
)
def test_what_looks_like_a_unit_is_told_with_the_variables_own_one(cell: str) -> None:
    assert problem(NUMBER, cell).expected.startswith("a number without a unit; if cells have units, declare unit and")
    assert problem(NUMBER | {"unit": "%"}, cell).expected.endswith('such as units: {"%": 1}')
    assert problem(NUMBER | {"unit": "mg/dL"}, cell).expected.endswith("such as units: {mg/dL: 1}")


@pytest.mark.parametrize("cell", ["1200,5", "12,00", "0,123", "1,2345", "1,200,"])
def test_a_misplaced_sign_between_thousands_is_no_decimal_sign(cell: str) -> None:
    expected = "a number such as 1,234.5: a comma only before every three digits"
    assert problem(NUMBER | {"thousands": ","}, cell).expected == expected
    swapped = cell.translate(str.maketrans(",.", ".,"))
    expected = "a number such as 1.234,5: a point only before every three digits"
    assert problem(NUMBER | {"thousands": "."}, swapped, decimal=",").expected == expected


@pytest.mark.parametrize("cell", ["12 00", "0 123", "1200 500"])
def test_a_misplaced_space_is_told(cell: str) -> None:
    expected = "a number such as 1 234.5: a space only before every three digits"
    assert problem(NUMBER | {"thousands": " "}, cell).expected == expected


@pytest.mark.parametrize("minus", ["\u2212", "\ufe63", "\uff0d"])
def test_every_minus_sign_is_one(minus: str) -> None:
    assert parse_number(f"{minus}5.5e{minus}1") == -0.55
    assert decimal_evidence(f"{minus}1,5") == ","
    assert value(NUMBER | {"unit": "g", "units": {"g": 1}, "comparisons": "limit"}, f"<{minus}5 g") == [-5]
    assert np.isnan(value(NUMBER | {"missing_codes": [-9]}, f"{minus}9")).all()
    assert np.isnan(value(NUMBER, minus)).all()  # as a hyphen, a missing value (C1), ...
    assert value({"kind": "binary", "levels": ["-", "+"]}, minus) == [0]  # ... unless it is a level
    assert value({"kind": "binary", "levels": [minus, "+"]}, "-") == [0]
    assert value({"kind": "ordinal", "levels": ["-1", "0"]}, f"{minus}1") == [0]


def test_a_range_says_that_the_number_is_not_the_one_that_stands_there() -> None:
    changed = "after its unit and comparison sign were taken into account"
    half = NUMBER | {"comparisons": "half", "range": [3, 100]}
    assert problem(half, "<5").expected.endswith(changed)
    assert problem(KILO | {"range": [0, 100]}, "2 kU/L").expected.endswith(changed)
    assert changed not in problem(half, "2.5").expected
    assert "2.5" not in problem(half, "<5").expected


def test_a_logarithm_of_nothing_has_a_cure() -> None:
    assert problem(NUMBER | {"transform": "log"}, "0").expected.endswith("; correct the cell, or use transform: none")


@pytest.mark.parametrize(
    ("levels", "cell", "place"),
    [
        (["1", "2"], "1.0", 0),
        (["1", "2"], "2.00", 1),
        (["-1", "10"], "\u22121.0", 0),
        (["1", "1.0"], "1.0", 1),
        (["1", "2"], "1.5", None),
        (["1", "2"], "3.0", None),
        (["01", "02"], "1.0", None),
        (["1", "2a"], "1.0", None),
        (["1", "2"], "1.", None),
        (["1", "1.0", "2"], "2.0", None),
    ],
)
def test_whole_numbers_may_have_zeros_behind_a_point(levels: list[str], cell: str, place: int | None) -> None:
    declaration = {"kind": "ordinal", "levels": levels}
    if place is None:
        assert problem(declaration, cell).column == "x"
    else:
        assert value(declaration, cell) == [place]


def test_a_code_is_known_among_32_bit_numbers() -> None:
    codes = NUMBER | {"missing_codes": [-9.9, 1e300]}
    for cell in (np.float32(-9.9), float(np.float32(-9.9)), -9.9, "-9.9"):
        assert np.isnan(value(codes, cell)).all()
    for cell in ("-9.899999618530273", -9.9000001, 0.0):
        assert not np.isnan(value(codes, cell)).any()


def test_what_nobody_must_pass_on_stays_out_of_what_is_kept() -> None:
    cells = ["kryptonite", "7351 zg", "<7351", "7'351", "7351,25", "7351,2"]
    for declaration in (NUMBER, KILO, NUMBER | {"thousands": ","}, NUMBER | {"comparisons": "half", "range": [0, 9]}):
        for cell in cells:
            kept = problem(declaration, cell).expected
            assert "735" not in kept
            assert "zg" not in kept
            assert "krypto" not in kept
