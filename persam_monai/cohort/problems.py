# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a cohort table, kept by row and column until all of it is known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from persam_monai.clinical import shown


@dataclass(frozen=True)
class TableProblem:
    """One fault of a table, in words for the screen and in words for a file that people pass on.

    Args:
        row: the row's number in the file, or None for the table as a whole.
        column: name of the column, or None for the row as a whole.
        told: for the screen: what was found, what was expected, what to do. Empty if a line of
            :attr:`Problems.summaries` tells it.
        kept: for the file: what is expected and what to do, without anything that stands in the table's rows.
    """

    row: int | None
    column: str | None
    told: str
    kept: str

    def __str__(self) -> str:
        place = [f"row {self.row}"] if self.row is not None else []
        place += [f'column "{self.column}"'] if self.column is not None else []
        return f"{', '.join(place)}: {self.told}" if place else self.told


@dataclass
class Problems:
    """Collects the faults of one table, and can say whether a cell is among them."""

    found: list[TableProblem] = field(default_factory=list)
    summaries: list[str] = field(default_factory=list)
    cells: set[tuple[int, str]] = field(default_factory=set)

    def add(self, row: int | None, column: str | None, told: str, kept: str | None = None) -> None:
        """Note a fault.

        Args:
            row: see :class:`TableProblem`.
            column: see :class:`TableProblem`.
            told: see :class:`TableProblem`.
            kept: see :class:`TableProblem`; may be left out only if ``told`` holds nothing of the table's rows.
        """
        self.found.append(TableProblem(row, column, told, told if kept is None else kept))
        if row is not None and column is not None:
            self.mark(row, column)

    def add_cell(self, row: int, column: str, found: object, expected: str) -> None:
        """Note a cell that is not what was expected.

        Args:
            row: its row.
            column: its column.
            found: the cell, which only the screen shows.
            expected: what would have been right, and what to do; without the cell.
        """
        what = "an empty cell" if found is None else shown(found)
        self.add(row, column, f"found {what}, expected {expected}", f"expected {expected}")

    def add_rows(self, summary: str, column: str, rows: Iterable[int], kept: str) -> None:
        """Note many cells that the screen tells of in one go, ``summary``; the file has a line for each."""
        self.summaries.append(f'column "{column}": {summary}')
        for row in rows:
            self.add(row, column, "", kept)

    def mark(self, row: int, column: str) -> None:
        """Remember a cell as unusable; its fault is told elsewhere."""
        self.cells.add((row, column))

    def touch(self, row: int, column: str) -> bool:
        """Whether this cell has a fault already, so that comparing it with others means nothing."""
        return (row, column) in self.cells

    def lines(self) -> list[str]:
        """One message each: the table as a whole first, then row by row."""
        told = (problem for problem in self.found if problem.told)
        return [*self.summaries, *map(str, sorted(told, key=lambda problem: problem.row or 0))]
