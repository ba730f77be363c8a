# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

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


def complaint(path: Path, text: str) -> str:
    path.write_text(dedent(text), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        ClinicalSchema.load(path)
    message = str(caught.value)
    assert str(path) in message
    return message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "clinical.yaml"


def test_a_file_loads_as_its_mapping_does(path: Path) -> None:
    path.write_text("\ufeff" + GOOD, encoding="utf-8")
    schema = ClinicalSchema.load(path)
    assert schema == ClinicalSchema.from_dict(schema.to_dict())
    assert schema.variable_names == ["age", "sex", "ldh"]
    assert schema.group_sizes == [3, 1]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("classes: [DLBCL, FL]\n", "", ["classes: is missing"]),
        ("[DLBCL, FL]", "[DLBCL]", ["line 1, classes", "found 1", "at least 2"]),
        ("[DLBCL, FL]", "[FL, FL]", ["line 1, classes", '"FL" stands twice']),
        ("[DLBCL, FL]", "DLBCL", ["line 1, classes", 'found "DLBCL"', "a list"]),
        ("[DLBCL, FL]", "[DLBCL, no]", ["line 1, classes", "found false", "quote it"]),
        ("[DLBCL, FL]", "[DLBCL, NA]", ["line 1, classes", 'found "NA"', "missing value"]),
        ("[DLBCL, FL]", "[DLBCL, 2024-01-01]", ["line 1, classes", "quote it"]),
        ("[DLBCL, FL]", "[DLBCL, ' FL']", ["line 1, classes", "remove the spaces"]),
        ("classes:", "clases:", ["line 1, clases: unknown key", 'Did you mean "classes"?', "classes: is missing"]),
        (
            "  blood:\n    ldh: {kind: numeric, transform: log}\n",
            "  blood:\n",
            ["line 8, groups.blood", "found nothing"],
        ),
        ("kind: categorical", "kind: categoric", ["line 6, groups.interview.sex.kind", 'Did you mean "categorical"?']),
        (
            "kind: numeric, unit",
            "unit",
            ["line 4, groups.interview.age: has no kind", "numeric, binary, categorical, ordinal"],
        ),
        ("unit:", "unti:", ["line 4, groups.interview.age.unti: unknown key", 'Did you mean "unit"?']),
        ("unit:", "units:", ["line 4, groups.interview.age.units", 'found "years"', "with its factor"]),
        ("years", "1", ["line 4, groups.interview.age.unit", "found 1", 'put it in quotes: "1"']),
        ("[0, 120]", "[120, 0]", ["groups.interview.age.range", "found [120, 0]", "lowest below highest"]),
        ("[0, 120]", "[0]", ["groups.interview.age.range", "found [0]", "two plain numbers"]),
        ("[0, 120]", "[yes, 120]", ["groups.interview.age.range", "two plain numbers"]),
        ("[0, 120]", "[0, .inf]", ["groups.interview.age.range", "finite"]),
        ("transform: log", "transform: ln", ["line 9, groups.blood.ldh.transform", 'found "ln"', "log or none"]),
        ("transform: log", "transform: log, range: [-2, -1]", ["line 9, groups.blood.ldh.range", "no positive value"]),
        ("      levels: [female, male]\n", "", ["groups.interview.sex.levels: is missing"]),
        ("[female, male]", "[male, male]", ["line 7, groups.interview.sex.levels", '"male" stands twice']),
        ("[female, male]", "[yes, no]", ["line 7, groups.interview.sex.levels", "found true", 'such as "yes"']),
        ("ldh:", "mpp:", ["line 9, groups.blood.mpp", "rename the variable"]),
        ("ldh:", "age:", ["line 9, groups.blood.age", "stands in groups.interview already"]),
        ("ldh:", "on:", ["line 9, groups.blood.on: bad name: found true", 'quote it, such as "on"']),
        ("sex:", "age:", ["line 5, groups.interview.age", "stands in line 4 already"]),
        ("{kind: numeric, transform: log}", "numeric", ["line 9, groups.blood.ldh", "expected a mapping"]),
        ("years", "%", ["line 4", "not valid YAML", "Quote text"]),
        ("years", "2024-99-99", ["not valid YAML"]),
    ],
)
def test_each_fault_is_told_with_its_place_and_cure(path: Path, old: str, new: str, told: list[str]) -> None:
    assert GOOD.count(old) == 1
    message = complaint(path, GOOD.replace(old, new))
    for part in told:
        assert part in message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "found nothing"),
        ("[1, 2]", "found a list"),
        ("just words", 'found "just words"'),
        ("classes: [a, b]\n", "groups: is missing"),
        ("classes: [a, b]\ngroups: {}\n", "groups: found nothing"),
        ("classes: [a, b]\ngroups: [x]\n", "groups: found a list"),
        ("classes: [a, b\n", "not valid YAML: line 2"),
        ("classes: &a [*a, b]\n", "quote it"),
    ],
)
def test_files_that_are_no_schema(path: Path, text: str, told: str) -> None:
    assert told in complaint(path, text)


def test_all_faults_come_together(path: Path) -> None:
    faults = GOOD.replace("[DLBCL, FL]", "[DLBCL]").replace("[0, 120]", "[0]").replace("log", "ln")
    message = complaint(path, faults)
    for place in ("classes", "groups.interview.age.range", "groups.blood.ldh.transform"):
        assert place in message


