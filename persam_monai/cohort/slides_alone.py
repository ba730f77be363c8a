# SPDX-License-Identifier: Apache-2.0
"""The slides of a cohort table, whatever else it says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort.cohort import Cohort
from persam_monai.cohort.reading import read_entries
from persam_monai.cohort.report import keep_error
from persam_monai.cohort.tables import Table, TableRow, read_table
from persam_monai.errors import UserError
from persam_monai.settings import is_null

COLUMNS = ("slide", "mpp")


def load_slides(table_path: str | Path, problems_file: str | Path | None = None) -> Cohort:
    """The slides of a table: of its columns, ``slide`` and ``mpp`` alone are read and can be wrong.

    Args:
        table_path: as of :meth:`persam_monai.cohort.Cohort.load`; no other column has to be there. Rows with the same
            slide and the same ``mpp`` count once.
        problems_file: see :meth:`persam_monai.cohort.Cohort.load`.

    Returns:
        Entries without patients (each stands for its own), labels and records.

    Raises:
        UserError: with all problems of the two columns.
    """
    path, file = Path(table_path), None if is_null(problems_file) else Path(str(problems_file))
    try:
        table = _without_the_rest(read_table(path, admit_uneven=True))
    except UserError as error:
        keep_error(error, file)
        raise
    schema = ClinicalSchema((), {})
    entries, _ = read_entries(table, schema, require_labels=False, problems_file=file)
    return Cohort(entries, schema, str(path))


def _without_the_rest(table: Table) -> Table:
    columns = [column for column in table.columns if column.lower() in COLUMNS]
    if COLUMNS[0] not in columns:  # one of the others may be meant
        columns = [column for column in table.columns if column != "patient_id"]
    faults = {column: fault for column, fault in table.faults.items() if column in COLUMNS}
    return replace(table, columns=("patient_id", *columns), rows=tuple(_each_once(table.rows)), faults=faults)


def _each_once(rows: Iterable[TableRow]) -> Iterable[TableRow]:
    seen = set()
    for row in rows:
        name = row.text("slide"), row.text("mpp")
        if not name[0] or name not in seen:
            seen.add(name)
            yield TableRow(row.line, {**row.cells, "patient_id": f"row {row.line}"})
