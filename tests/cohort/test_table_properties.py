# SPDX-License-Identifier: Apache-2.0
"""Whatever a table holds that the schema admits is read as it was meant, in all forms; one wrong cell is found."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort
from persam_monai.errors import UserError
from tests.cohort.making import WRITERS

SCHEMA = ClinicalSchema.from_dict(
    {
        "classes": ["DLBCL", "FL", "17"],
        "missing_codes": [-9],
        "groups": {
            "interview": {
                "age": {"kind": "numeric", "unit": "years", "range": [0, 120], "missing_codes": [999]},
                "sex": {"kind": "binary", "levels": ["f", "m"]},
                "b_symptoms": {"kind": "binary"},
                "site": {"kind": "categorical", "levels": ["neck", "-", "groin"], "other": True},
                "grade": {"kind": "categorical", "levels": ["1", "2", "3a"]},
                "stage": {"kind": "ordinal", "levels": ["I", "II", "III", "IV"]},
            },
            "blood": {
                "ldh": {"kind": "numeric", "unit": "U/L", "range": [50, 20000], "units": {"U/L": 1, "kU/L": 1000}},
                "ferritin": {"kind": "numeric", "range": [1, 90000], "transform": "log", "thousands": "'"},
                "crp": {"kind": "numeric", "range": [0, 600], "comparisons": "half"},
            },
        },
    }
)
POINTS = {name: "," if name == "semicolons.csv" else "." for name in WRITERS}
DAMAGED = {
    "patient_id": "",
    "slide": "nowhere.svs",
    "label": "XX",
    "age": 121,
    "sex": "x",
    "b_symptoms": "perhaps",
    "grade": "3b",
    "stage": "V",
    "ldh": "250 mg",
    "ferritin": "high",
    "crp": "<<5",
    "mpp": -1,
}
"""A cell for each column that the column does not admit. There is none for ``site``, where other texts are welcome."""


class Cell(NamedTuple):
    """A cell to write, and what it means."""

    written: Any  # text may hold POINT in place of the decimal sign
    meant: str


POINT = "@"
MISSING = [Cell(text, "") for text in (None, "", "NA", "n/a", "<NA>", "#N/A", "unknown", "?", "-9", -9)]


def quoted(text: str) -> list[Cell]:
    """A level in the spellings that are admitted."""
    return [Cell(text, text), Cell(f" {text} ", text), Cell(text.upper(), text), Cell(text.lower(), text)]


def numbers(low: int, high: int, digits: int) -> st.SearchStrategy[Cell]:
    """Numbers as typed cells and as text."""

    def cell(number: int, typed: bool) -> Cell:
        value = number / 10**digits
        text = f"{value:.10g}"
        return Cell(value if typed else text.replace(".", POINT), text)

    return st.builds(cell, st.integers(low * 10**digits, high * 10**digits), st.booleans())


KNOWN: dict[str, st.SearchStrategy[Cell]] = {
    "age": numbers(0, 120, 1),
    "sex": st.sampled_from([*quoted("f"), *quoted("m")]),
    "b_symptoms": st.sampled_from(
        [Cell(word, "yes") for word in ("yes", "Y", "TRUE", True, 1, 1.0, "1")]
        + [Cell(word, "no") for word in ("No", "n", "false", False, 0, "0")]
    ),
    "site": st.sampled_from(
        [*quoted("neck"), *quoted("groin"), Cell("-", "-"), Cell("spleen", "other"), Cell(7, "other")]
    ),
    "grade": st.sampled_from([*quoted("3a"), Cell(1, "1"), Cell("2", "2"), Cell(2.0, "2")]),
    "stage": st.sampled_from([*quoted("I"), *quoted("II"), *quoted("IV")]),
    "ldh": numbers(50, 20000, 0) | st.integers(1, 20).map(lambda k: Cell(f"{k} kU/L", f"{k}000")),
    "ferritin": numbers(1, 90000, 0) | st.integers(10, 90).map(lambda k: Cell(f"{k}'000", f"{k}000")),
    "crp": numbers(0, 600, 2) | st.sampled_from([Cell(f"<0{POINT}5", "0.25"), Cell("≥ 100", "100")]),
}


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, Cell]]:
    """Rows of one to five patients with one to three slides each."""
    rows: list[dict[str, Cell]] = []
    folds = draw(st.booleans())
    for patient in range(draw(st.integers(1, 5))):
        label = draw(st.sampled_from([*(Cell(name, name) for name in ("DLBCL", "FL", "17")), Cell(17, "17")]))
        record = {
            name: draw(st.one_of(cells, cells, st.sampled_from(MISSING)))  # a third is missing
            for name, cells in KNOWN.items()
        }
        for _ in range(draw(st.integers(1, 3))):
            mpp = draw(st.sampled_from([Cell(None, ""), Cell(f"0{POINT}25", "0.25"), Cell(0.5, "0.5")]))
            fold = {"fold": Cell(patient, str(patient))} if folds else {}
            name = f"s{len(rows)}.svs"
            identity = {"patient_id": Cell(patient + 1, str(patient + 1)), "slide": Cell(name, name), "label": label}
            rows.append({**identity, **record, "mpp": mpp, **fold})
    return rows


def write(folder: Path, name: str, rows: list[dict[str, Cell]]) -> Path:
    """Write a table in one form, and the files of its slides."""
    cells = [[cell.written for cell in row.values()] for row in rows]
    cells = [[cell.replace(POINT, POINTS[name]) if isinstance(cell, str) else cell for cell in row] for row in cells]
    if name.endswith(("csv", "tsv")):  # numbers as a spreadsheet program would export them
        cells = [
            [f"{cell:.10g}".replace(".", POINTS[name]) if isinstance(cell, float) else cell for cell in row]
            for row in cells
        ]
    for row in rows:
        (folder / row["slide"].meant).touch()
    return WRITERS[name](folder / name, [list(rows[0]), *cells])


@settings(max_examples=40, derandomize=True, deadline=None)
@given(tables())
def test_every_form_is_read_as_it_was_meant(rows: list[dict[str, Cell]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in WRITERS:
            cohort = Cohort.load(write(Path(folder), name, rows), SCHEMA)
            for entry, row in zip(cohort, rows, strict=True):
                meant = {column: cell.meant for column, cell in row.items()}
                assert SCHEMA.describe(entry.clinical) == {column: meant[column] for column in KNOWN}
                assert (entry.patient_id, entry.slide) == (meant["patient_id"], meant["slide"])
                assert entry.label is not None
                assert SCHEMA.classes[entry.label] == meant["label"]
                assert entry.mpp == (float(meant["mpp"]) if meant["mpp"] else None)
                assert entry.fold == (int(meant["fold"]) if "fold" in meant else None)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(tables(), st.sampled_from(sorted(DAMAGED)), st.sampled_from(sorted(WRITERS)), st.data())
def test_one_damaged_cell_is_found(rows: list[dict[str, Cell]], column: str, name: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(rows) - 1))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "problems.csv"
        whole = write(Path(folder), name, rows)
        Cohort.load(whole, SCHEMA, problems_file=file)
        assert not file.exists()
        rows[place] = {**rows[place], column: Cell(DAMAGED[column], rows[place][column].meant)}
        with pytest.raises(UserError) as caught:
            Cohort.load(write(Path(folder), name, rows), SCHEMA, problems_file=file)
        with file.open(encoding="utf-8", newline="") as stream:
            found = [(row["column"], int(row["row"])) for row in csv.DictReader(stream)]
        assert found == [(column, place + (1 if name == "cohort.parquet" else 2))]
        assert f"row {found[0][1]}" in str(caught.value)
