# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persam_monai.clinical import ClinicalSchema
from persam_monai.errors import UserError

GOOD = """\
classes: [DLBCL, FL]
groups:
  interview:
    age: {kind: numeric, unit: years, range: [0, 120]}
    sex:
      kind: categorical
      levels: [female, male]
  blood:
    ldh: {kind: numeric, transform: log}
"""


def loaded(folder: Path, text: str) -> ClinicalSchema:
    (folder / "clinical.yaml").write_text(text, encoding="utf-8")
    return ClinicalSchema.load(folder / "clinical.yaml")


def variable(declared: str, top: str = "") -> str:
    return f"classes: [a, b]\n{top}\ngroups:\n  g:\n    x: {declared}\n"


def test_a_file_loads_as_its_mapping_does(tmp_path: Path) -> None:
    schema = loaded(tmp_path, "\ufeff" + GOOD)
    assert schema == ClinicalSchema.from_dict(json.loads(json.dumps(schema.to_dict())))
    assert schema.classes == ("DLBCL", "FL")
    assert schema.variable_names == ["age", "sex", "ldh"]
    assert schema.component_names == ["age", "sex=female", "sex=male", "ldh"]
    assert schema.group_sizes == [3, 1]
    assert schema.variable_sizes == [[1, 2], [1]]
    assert schema.slices == {"age": slice(0, 1), "sex": slice(1, 3), "ldh": slice(3, 4)}


def test_a_trained_models_file_has_the_schema_in_it(tmp_path: Path) -> None:
    schema = loaded(tmp_path, GOOD)
    (tmp_path / "model.json").write_text(json.dumps({"format": 1, "schema": schema.to_dict()}))
    assert ClinicalSchema.load(tmp_path / "model.json") == schema


def test_a_record_is_encoded_and_described() -> None:
    schema = ClinicalSchema.from_dict(
        {
            "classes": ["a", "b"],
            "decimal": ",",
            "groups": {"g": {"age": {"kind": "numeric"}, "sex": {"kind": "binary", "levels": ["f", "m"]}}},
        }
    )
    vector = schema.encode({"age": "63,50"}, "--record")
    np.testing.assert_array_equal(vector, np.array([63.5, math.nan], np.float32))
    assert schema.describe(vector) == {"age": "63,5", "sex": ""}
    with pytest.raises(UserError) as caught:
        schema.encode({"age": "old", "sexx": "f"}, "--record")
    for part in ("--record", '"age": found "old"', '"sexx"', 'mean "sex"'):
        assert part in str(caught.value)


def test_a_table_that_differs_brings_its_own_decimal_sign() -> None:
    schema = ClinicalSchema.from_dict(
        {"classes": ["a", "b"], "decimal": ",", "thousands": ".", "groups": {"g": {"x": {"kind": "numeric"}}}}
    )
    for rules, cell in ((schema.rules(), "1.234,5"), (schema.rules("."), "1,234.5")):
        assert schema.encode_cells({"x": cell}, rules)[0][0] == 1234.5


