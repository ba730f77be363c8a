# SPDX-License-Identifier: Apache-2.0
"""What holds for every schema, every record that it admits, and every single damaged cell."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from persam_monai.clinical import ClinicalSchema
from tests.clinical.drawing import DATES, Kind, Meaning, Options, kinds, options

CHECKED = settings(max_examples=150, deadline=None, derandomize=True)


@st.composite
def schemas(draw: st.DrawFn) -> tuple[ClinicalSchema, Options, dict[str, Kind]]:
    """A schema of one to three groups, with its variables as they were drawn."""
    common = draw(options())
    groups = draw(st.lists(st.lists(kinds(common), min_size=1, max_size=4), min_size=1, max_size=3))
    named = {f"g{i}": {f"v{i}_{j}": kind for j, kind in enumerate(group)} for i, group in enumerate(groups)}
    declared = {name: {key: kind.declaration for key, kind in group.items()} for name, group in named.items()}
    data: dict[str, Any] = {"classes": ["a", "b"], **common.declared(), "groups": declared}
    variables = {key: kind for group in named.values() for key, kind in group.items()}
    return ClinicalSchema.from_dict(data), common, variables


def record(draw: Callable[..., Any], variables: dict[str, Kind]) -> dict[str, Meaning]:
    return {name: draw(kind.good()) for name, kind in variables.items()}


@CHECKED
@given(st.data())
def test_cells_become_their_numbers_and_come_back_as_one_spelling(data: st.DataObject) -> None:
    schema, common, variables = data.draw(schemas())
    drawn = record(data.draw, variables)
    vector = schema.encode({name: each.cell for name, each in drawn.items()}, "drawn", common.table)
    numbers = [number for each in drawn.values() for number in each.numbers]
    np.testing.assert_allclose(vector, np.array(numbers, np.float32), rtol=2e-7)
    described = schema.describe(vector)
    assert described == {name: each.canonical for name, each in drawn.items()}
    np.testing.assert_array_equal(schema.encode(described, "described"), vector)


@CHECKED
@given(st.data())
def test_one_damaged_cell_is_one_problem_of_its_column(data: st.DataObject) -> None:
    schema, common, variables = data.draw(schemas())
    cells = {name: each.cell for name, each in record(data.draw, variables).items()}
    name = data.draw(st.sampled_from(list(variables)))
    whole, _ = schema.encode_cells({**cells, name: None}, common.table)
    for cell in variables[name].damaged():
        vector, problems = schema.encode_cells({**cells, name: cell}, common.table)
        assert [problem.column for problem in problems] == [name], cell
        assert "qzx" not in problems[0].expected
        assert ("not a date" in problems[0].expected) is (cell in DATES)
        np.testing.assert_array_equal(vector, whole)  # nothing of this variable, and the others as they were


@CHECKED
@given(
    st.floats(width=32, allow_nan=False, allow_infinity=False), st.sampled_from(["none", "log"]), st.sampled_from(".,")
)
def test_any_number_comes_back_as_a_cell_of_the_same_vector(value: float, transform: str, decimal: str) -> None:
    assume(transform == "none" or value > 0)
    bounded = {"range": [value, value + abs(value) + 1]} if abs(value) < 1e30 else {}
    for declared in ({}, bounded, {"missing_codes": [value]}):
        variable = {"kind": "numeric", "transform": transform, "decimal": decimal, "unit": "g", "units": {"g": 1}}
        schema = ClinicalSchema.from_dict({"classes": ["a", "b"], "groups": {"g": {"x": variable | declared}}})
        vector = schema.encode({"x": f"{value!r} g".replace(".", decimal)}, "drawn")  # with its unit it is no code
        np.testing.assert_allclose(vector, np.float32(math.log(value) if transform == "log" else value), rtol=2e-7)
        np.testing.assert_array_equal(schema.encode(schema.describe(vector), "described"), vector)


@CHECKED
@given(schemas())
def test_a_schema_survives_json(drawn: tuple[ClinicalSchema, Options, dict[str, Kind]]) -> None:
    schema = drawn[0]
    again = ClinicalSchema.from_dict(json.loads(json.dumps(schema.to_dict())))
    assert again == schema
    assert again.to_dict() == schema.to_dict()
    assert [size for sizes in again.variable_sizes for size in sizes] == [kind.width for kind in drawn[2].values()]
