# SPDX-License-Identifier: Apache-2.0
"""Which decimal sign a table uses, where the schema does not say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Literal

from persam_monai.clinical import ClinicalSchema
from persam_monai.clinical.numbers import decimal_evidence
from persam_monai.cohort.problems import Problems
from persam_monai.cohort.tables import Table

_WORDS = {".": "point", ",": "comma"}


def decide_decimal(
    table: Table, schema: ClinicalSchema, usable: frozenset[str], problems: Problems
) -> Literal[".", ","]:
    """The decimal sign of the text cells in a table.

    Commas between the cells leave only the point. Otherwise the cells of all variables without a declared sign tell
    together: one ``1,5`` decides that ``1,200`` is a bit more than one.

    Args:
        table: the cells.
        schema: says which variables declare no sign.
        usable: columns that can be read.
        problems: what was found so far; grows by the cells that contradict most others, and by columns of which
            nothing tells.

    Returns:
        The sign to read the other cells with.
    """
    if table.point_only:
        return "."
    evidence = list(_evidence(table, [name for name in schema.undecided_decimals if name in usable]))
    counts = Counter(sign for *_, sign in evidence)
    if counts["."] and counts[","]:
        return _majority(table, evidence, counts, problems)
    if counts[","]:
        return ","
    if not counts["."]:
        _ask(table, evidence, problems)
    return "."


def _evidence(table: Table, columns: list[str]) -> Iterator[tuple[int, str, str]]:
    """Row, column and sign of each text cell that shows one; typed numbers have no sign."""
    for row in table.rows:
        for column in columns:
            cell = row.cells[column]
            sign = decimal_evidence(cell) if isinstance(cell, str) else None
            if sign is not None:
                yield row.line, column, sign


def _majority(
    table: Table, evidence: list[tuple[int, str, str]], counts: Counter[str], problems: Problems
) -> Literal[".", ","]:
    """Both signs stand in the table: the rarer one, of equals the comma, is the mistake."""
    usual: Literal[".", ","] = "." if counts["."] >= counts[","] else ","
    rare = "," if usual == "." else "."
    cells = {row.line: row.cells for row in table.rows}
    expected = (
        f"a decimal {_WORDS[usual]}: one table has one decimal sign (rule C4); cells with a {_WORDS[usual]}: "
        f"{counts[usual]}, with a {_WORDS[rare]}: {counts[rare]}. Correct the cell, or declare decimal: for "
        "the variable in the schema."
    )
    for line, column, sign in evidence:
        if sign == rare:
            problems.add_cell(line, column, cells[line][column], expected)
    return usual


def _ask(table: Table, evidence: list[tuple[int, str, str]], problems: Problems) -> None:
    """Nothing tells a decimal sign from one between thousands: a problem for each column, at its first such cell."""
    first: dict[str, int] = {}
    numbers = Counter(column for _, column, _ in evidence)
    cells = {row.line: row.cells for row in table.rows}
    for line, column, _ in evidence:
        if first.setdefault(column, line) == line:
            expected = (
                f"a number whose sign can be understood: it is a decimal sign or separates thousands, and no "
                f"cell of the table tells (rule C4; such cells in the column: {numbers[column]}). Declare "
                'decimal: "." or decimal: ",", and thousands: if it is that, in the schema.'
            )
            problems.add_cell(line, column, cells[line][column], expected)
        problems.mark(line, column)
