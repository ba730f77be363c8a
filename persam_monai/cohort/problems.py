# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a cohort table, kept by row and column until all of it is known."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class TableProblem:
    """One fault of a table.

    Args:
        row: line in the file, or None for the table as a whole.
        column: name of the column, or None for the row as a whole.
        text: what was found, what was expected, what to do.
    """

    row: int | None
    column: str | None
    text: str

    def __str__(self) -> str:
        place = [f"row {self.row}"] if self.row is not None else []
        place += [f'column "{self.column}"'] if self.column is not None else []
        return f"{', '.join(place)}: {self.text}" if place else self.text


@dataclass
class Problems:
    """Collects the faults of one table, and can say whether a cell is among them."""

    found: list[TableProblem] = field(default_factory=list)
    cells: set[tuple[int, str]] = field(default_factory=set)

    def add(self, row: int | None, column: str | None, text: str) -> None:
        """Note a fault."""
        self.found.append(TableProblem(row, column, text))
        if row is not None and column is not None:
            self.cells.add((row, column))

    def touch(self, row: int, column: str) -> bool:
        """Whether this cell has a fault already, so that comparing it with others means nothing."""
        return (row, column) in self.cells

    def lines(self) -> list[str]:
        """One message each: the table as a whole first, then row by row."""
        return [str(problem) for problem in sorted(self.found, key=lambda problem: problem.row or 0)]
