# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from persam_monai.drafting import draft_schema

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import Cohort

Columns = Mapping[str, Sequence[str]]


class Drafted:
    """A table that was written, and what was drafted from it."""

    def __init__(self, table: Path) -> None:
        self.table = table
        self.text = draft_schema(table)
        self.file = table.with_name("draft.yaml")
        self.file.write_text(self.text, encoding="utf-8")
        self.variables: dict[str, Any] = yaml.safe_load(self.text)["groups"]["record"]

    def cohort(self) -> Cohort:
        """The table, read with the draft."""
        return Cohort.load(self.table, ClinicalSchema.load(self.file), require_slides=False)

    def comment_on(self, name: str) -> str:
        """What stands above a variable, or in its place."""
        lines = [line.strip() for line in self.text.splitlines()]
        first = next(
            i for i, line in enumerate(lines) if line.removeprefix("# ").startswith((f"{name}:", f'"{name}":'))
        )
        last = first
        while not lines[last].startswith("#") and lines[first - 1].startswith("# "):
            first -= 1
        while lines[last].startswith("#") and last + 1 < len(lines) and ":" not in lines[last + 1].split()[1]:
            last += 1
        return " ".join(line.removeprefix("# ") for line in lines[first : last + 1])


def write_rows(path: Path, columns: Columns, separator: str = ",") -> Path:
    """A table with a slide and a patient per row, and one of two classes, unless the columns say otherwise."""
    number = max(map(len, columns.values()))
    coins = np.random.default_rng(0).integers(0, 2, number)
    ids = {
        "patient_id": [f"P{i:03d}" for i in range(number)],
        "slide": [f"{i}.svs" for i in range(number)],
        # The second row differs from the first; the others have nothing to do with what stands in the columns.
        "label": [("FL", "DLBCL")[i if i < 2 else int(coin)] for i, coin in enumerate(coins)],
    }
    everything = {**ids, **columns}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(everything)
        writer.writerows(zip(*everything.values(), strict=True))
    return path


@pytest.fixture
def drafted(tmp_path: Path) -> Callable[..., Drafted]:
    """Writes a table and drafts a schema from it."""

    def draft(columns: Columns, separator: str = ",", name: str = "cohort.csv") -> Drafted:
        return Drafted(write_rows(tmp_path / name, columns, separator))

    return draft
