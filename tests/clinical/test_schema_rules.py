# SPDX-License-Identifier: Apache-2.0
"""A catalogue of what bundle/docs/clinical.md forbids in a schema and in cells, rule by rule."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persam_monai.clinical import ClinicalSchema
from persam_monai.errors import UserError

DOCUMENT = Path(__file__).parents[2] / "bundle" / "docs" / "clinical.md"
CURES = "add|choose|correct|declare|give|keep|put|quote|remove|rename|save|write"
CURE = re.compile(rf"\bexpected\b|(?:^|[,;:.(] )(?:{CURES})\b", re.IGNORECASE)


def schema(*variables: str, top: str = "") -> str:
    """A schema of one group; the variables stand in lines 3, 4, ..."""
    return "classes: [a, b]\ngroups: {g: {\n" + ",\n".join(variables) + f"\n}}}}\n{top}"


NUMBER, BINARY = "x: {kind: numeric}", "yn: {kind: binary}"

FAULTS: list[tuple[str, str, list[str]]] = [
    ("S1", "classes: [a, b\n", ["not valid YAML: line 2", "expected"]),
    ("S1", schema("x: {kind: numeric, unit: %}"), ["not valid YAML: line 3", "Quote text"]),
    ("S1", schema(NUMBER, NUMBER), ["line 4, groups.g.x: stands in line 3 already", "rename or remove"]),
    ("S1", schema("010: {kind: numeric}"), ["line 3, groups.g.010: found the name 010", 'put it in quotes ("010")']),
    ("S1", schema("x: {kind: numeric, kind: binary}"), ["line 3, groups.g.x.kind: stands in line 3 already"]),
    ("S2", schema(NUMBER, top="missing: learned"), ["line 5, missing: unknown key", "--missing learned"]),
    ("S2", schema(NUMBER, top="clases: [a, b]"), ["line 5, clases: unknown key", 'Did you mean "classes"?']),
    ("S2", schema(NUMBER, top="missing_values: [-9]"), ["missing_values: unknown key", "Write missing_codes: [-9]"]),
    ("S2", schema("x: {kind: numeric, missing: median}"), ["g.x.missing: unknown key", "--missing learned"]),
    ("S2", schema("x: {kind: numeric, min: 0, max: 9}"), ["g.x.min", "g.x.max", "Write range: [lowest, highest]"]),
    ("S2", schema("x: {kind: numeric, log: true}"), ["g.x.log", "Write transform: log"]),
    ("S2", schema("x: {kind: ordinal, values: [I, II]}"), ["g.x.values", "Write levels: ", "g.x.levels: is missing"]),
    ("S2", schema("x: {kind: binary, range: [0, 1]}"), ["g.x.range: unknown key for kind binary"]),
    ("S2", schema("x: {kind: ordinal, levels: [I, II], other: true}"), ["g.x.other: unknown key for kind ordinal"]),
    ("S2", schema("x: {kind: categorical, levels: [I, II], units: {g: 1}}"), ["g.x.units: unknown key"]),
    ("S3", "groups: {g: {x: {kind: numeric}}}", ["classes: is missing"]),
    ("S3", schema(NUMBER).replace("[a, b]", "[a]"), ["line 1, classes: found 1", "at least 2"]),
    ("S3", schema("x: {kind: categorical, levels: [a]}"), ["line 3, groups.g.x.levels: found 1", "at least 2"]),
    ("S3", schema("x: {kind: categorical}"), ["groups.g.x.levels: is missing", "expected a list"]),
    ("S3", schema("x: {kind: ordinal}"), ["groups.g.x.levels: is missing", "expected a list"]),
    ("S3", schema("x: {kind: ordinal, levels: {I: 1}}"), ["groups.g.x.levels", "expected a list"]),
    ("S3", schema("x: {kind: binary, levels: [a, b, c]}"), ["groups.g.x.levels: found 3", "exactly 2"]),
    ("S3", schema("x: {kind: ordinal, levels: [I, I]}"), ['the level "I" stands twice', "remove one"]),
    ("S3", schema("x: {kind: binary, levels: [no, yes]}"), ["found false", 'quote it, such as "yes"']),
    ("S3", schema("x: {kind: ordinal, levels: [a, 2024-01-01]}"), ["found 2024-01-01", "quote it"]),
    ("S3", schema("x: {kind: ordinal, levels: [1.5, a]}"), ["found 1.5", 'quote it, such as "1.5"']),
    ("S3", schema("x: {kind: ordinal, levels: [null, a]}"), ["found nothing", "expected a name"]),
    ("S3", schema("x: {kind: ordinal, levels: [' a', b]}"), ['found " a"', "remove the spaces"]),
    ("S3", schema("x: {kind: ordinal, levels: ['#N/A', b]}"), ['found "#N/A"', "missing value", "choose another"]),
    ("S4", "classes: [a, b]", ["groups: is missing", "expected at least one group"]),
    ("S4", "classes: [a, b]\ngroups: {}", ["line 2, groups: found nothing", "expected at least one"]),
    ("S4", "classes: [a, b]\ngroups:\n  g:\n", ["line 3, groups.g: found nothing", "expected variables"]),
    ("S5", "classes: [a, b]\ngroups: {g: {x: {kind: binary}}, h: {x: {kind: binary}}}", ["groups.h.x", "groups.g"]),
    ("S5", schema("fold: {kind: numeric}"), ["groups.g.fold", "rename the variable"]),
    ("S5", schema("patient_id: {kind: numeric}"), ["groups.g.patient_id", "rename the variable"]),
    ("S5", schema("x: {unit: g}"), ["groups.g.x: has no kind", "numeric, binary, categorical, ordinal"]),
    ("S5", schema("x: {kind: boolean}"), ["groups.g.x.kind", 'Did you mean "binary"?']),
    ("S5", schema("x: {kind: ordinale}"), ["groups.g.x.kind", 'Did you mean "ordinal"?']),
    ("S5", schema("x: numeric"), ["groups.g.x", 'found "numeric"', "expected a mapping"]),
    ("S5", schema("no: {kind: numeric}"), ["bad name: found false", "quote it"]),
    ("S6", schema("x: {kind: numeric, unit: 1}"), ["groups.g.x.unit: found 1", "in quotes"]),
    ("S6", schema("x: {kind: numeric, unit: }"), ["groups.g.x.unit: found nothing", "expected text"]),
    ("S6", schema("x: {kind: numeric, range: [9, 0]}"), ["groups.g.x.range: found [9, 0]", "lowest below highest"]),
    ("S6", schema("x: {kind: numeric, range: [0, .inf]}"), ["groups.g.x.range", "finite"]),
    ("S6", schema("x: {kind: numeric, range: 9}"), ["groups.g.x.range: found 9", "two plain numbers"]),
    ("S6", schema("x: {kind: numeric, transform: ln}"), ["groups.g.x.transform", 'found "ln"', "log or none"]),
    ("S6", schema("x: {kind: numeric, transform: log, range: [-2, 0]}"), ["groups.g.x.range", "no positive value"]),
    ("S7", schema("x: {kind: numeric, units: {g: 1}}"), ["groups.g.x.units: needs unit", "add it"]),
    ("S7", schema("x: {kind: numeric, unit: g, units: {g: 2}}"), ["groups.g.x.units: found 2 for g", "factor 1"]),
    ("S7", schema("x: {kind: numeric, unit: g, units: {kg: -1}}"), ["found -1 for kg", "above 0"]),
    ("S7", schema("x: {kind: numeric, unit: g, units: {kg: many}}"), ['found "many" for kg', "expected the number"]),
    ("S7", schema("x: {kind: numeric, unit: g, units: {kg: yes}}"), ["found True for kg", "expected the number"]),
    ("S7", schema("x: {kind: numeric, unit: g, units: {'5': 1}}"), ['found "5"', "which is a number"]),
    ("S7", schema("x: {kind: numeric, unit: g, units: {5: 1}}"), ["found 5", "as text"]),
    ("S7", schema("x: {kind: numeric, unit: g, units: [g, kg]}"), ["groups.g.x.units", "each unit with its factor"]),
    ("S8", schema("x: {kind: numeric, comparisons: third}"), ['g.x.comparisons: found "third"', "limit or half"]),
    ("S8", schema("x: {kind: numeric, comparisons: true}"), ["g.x.comparisons: found True", "limit or half"]),
    ("S9", schema("x: {kind: numeric, decimal: comma}"), ['groups.g.x.decimal: found "comma"', '"." or ","']),
    ("S9", schema(NUMBER, top="decimal: ';'"), ['line 5, decimal: found ";"', '"." or ","']),
    ("S9", schema(NUMBER, top="thousands: _"), ['line 5, thousands: found "_"', 'expected "," or "."']),
    ("S9", schema("x: {kind: numeric, thousands: '.'}"), ["groups.g.x.thousands", "correct decimal or thousands"]),
    ("S9", schema(NUMBER, top="thousands: '.'"), ["line 5, thousands", "unless decimal says otherwise"]),
    ("S9", schema(NUMBER, top="{decimal: ',', thousands: ','}"[1:-1].replace(", t", "\nt")), ["line 6, thousands"]),
    ("S9", schema("x: {kind: numeric, decimal: ','}", top="thousands: ','"), ["groups.g.x.decimal", "correct"]),
    ("S9", schema("x: {kind: numeric, thousands: ','}", top="decimal: ','"), ["groups.g.x.thousands", "correct"]),
    ("S10", schema(NUMBER, top="missing_codes: -9"), ["line 5, missing_codes: found -9", "expected a list"]),
    ("S10", schema(NUMBER, top="missing_codes: [no]"), ["missing_codes: found false", "quote it"]),
    ("S10", schema("x: {kind: numeric, missing_codes: [.inf]}"), ["g.x.missing_codes: found inf", "finite"]),
    ("S10", schema("x: {kind: numeric, missing_codes: [[1]]}"), ["g.x.missing_codes: found [1]", "quote it"]),
    ("S10", schema("x: {kind: ordinal, levels: [1, 9], missing_codes: [9]}"), ["g.x.missing_codes: found 9", "level"]),
    ("S10", schema("x: {kind: binary, levels: [u, v]}", top="missing_codes: [U]"), ['missing_codes: found "U"']),
    ("S10", schema(BINARY, top="missing_codes: [0]"), ["missing_codes: found 0", "an answer of yn"]),
    ("S10", schema("x: {kind: numeric, range: [0, 120]}", top="missing_codes: [99]"), ["range of x", "variables that"]),
    ("S11", schema("x: {kind: categorical, levels: [a, b], other: 1}"), ["groups.g.x.other: found 1", "true or false"]),
    ("S11", schema("x: {kind: categorical, levels: [a, Other], other: true}"), ["groups.g.x.levels", "remove"]),
    ("S11", schema("x: {kind: categorical, levels: [a, b], other: true, missing_codes: [other]}"), ["an answer of x"]),
]


@pytest.mark.parametrize(("rule", "text", "parts"), FAULTS)
def test_a_broken_rule_of_the_schema_is_told_with_its_cure(
    tmp_path: Path, rule: str, text: str, parts: list[str]
) -> None:
    path = tmp_path / "clinical.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        ClinicalSchema.load(path)
    message = str(caught.value)
    assert str(path) in message
    for part in parts:
        assert part in message
    for line in message.splitlines()[1:] or [message]:
        assert CURE.search(line), line


def test_a_schema_in_another_encoding_is_told_to_be_saved_as_utf8(tmp_path: Path) -> None:  # S1
    path = tmp_path / "clinical.yaml"
    path.write_bytes(schema("größe: {kind: numeric}").encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8 text; save it again with the encoding UTF-8"):
        ClinicalSchema.load(path)


CRP = {"kind": "numeric", "unit": "mg/L", "units": {"mg/L": 1, "mg/dL": 10, "g/L": 1000}}
SITE = {"kind": "categorical", "levels": ["neck", "groin"]}
LOG, DAY = {"kind": "numeric", "transform": "log"}, datetime.date(2024, 3, 1)
NAN = math.nan

Case = tuple[str, dict[str, Any], dict[str, Any], object, list[float] | str]


def cases(
    rule: str, declaration: dict[str, Any], cells: Iterable[object], outcome: list[float] | str
) -> Iterator[Case]:
    """Several cells with one outcome, under a schema that declares nothing for all variables."""
    return ((rule, declaration, {}, cell, outcome) for cell in cells)


# rule, declaration of x, what holds for all variables, cell, and its numbers or what is told
CELLS: list[Case] = [
    *cases("C1", {"kind": "numeric"}, ("", " ", "na", "#N/A", "<NA>", "null", ".", "—", "?"), [NAN]),
    *cases("C1", SITE, ("Unknown", "NOT KNOWN", "not available", "missing", "-", "–"), [NAN, NAN]),
    ("C1", {"kind": "binary", "levels": ["-", "+"]}, {}, "-", [0]),
    ("C1", {"kind": "categorical", "levels": ["known", "unknown"]}, {}, "Unknown", [0, 1]),
    ("C1", {"kind": "numeric"}, {}, "none", "a number, or an empty cell"),
    ("C2", {"kind": "numeric", "missing_codes": [-9]}, {}, "-9.0", [NAN]),
    ("C2", {"kind": "numeric", "missing_codes": [-9]}, {}, -9.0, [NAN]),
    ("C2", {"kind": "numeric", "missing_codes": [-9], "decimal": ","}, {}, "-9,00", [NAN]),
    ("C2", {"kind": "numeric", "missing_codes": [99], "range": [0, 120]}, {}, "99", [NAN]),
    ("C2", {"kind": "numeric"}, {"missing_codes": ["k. A."]}, "K. a.", [NAN]),
    ("C2", {"kind": "ordinal", "levels": [1, 2]}, {"missing_codes": [9]}, "9.0", [NAN]),
    ("C2", {"kind": "binary", "missing_codes": ["9"]}, {}, 9, [NAN]),
    ("C2", {"kind": "numeric", "missing_codes": [-9], "range": [0, 9]}, {}, "-8", "a number from 0 to 9"),
    *cases("C3", {"kind": "numeric"}, ("-1500", " -1500. ", "-1.5e3", "-1.5E+3", -1500), [-1500]),
    ("C3", {"kind": "numeric"}, {}, "+.5", [0.5]),
    *cases("C3", {"kind": "numeric"}, ("1_000", "१२", "--1", "0x10", "1e", "inf", "1 2"), "a number"),
    ("C3", {"kind": "numeric"}, {}, "1e999", "a finite number"),
    ("C4", {"kind": "numeric", "decimal": ","}, {}, "1,5", [1.5]),
    ("C4", {"kind": "numeric"}, {"decimal": ","}, "-,5e1", [-5]),
    ("C4", {"kind": "numeric", "decimal": "."}, {"decimal": ","}, "1.5", [1.5]),
    (
        "C4",
        {"kind": "numeric"},
        {},
        "1,5",
        "a decimal point, such as 1.5, and no comma (if the comma is meant, declare",
    ),
    ("C4", {"kind": "numeric"}, {"decimal": ","}, "1.5", "a decimal comma, such as 1,5, and no point"),
    ("C5", {"kind": "numeric", "thousands": ","}, {}, "1,234,567.5", [1234567.5]),
    ("C5", {"kind": "numeric", "thousands": ","}, {}, "1234567.5", [1234567.5]),
    ("C5", {"kind": "numeric"}, {"thousands": ".", "decimal": ","}, "-1.234,5", [-1234.5]),
    ("C5", {"kind": "numeric"}, {"thousands": " "}, "12\u202f345", [12345]),
    ("C5", {"kind": "numeric"}, {"thousands": "'"}, "12’345", [12345]),
    ("C5", {"kind": "numeric"}, {}, "1,200", 'declare decimal: "," or thousands: "," in the schema'),
    ("C5", {"kind": "numeric"}, {}, "1 234 567", "declare thousands: in the schema"),
    ("C5", {"kind": "numeric"}, {"thousands": ","}, "12,34", "a number"),
    ("C5", {"kind": "numeric"}, {"thousands": ","}, "0,123", "a number"),
    ("C5", {"kind": "numeric"}, {"thousands": ","}, "1234,567", "a number"),
    *cases("C6", CRP, ("25", "25 mg/L", "2.5mg/dL", "0.025 g/L", 25), [25]),
    ("C6", {"kind": "numeric", "unit": "/nL", "units": {"10^9/L": 1}}, {}, "5.2 10^9/L", [5.2]),
    ("C6", {"kind": "numeric", "unit": "\u00b5g", "units": {"\u00b5g": 1}}, {}, "5 \u03bcg", [5]),
    ("C6", CRP, {}, "25 mg/l", "alone or with one of the units mg/L, mg/dL, g/L; correct the cell, or add"),
    ("C6", CRP, {}, "2,5 mg/L", "a decimal point"),
    ("C6", {"kind": "numeric", "unit": "U/L"}, {}, "250 U/L", "a number in U/L without the unit; if cells have units"),
    ("C6", {"kind": "numeric"}, {}, "12 years", "a number without a unit; if cells have units, declare"),
    *cases("C7", {"kind": "numeric", "comparisons": "limit"}, ("<5", "≤ 5", ">=5", "≥5", "5"), [5]),
    *cases("C7", {"kind": "numeric", "comparisons": "half"}, ("<5", "≤5", "<= 5", "> 2.5"), [2.5]),
    ("C7", CRP | {"comparisons": "half"}, {"decimal": ","}, "<0,5 mg/dL", [2.5]),
    ("C7", {"kind": "numeric", "comparisons": "half"}, {}, "<-5", "from 0 up"),
    ("C7", {"kind": "numeric"}, {}, "<5", "without a comparison sign; if the column has limits of detection, declare"),
    ("C8", CRP | {"range": [0, 100]}, {}, "10 mg/dL", [100]),
    ("C8", CRP | {"range": [0, 100]}, {}, "11 mg/dL", "a number from 0 to 100 mg/L (is the unit right?"),
    ("C8", {"kind": "numeric", "range": [5, 9], "comparisons": "half"}, {}, "<8", "a number from 5 to 9"),
    ("C8", LOG | {"range": [1, 100]}, {}, "100", [math.log(100)]),
    ("C8", LOG, {}, "0", "above 0, because the schema says transform: log"),
    *cases("C9", {"kind": "binary"}, ("yes", "Y", "TRUE", "1", "1.0", 1, True, np.True_), [1]),
    *cases("C9", {"kind": "binary"}, ("No", "n", "false", "0", 0.0, False), [0]),
    ("C9", {"kind": "binary"}, {}, "2", "yes or no"),
    ("C9", {"kind": "binary", "levels": ["f", "m"]}, {}, "M", [1]),
    ("C9", {"kind": "binary", "levels": ["1", "2"]}, {}, 2.0, [1]),
    ("C9", {"kind": "binary", "levels": ["f", "m"]}, {}, "yes", "one of f, m"),
    ("C9", {"kind": "binary", "levels": ["f", "m"]}, {}, True, "one of f, m"),
    ("C10", SITE, {}, " Groin", [0, 1]),
    ("C10", SITE, {}, "groyn", "one of neck, groin; write the level as declared, or add it to levels"),
    ("C10", SITE | {"other": True}, {}, "elbow", [0, 0, 1]),
    ("C10", SITE | {"other": True}, {}, "Other", [0, 0, 1]),
    ("C10", SITE | {"other": True}, {}, "NECK", [1, 0, 0]),
    ("C10", SITE | {"other": True}, {}, "unknown", [NAN, NAN, NAN]),
    ("C10", SITE | {"other": True}, {}, DAY, "text, not a date; format the column as text"),
    ("C10", SITE | {"other": True}, {}, ["neck"], "text, a number or a truth value"),
    ("C10", {"kind": "categorical", "levels": ["a", "A", "b"]}, {}, "A", [0, 1, 0]),
    ("C10", {"kind": "ordinal", "levels": ["ab", "AB", "c"]}, {}, "Ab", "one of ab, AB, c"),
    ("C10", {"kind": "ordinal", "levels": ["I", "II", "III"]}, {}, "iii", [2]),
    ("C10", {"kind": "ordinal", "levels": ["I", "II", "III"]}, {}, "IV", "one of I, II, III"),
    ("C10", {"kind": "numeric"}, {}, DAY, "a number, not a date; format the column as numbers"),
    ("C10", {"kind": "binary"}, {}, datetime.datetime(2024, 3, 1), "text, not a date; format the column as text"),
]


@pytest.mark.parametrize(("rule", "declaration", "top", "cell", "outcome"), CELLS)
def test_a_rule_of_cells_gives_numbers_or_an_error_with_its_cure(
    rule: str, declaration: dict[str, Any], top: dict[str, Any], cell: object, outcome: list[float] | str
) -> None:
    schema = ClinicalSchema.from_dict({"classes": ["a", "b"], **top, "groups": {"g": {"x": declaration}}})
    vector, problems = schema.encode_cells({"x": cell})
    if isinstance(outcome, str):
        assert [problem.column for problem in problems] == ["x"]
        assert outcome in problems[0].expected
        assert CURE.search(str(problems[0]))
        assert np.isnan(vector).all()
    else:
        assert problems == []
        np.testing.assert_array_equal(vector, np.array(outcome, np.float32))


def test_every_rule_of_the_document_stands_in_the_catalogue() -> None:
    told = set(re.findall(r"^\| ([SC][0-9]+) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE))
    assert told == {entry[0] for entry in FAULTS} | {entry[0] for entry in CELLS}
