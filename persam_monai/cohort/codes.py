# SPDX-License-Identifier: Apache-2.0
"""Where a table's cells are taken for missing because the schema says so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from persam_monai.clinical import ClinicalSchema, is_missing
from persam_monai.clinical.rules import is_code
from persam_monai.cohort.entry import SlideEntry
from persam_monai.cohort.tables import TableRow


def count_codes(
    rows: Sequence[TableRow], entries: Sequence[SlideEntry], schema: ClinicalSchema, decimal: str
) -> dict[str, int]:
    """In how many cells of each variable a missing code stands: a value that happens to be one shows there.

    Args:
        rows: the cells.
        entries: the same rows as they were understood, without problems.
        schema: the codes, of all variables and of each.
        decimal: the decimal sign that the table shows.

    Returns:
        Variable to number, without those that have none.
    """
    rules, counts = schema.rules(decimal), {}
    for variable in schema.variables:
        codes = (*variable.missing_codes, *schema.missing_codes)
        if codes:
            numbers, first = variable.number_format(rules), schema.slices[variable.name].start
            missing = np.isnan([entry.clinical[first] for entry in entries])
            cells = [row.cells[variable.name] for row, gap in zip(rows, missing, strict=True) if gap]
            counts[variable.name] = sum(not is_missing(cell) and is_code(cell, codes, numbers) for cell in cells)
    return {name: count for name, count in counts.items() if count}
