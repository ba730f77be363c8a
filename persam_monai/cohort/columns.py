# SPDX-License-Identifier: Apache-2.0
"""Which columns of a table are read, and which are missing, repeated or doubtful."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from persam_monai.clinical import RESERVED_COLUMNS, ClinicalSchema
from persam_monai.cohort.problems import Problems
from persam_monai.cohort.tables import Table
from persam_monai.errors import did_you_mean

_QUESTION = " Does the first row hold the names of the columns?"


class Columns(NamedTuple):
    """Columns of a table.

    Args:
        usable: those whose cells are read.
        ignored: those that mean nothing here, each once, in the table's order.
    """

    usable: frozenset[str]
    ignored: tuple[str, ...]


def check_columns(table: Table, schema: ClinicalSchema, require_labels: bool, problems: Problems) -> Columns:
    """Report missing, repeated and doubtful columns, and say which can be read.

    Args:
        table: its header.
        schema: whose variables are columns.
        require_labels: whether there must be a column ``label``.
        problems: what was found so far; grows.
    """
    counts = Counter(column for column in table.columns if column)
    needed = ["patient_id", "slide", *(["label"] if require_labels else []), *schema.variable_names]
    known = {*RESERVED_COLUMNS, *schema.variable_names}
    missing = [column for column in needed if column not in counts]
    for column in missing:
        present = f"; the table has {', '.join(counts)}" if column == missing[0] else ""  # once is enough
        hint = did_you_mean(column, [name for name in counts if name not in known])
        question = _QUESTION if column == missing[0] and len(missing) == len(needed) else ""
        _report_missing(column, present, hint, column in schema.slices, problems, question)
    ignored = []
    for column, count in counts.items():
        if column in known:
            if count > 1:
                problems.add(
                    None, column, f"stands {count} times in the header; expected once: rename or remove the others."
                )
        # Without this, a column "Fold" would be passed over and the patients split at random.
        elif column.lower() in RESERVED_COLUMNS and column.lower() not in counts:
            right = column.lower()
            problems.add(None, column, f'did you mean "{right}"? Rename the column to "{right}", or remove it.')
        else:
            ignored.append(column)
    for column in known & table.faults.keys():
        fault = table.faults[column]
        problems.add(None, column, f"found {fault.found}, expected {fault.expected}; write the column as one of these.")
    single = {column for column, count in counts.items() if count == 1 and column in known}
    return Columns(frozenset(single - table.faults.keys()), tuple(ignored))


def _report_missing(
    column: str, present: str, hint: str, clinical: bool, problems: Problems, question: str = ""
) -> None:
    """A column that is not there; perhaps another one is meant to be it."""
    gaps = ", and leave its cells empty where the value is not known" if clinical else ""
    cure = f"{hint} Rename that column." if hint else f" Add the column{gaps}."
    # In a table without a header, what would be its names are cells of the first patient: they stay out of the file.
    kept = f"is missing; expected in the header. Add the column{gaps}, or rename the one that is meant to be it."
    problems.add(None, column, f"is missing{present}.{cure}{question}", kept + question)
