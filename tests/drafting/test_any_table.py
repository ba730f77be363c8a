# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persam_monai.clinical import ClinicalSchema
from persam_monai.errors import UserError
from tests.drafting.conftest import Drafted, write_rows

PATIENTS = 30
NUMBER = st.floats(-1e6, 1e9, allow_nan=False).map(lambda value: f"{value:.4g}")
CELL = st.one_of(
    st.text(max_size=12),
    NUMBER,
    st.integers(-20, 3000).map(str),
    st.sampled_from(["<5", "≥ 1,5", "7 mg/L", "1,200", "1.234,5", "12'000", "-9", "999", "3a", "IV", "++", "-", "?"]),
    st.sampled_from(["yes", "no", "on", "1", "0", "~", "null", "2020-01-01", "1:30", "0x1f", ".5", "5.", "1e400"]),
)
COLUMN = st.lists(CELL, min_size=1, max_size=6).flatmap(
    lambda cells: st.lists(st.sampled_from(cells), min_size=PATIENTS, max_size=PATIENTS)
)
NAMES = st.text(min_size=1, max_size=10).map(lambda name: "v " + clean(name).strip())
AGE = {"age": [str(40 + 7 * i % 31) for i in range(PATIENTS)]}  # so that there is always a variable


def clean(text: str) -> str:
    """Without what no text file can hold."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode()


def sound(*cells: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(cells), min_size=PATIENTS, max_size=PATIENTS)


def mostly_with_units() -> st.SearchStrategy[list[str]]:
    """A unit in half of the cells at least: of fewer, a draft says nothing, and those cells are refused."""
    units = ("5 g/L", "0.7 g/dL", "12.5g/L")
    half = PATIENTS // 2
    with_units = st.lists(st.sampled_from(units), min_size=half, max_size=half)
    with_any = st.lists(st.sampled_from([*units, "7", ""]), min_size=PATIENTS - half, max_size=PATIENTS - half)
    return st.tuples(with_units, with_any).map(lambda parts: [*parts[0], *parts[1]])


SOUND = st.one_of(
    sound(*(f"{n}.5" for n in range(900))),
    sound("a", "B b", "no", "1-2", "c#"),
    sound("<5", "7", "> 100", "12.5", ""),
    mostly_with_units(),
    sound("yes", "no", "Y", "?"),
    sound("I", "IV", "ii", "N/A"),
)


@settings(max_examples=150, deadline=None)
@given(columns=st.dictionaries(NAMES, COLUMN, max_size=4), separator=st.sampled_from([",", ";", "\t"]))
def test_a_draft_of_whatever_table_is_a_valid_schema(columns: dict[str, list[str]], separator: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cells = {name: [clean(cell) for cell in column] for name, column in columns.items()}
        draft = Drafted(write_rows(Path(folder) / "cohort.csv", cells | AGE, separator))
        assert set(ClinicalSchema.load(draft.file).variable_names) == set(draft.variables)


@settings(max_examples=60, deadline=None)
@given(columns=st.dictionaries(st.sampled_from("pqrstuvw"), SOUND, min_size=1))
def test_a_sound_table_is_read_with_its_draft(columns: dict[str, list[str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        draft = Drafted(write_rows(Path(folder) / "cohort.csv", columns | AGE))
        assert draft.cohort().schema.variable_names == list(draft.variables)


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text("patient_id,slide,label\n")
    with pytest.raises(UserError, match="has a header and no rows"):
        Drafted(tmp_path / "cohort.csv")