# Schema, and parts of the message.
FAULTS: list[tuple[str, tuple[str, ...]]] = [
    ("", ("found nothing", "classes and groups")),
    ("[1, 2]", ("classes and groups",)),
    ("classes: [a, b", ("not valid YAML", "quotes")),
    ("classes: [a, b]", ("groups: is missing",)),
    ("classes: [a, b]\ngroups: {}", ("line 2, groups", "at least one")),
    ("classes: [a, b]\ngroups: {g: {}}", ("groups.g", "at least one")),
    (GOOD.replace("[DLBCL, FL]", "[DLBCL]"), ("line 1, classes", "at least 2")),
    (GOOD.replace("[DLBCL, FL]", "[FL, FL]"), ("line 1, classes", "FL is listed twice")),
    (GOOD.replace("[DLBCL, FL]", "[FL, no]"), ("line 1, classes", "found False", "put it in quotes")),
    (GOOD.replace("[DLBCL, FL]", "[FL, NA]"), ("line 1, classes", "missing value")),
    (GOOD.replace("[DLBCL, FL]", "[FL, 2024-01-01]"), ("line 1, classes", "quotes")),
    (GOOD.replace("[DLBCL, FL]", "[FL, ' x']"), ("line 1, classes", "spaces")),
    (GOOD.replace("classes:", "clases:"), ("line 1, clases: unknown key", 'mean "classes"', "classes: is missing")),
    (GOOD.replace("unit:", "unti:"), ("line 4, groups.interview.age.unti: unknown key", 'mean "unit"')),
    (GOOD.replace("categorical", "categoric"), ("line 6, groups.interview.sex.kind", 'mean "categorical"')),
    (GOOD.replace("ldh:", "age:"), ("line 9, groups.blood.age", "groups.interview")),
    (GOOD.replace("sex:", "age:"), ("line 5, groups.interview.age: is in line 4",)),
    (GOOD.replace("ldh:", "Fold:"), ("line 9, groups.blood.Fold", "rename")),
    (GOOD.replace("ldh:", "on:"), ("groups.blood", "bad name", "quotes")),
    (variable("{unit: g}"), ("line 5, groups.g.x: has no kind", "numeric, binary, categorical, ordinal")),
    (variable("numeric"), ("line 5, groups.g.x", 'found "numeric"')),
    (variable("{kind: numeric, unit: 1}"), ("groups.g.x.unit", "found 1")),
    (variable("{kind: numeric, range: [9, 0]}"), ("groups.g.x", "the lower one first")),
    (variable("{kind: numeric, range: [0, .inf]}"), ("groups.g.x", "finite")),
    (variable("{kind: numeric, range: [0]}"), ("groups.g.x.range",)),
    (variable("{kind: numeric, range: 9}"), ("groups.g.x.range", "found 9")),
    (variable("{kind: numeric, transform: ln}"), ("groups.g.x.transform", 'found "ln"', "log")),
    (variable("{kind: numeric, transform: log, range: [-2, 0]}"), ("groups.g.x", "no positive value")),
    (variable("{kind: numeric, comparisons: third}"), ("groups.g.x.comparisons", 'found "third"', "half")),
    (variable("{kind: ordinal}"), ("groups.g.x.levels: is missing",)),
    (variable("{kind: ordinal, levels: {I: 1}}"), ("groups.g.x.levels",)),
    (variable("{kind: ordinal, levels: [yes, 1.5]}"), ("groups.g.x.levels", "found True", "found 1.5")),
    (variable("{kind: binary, levels: [a, b, c]}"), ("groups.g.x.levels", "exactly 2")),
    (variable("{kind: categorical, levels: [a, Other], other: true}"), ("groups.g.x", "other: true adds")),
    (variable("{kind: categorical, levels: [a, b], other: maybe}"), ("groups.g.x.other", 'found "maybe"')),
    (variable("{kind: numeric}", "decimal: ';'"), ("line 2, decimal", 'found ";"')),
    (variable("{kind: numeric}", "thousands: '.'"), ("line 2, thousands", "decimal")),
    (variable("{kind: numeric}", "missing_codes: -9"), ("line 2, missing_codes", "found -9")),
    (variable("{kind: numeric}", "missing_codes: [no]"), ("line 2, missing_codes", "quotes")),
    (variable("{kind: numeric, missing_codes: [.inf]}"), ("groups.g.x.missing_codes", "finite")),
    (variable("{kind: ordinal, levels: [1, 9], missing_codes: [9]}"), ("g.x.missing_codes", "found 9", "answer of x")),
    (variable("{kind: binary}", "missing_codes: [0]"), ("missing_codes", "found 0", "answer of x")),
    (variable("{kind: numeric, range: [0, 120]}", "missing_codes: [99]"), ("missing_codes: found 99", "range of x")),
]


@pytest.mark.parametrize(("text", "parts"), FAULTS)
def test_a_fault_is_named_with_file_line_key_and_cure(tmp_path: Path, text: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as caught:
        loaded(tmp_path, text)
    for part in ("clinical.yaml", *parts):
        assert part in str(caught.value)


def test_all_faults_come_together(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        loaded(tmp_path, GOOD.replace("[DLBCL, FL]", "[FL]").replace("[0, 120]", "[0]").replace("log", "ln"))
    for key in ("classes", "groups.interview.age.range", "groups.blood.ldh.transform"):
        assert key in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        ClinicalSchema.load(tmp_path / "clinical.yaml")
    (tmp_path / "clinical.yaml").write_bytes(GOOD.replace("age", "größe").encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        ClinicalSchema.load(tmp_path / "clinical.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        ClinicalSchema.load(tmp_path)


LEVELS = st.lists(
    st.sampled_from(["a", "A", "II", "Grade 3b", "-", "+", "3", "a, b", "größer"]), min_size=2, unique=True
)
NUMERIC = st.fixed_dictionaries(
    {"kind": st.just("numeric")},
    optional={"transform": st.just("log"), "range": st.just([1e-3, 1e6]), "unit": st.just("g/L")},
)
VARIABLE: st.SearchStrategy[dict[str, Any]] = st.one_of(
    NUMERIC,
    st.just({"kind": "binary"}),
    st.builds(lambda levels: {"kind": "ordinal", "levels": levels}, LEVELS),
    st.builds(lambda levels, other: {"kind": "categorical", "levels": levels, "other": other}, LEVELS, st.booleans()),
)


@given(st.dictionaries(st.text("vwxyz", min_size=1), VARIABLE, min_size=1), st.sampled_from(".,"), st.data())
def test_what_describes_a_record_becomes_the_same_record(
    declared: dict[str, dict[str, Any]], decimal: str, data: st.DataObject
) -> None:
    schema = ClinicalSchema.from_dict({"classes": ["a", "b"], "decimal": decimal, "groups": {"g": declared}})
    assert ClinicalSchema.from_dict(schema.to_dict()) == schema
    record: dict[str, object] = {}
    for name, each in declared.items():
        known: st.SearchStrategy[object] = st.floats(1e-3, 1e6)
        if "levels" in each:
            known = st.sampled_from([*each["levels"], *(["elsewhere"] if each.get("other") else [])])
        elif each["kind"] == "binary":
            known = st.sampled_from(["yes", "N", 1, False])
        record[name] = data.draw(st.one_of(st.none(), known))
    vector = schema.encode(record, "here")
    assert [bool(np.isnan(vector[here]).all()) for here in schema.slices.values()] == [
        record[name] is None for name in schema.slices
    ]
    np.testing.assert_array_equal(schema.encode(schema.describe(vector), "here"), vector)
