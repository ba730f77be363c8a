# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a cohort table: collected, then shown by column and written to a file in full."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from persam_monai.errors import UserError
from persam_monai.files import replacing

HEADER = ("column", "row", "problem")
_SHOWN = 10  # rows of a problem that the screen shows: enough to see what is wrong with all of them
_LINES = 40  # a screen


def counted(number: int, thing: str) -> str:
    """A number and what it counts, in the singular where it is one: ``1 patient``, ``2 patients``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def rows_listed(rows: Sequence[int | None]) -> str:
    """``rows 3, 4`` with an ellipsis after the first ten."""
    listed = ", ".join(str(row) for row in rows[:_SHOWN])
    return f"row{'' if len(rows) == 1 else 's'} {listed}{', …' if len(rows) > _SHOWN else ''}"


@dataclass(frozen=True)
class Problem:
    """One fault of a table.

    Args:
        row: the row's number in the file, or None for the table as a whole.
        column: name of the column, or None for the row as a whole.
        expected: what is expected and what to do, without anything from the table's cells.
        found: the cell and what else gives it away, for the screen alone; empty if there is nothing to show.
    """

    row: int | None
    column: str | None
    expected: str
    found: str = ""


@dataclass
class Problems:
    """The faults of one table.

    Args:
        columns: names of the table's columns, by which the faults are ordered.
    """

    columns: Sequence[str] = ()
    found: list[Problem] = field(default_factory=list)
    _cells: set[tuple[int | None, str | None]] = field(default_factory=set)

    def add(self, row: int | None, column: str | None, expected: str, found: str = "") -> None:
        """Note a fault; see :class:`Problem`."""
        self.found.append(Problem(row, column, expected, found))
        self._cells.add((row, column))

    def has(self, row: int, column: str) -> bool:
        """Whether this cell has a fault already, so that comparing it with others means nothing."""
        return (row, column) in self._cells

    def raise_together(self, source: Path, file: Path | None) -> None:
        """Raise one error that shows the problems, if there are any.

        Args:
            source: the table.
            file: gets all problems, without the cells; a list from an earlier time is removed if there are none.
        """
        columns: list[str | None] = [None, *dict.fromkeys(self.columns)]
        columns += [each.column for each in self.found if each.column not in columns]
        order = {column: index for index, column in enumerate(columns)}
        ordered = sorted(self.found, key=lambda problem: (order[problem.column], problem.row or 0))
        written = file is not None and _write(file, ordered)
        if not ordered:
            return
        groups: dict[tuple[str | None, str], list[Problem]] = {}
        for problem in ordered:
            groups.setdefault((problem.column, problem.expected), []).append(problem)
        lines = [f"  - {_in_words(group)}" for group in groups.values()]
        if len(lines) > _LINES:
            lines[_LINES:] = [f"  … and {len(lines) - _LINES} more."]
        where = f" ({file} lists all of them)" if written else ""
        heading = f"{source}: the cohort table needs correcting: {counted(len(ordered), 'problem')}{where}:"
        raise UserError("\n".join([heading, *lines]))


def _in_words(group: Sequence[Problem]) -> str:
    """The same problem of one or several rows of a column."""
    first, shown = group[0], group[:_SHOWN]
    column = [f'column "{first.column}"'] if first.column is not None else []
    if len(group) == 1:
        location = ", ".join([*([f"row {first.row}"] if first.row is not None else []), *column])
        found = f"found {first.found}; " if first.found else ""
        return f"{location}: {found}{first.expected}"
    listed = ", ".join(f"{problem.found or 'this'} in row {problem.row}" for problem in shown)
    rest = f", … and {len(group) - len(shown)} more rows" if len(group) > len(shown) else ""
    return f"{', '.join([*column, f'{len(group)} rows'])}: {first.expected} Found {listed}{rest}."


def _write(file: Path, problems: Sequence[Problem]) -> bool:
    """Write the list of problems, or remove one from an earlier time; anything else of that name stays as it is."""
    begin = ",".join(HEADER).encode()
    if file.exists() and not (file.is_file() and file.read_bytes().startswith(begin)):
        return False
    if not problems:
        if file.exists():
            file.unlink()
        return False
    try:
        with replacing(file) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(HEADER)
            writer.writerows([each.column or "", each.row or "", each.expected] for each in problems)
    except UserError:  # the table's problems matter more, and are on the screen
        return False
    return True