def test_missing_and_unreadable_files(path: Path) -> None:
    with pytest.raises(UserError, match="no such file; expected the clinical schema"):
        ClinicalSchema.load(path)
    path.write_bytes("classes: [Übergang, b]".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        ClinicalSchema.load(path)
    with pytest.raises(UserError, match="cannot be read"):
        ClinicalSchema.load(path.parent)


def test_a_mapping_names_its_source_and_has_no_lines() -> None:
    with pytest.raises(UserError, match=r"(?s)^model\.json.*\n  - groups\.g\.x\.kind: ") as caught:
        ClinicalSchema.from_dict({"classes": ["a", "b"], "groups": {"g": {"x": {"kind": "no"}}}}, source="model.json")
    assert "line" not in str(caught.value)


def numeric(keys: str) -> str:
    return f"classes: [a, b]\ngroups:\n  g:\n    x: {{kind: numeric, {keys}}}\n"


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("range: [0, 1e3]", "range: found [0, '1e3']; \"1e3\" is text to YAML: write 1000."),
        ("range: ['0', 1e20]", '"0" is text to YAML: write 0; "1e20" is text to YAML: write 100000000000000000000.'),
        ("range: ['0,5', 9]", "write 0.5."),
        ("unit: g, units: {kg: 1e3}", 'units: found "1e3" for kg, which is text to YAML: write 1000.'),
        ("unit: g, units: {mg: '0.001'}", 'units: found "0.001" for mg, which is text to YAML: write 0.001.'),
        ("unit: g, units: {kg: 010}", "found 010, which YAML takes for another number; write it with plain decimal"),
        ("range: [0, 1:30]", "found 1:30, which YAML takes for another number"),
        ("missing_codes: [077]", 'found 077, which YAML takes for another number; put it in quotes ("077")'),
        ("missing_codes: [no]", 'found false, which YAML reads as neither number nor text; quote it, such as "no"'),
        ("unit: \u00b5g, units: {\u03bcg: 1000}", "found 1000 for \u03bcg, which is the variable's own unit"),
        ("unit: g, units: {\u00b5g: 1, \u03bcg: 2}", "\u03bcg stands twice, with the two signs for micro"),
        ("unit: g, units: {e3: 1000}", 'found "e3", which 5e3 has for its exponent; choose another'),
    ],
)
def test_numbers_that_yaml_reads_otherwise_are_told(path: Path, keys: str, told: str) -> None:
    message = complaint(path, numeric(keys))
    assert told in message
    assert "line 4, " in message
    assert message.count("\n") == 1  # and told once


@pytest.mark.parametrize("name", ["010", "0x1F", "1_0", "+5", "1:30", "1.50"])
def test_names_that_yaml_takes_for_another_number_are_told(path: Path, name: str) -> None:  # S1
    told = f'{name}: found the name {name}, which YAML takes for another number; put it in quotes ("{name}").'
    message = complaint(path, GOOD.replace("ldh:", f"{name}:"))
    assert message.splitlines()[1:] == [f"  - line 9, groups.blood.{told}"]
    message = complaint(path, GOOD.replace("blood:", f"{name}:"))
    assert message.splitlines()[1:] == [f"  - line 8, groups.{told}"]


@pytest.mark.parametrize("name", ["10", "0", "-9", "'010'", "08"])
def test_names_that_keep_their_digits_are_fine(path: Path, name: str) -> None:
    path.write_text(GOOD.replace("ldh:", f"{name}:"), encoding="utf-8")
    assert ClinicalSchema.load(path).variable_names[-1] == name.strip("'")


@pytest.mark.parametrize("keys", ["decimal: .", "range: [-1_000, +5.5e+3], missing_codes: [-9, +9, .5]"])
def test_what_yaml_reads_as_a_person_does_is_fine(path: Path, keys: str) -> None:
    path.write_text(numeric(keys), encoding="utf-8")
    assert ClinicalSchema.load(path).variable_names == ["x"]


@pytest.mark.parametrize("levels", ["[01, 02]", "[-1, +1]", "[1_0, 2_0]", "[0x1, 0x2]"])
def test_levels_that_yaml_would_write_anew_are_told(path: Path, levels: str) -> None:
    message = complaint(path, numeric("").replace("numeric, ", f"ordinal, levels: {levels}"))
    assert "line 4, levels: found" in message
    assert "put it in quotes" in message


@pytest.mark.parametrize("name", ["no", "YES", "Off"])
def test_a_name_that_is_a_truth_value_is_shown_as_it_stands(path: Path, name: str) -> None:
    message = complaint(path, GOOD.replace("ldh:", f"{name}:"))
    assert f"line 9, groups.blood.{name}: bad name: found" in message
    assert f'quote it, such as "{name}"' in message


def test_the_word_for_a_truth_value_among_levels_is_the_right_one(path: Path) -> None:
    message = complaint(path, GOOD.replace("[female, male]", "[no, perhaps]"))
    assert "found false" in message
    assert 'quote it, such as "no"' in message


def test_a_variable_that_stands_twice_is_told_once(path: Path) -> None:
    message = complaint(path, GOOD.replace("ldh:", "no: {kind: binary}\n    No:"))
    assert message.splitlines()[1:] == ["  - line 10, groups.blood.No: stands in line 9 already; rename or remove one."]


@pytest.mark.parametrize("name", ["Fold", "LABEL", "Mpp", "Patient_ID"])
def test_a_variable_is_not_a_reserved_column_in_another_case(path: Path, name: str) -> None:
    message = complaint(path, GOOD.replace("ldh:", f"{name}:"))
    assert f"groups.blood.{name}: {name.lower()} is a column of its own" in message


def test_classes_that_differ_in_case_alone_are_doubted_and_levels_are_not(path: Path) -> None:
    assert '"FL" and "fl" differ in case alone: one class?' in complaint(path, GOOD.replace("DLBCL, FL", "FL, fl"))
    path.write_text(GOOD.replace("female, male", "m, M"), encoding="utf-8")
    assert ClinicalSchema.load(path).component_names[1:3] == ["sex=m", "sex=M"]
