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
        ("ldh:", "on:", ["groups.blood.True: bad name", "quote it"]),
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
