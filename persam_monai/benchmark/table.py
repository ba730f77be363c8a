# SPDX-License-Identifier: Apache-2.0
"""How long a cohort table takes to be read and checked, in every form that it may have."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd

from persam_monai.benchmark.turns import alternate
from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort

LEVELS = ["low", "middle", "high"]


def measure(patients: int = 763, variables: int = 35, missing: float = 0.2, repeats: int = 5) -> dict[str, Any]:
    """Median seconds of :meth:`Cohort.load`, slide files looked for, by form of the table.

    Args:
        patients: rows, each with a slide of its own.
        variables: numeric, binary, categorical and ordinal in turn.
        missing: share of empty cells in the first variable.
        repeats: loads of each form, in turns.
    """
    kinds: list[dict[str, Any]] = [
        {"kind": "numeric", "unit": "U/L", "range": [0, 1000]},
        {"kind": "binary"},
        {"kind": "categorical", "levels": LEVELS},
        {"kind": "ordinal", "levels": LEVELS},
    ]
    declared = {f"variable_{number}": kinds[number % len(kinds)] for number in range(variables)}
    schema = ClinicalSchema.from_dict({"classes": ["A", "B"], "groups": {"record": declared}})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables = _write(folder, _rows(folder, patients, declared, missing))
        contenders = {form: partial(Cohort.load, table, schema) for form, table in tables.items()}
        seconds = alternate(contenders, repeats)
    return {"patients": patients, "variables": variables, "missing": missing, "seconds": seconds}


def _rows(folder: Path, patients: int, declared: dict[str, Any], missing: float) -> list[dict[str, Any]]:
    chance = np.random.default_rng(0)
    draw: dict[str, Callable[[], Any]] = {
        "numeric": lambda: round(float(chance.uniform(0, 1000)), 2),
        "binary": lambda: str(chance.choice(["yes", "no"])),
        "categorical": lambda: str(chance.choice(LEVELS)),
        "ordinal": lambda: str(chance.choice(LEVELS)),
    }
    rows = []
    for number in range(patients):
        (folder / f"{number}.svs").touch()
        cells = {name: draw[variable["kind"]]() for name, variable in declared.items()}
        rows.append({"patient_id": f"P{number}", "slide": f"{number}.svs", "label": "AB"[number % 2], **cells})
    first = next(iter(declared))
    for number in chance.permutation(patients)[: round(missing * patients)]:
        rows[number][first] = None
    return rows


def _write(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Path]:
    """The table in every form."""
    places = {form: folder / name for form, name in FORMS.items()}
    for form, separator in (("comma", ","), ("semicolon", ";")):
        with places[form].open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
            writer.writeheader()
            writer.writerows(rows)
    book = openpyxl.Workbook()
    book.active.append(list(rows[0]))
    for row in rows:
        book.active.append(list(row.values()))
    book.save(places["excel"])
    pd.DataFrame(rows).to_parquet(places["parquet"])
    return places


FORMS = {"comma": "comma.csv", "semicolon": "semicolon.csv", "excel": "table.xlsx", "parquet": "table.parquet"}


def report(found: dict[str, Any]) -> str:
    """The figures as text for the terminal."""
    heading = f"{found['patients']} patients, {found['variables']} variables, read and checked"
    return "\n".join([heading, *(f"  {form:<12}{seconds:8.3f} s" for form, seconds in found["seconds"].items())])
