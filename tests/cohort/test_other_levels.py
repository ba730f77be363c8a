# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort
from persam_monai.errors import UserError
from tests.cohort.making import write_text

SITE = {"kind": "categorical", "levels": ["neck", "Hüfte"], "other": True}
SCHEMA = ClinicalSchema.from_dict({"classes": ["A", "B"], "groups": {"g": {"site": SITE}}})


def load(folder: Path, *sites: str, patient: str = "P1") -> Cohort:
    cells = [["patient_id", "slide", "label", "site"], *([patient, f"{i}.svs", "A", s] for i, s in enumerate(sites))]
    return Cohort.load(write_text(folder / "cohort.csv", cells), SCHEMA, require_slides=False)


def test_two_levels_that_the_schema_does_not_know_are_not_the_same(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found liver here and spleen in row 2"):
        load(tmp_path, "spleen", "liver")
    assert load(tmp_path, "spleen", "Spleen").entries[0].clinical.tolist() == [0, 0, 1]


@pytest.mark.parametrize("spelling", ["Hu\u0308fte", "HÜFTE", "Hüfte\u200b"])
def test_a_level_that_looks_the_same_is_not_another_one(tmp_path: Path, spelling: str) -> None:
    assert load(tmp_path, spelling).entries[0].clinical.tolist() == [0, 1, 0]


def test_labels_and_columns_that_look_the_same_are_the_same(tmp_path: Path) -> None:
    schema = ClinicalSchema.from_dict({"classes": ["Adénome", "1"], "groups": {"g": {"größe": {"kind": "numeric"}}}})
    cells = [
        ["patient_id", "slide", "label", "gro\u0308ße"],
        ["P1", "a.svs", "Ade\u0301nome", "3"],
        ["P2", "b.svs", "1.0", "4"],
    ]
    cohort = Cohort.load(write_text(tmp_path / "cohort.csv", cells), schema, require_slides=False)
    assert cohort.labels == (0, 1)
    assert cohort.clinical_matrix().tolist() == [[3], [4]]


def test_dots_lead_through_links_as_the_file_system_says(tmp_path: Path) -> None:
    for name in ("real/data", "real/slides"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "real" / "slides" / "a.svs").touch()
    (tmp_path / "data").symlink_to(tmp_path / "real" / "data")
    schema = ClinicalSchema.from_dict({"classes": ["A", "B"], "groups": {"g": {"x": {"kind": "numeric"}}}})
    table = write_text(
        tmp_path / "real/data/cohort.csv", [["patient_id", "slide", "label", "x"], ["P", "../slides/a.svs", "A", 1]]
    )
    for place in (table, tmp_path / "data" / "cohort.csv"):
        assert Cohort.load(place, schema).entries[0].path == tmp_path / "real" / "slides" / "a.svs"
