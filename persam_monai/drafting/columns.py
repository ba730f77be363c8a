# SPDX-License-Identifier: Apache-2.0
"""A cohort table by column, one cell per patient."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from persam_monai.clinical import RESERVED_COLUMNS, is_missing
from persam_monai.clinical.cells import DOUBTFUL_SPELLINGS, is_date, unknown_among
from persam_monai.cohort.tables import CellFault, Table, read_table
from persam_monai.cohort.tables.table import as_text
from persam_monai.drafting.classes import one_spelling
from persam_monai.errors import UserError, did_you_mean, raise_together

Moment = datetime.date | datetime.time | datetime.timedelta
Cell = str | float | Moment
"""What is known: text without spaces around it, a number that a spreadsheet holds as one, or a date or time."""

_MINIMUM_CLASSES = 2
_STAINING = re.compile(r"[-–]|\(\+\)|\+/-|\+{1,4}")


@dataclass(frozen=True)
class Column:
    """A column that may be a clinical variable.

    Args:
        name: in the header.
        cells: one per patient, ``None`` where it is missing.
        varying: patients whose rows do not agree on it.
        several: patients with several rows.
        fault: why the column cannot be read at all, or None.
        doubtful: words that count as missing unless they are declared as levels, with their number of patients.
        unreadable: cells that hold no value to be had, with their number of rows.
        hidden: patients who have such cells alone, so that nobody knows whether the value is missing.
    """

    name: str
    cells: tuple[Cell | None, ...] = field(repr=False)
    varying: int = 0
    several: int = 0
    fault: str | None = None
    doubtful: Counter[str] = field(default_factory=Counter, repr=False)
    unreadable: Counter[CellFault] = field(default_factory=Counter, repr=False)
    hidden: int = 0

    @property
    def known(self) -> list[Cell]:
        """The cells that are not missing."""
        return [cell for cell in self.cells if cell is not None]


@dataclass(frozen=True)
class Patients:
    """A table, seen by patient.

    Args:
        path: of the table.
        slides: number of rows.
        labels: one per patient, ``None`` where it is missing or looks like "not known"; in one spelling each.
        columns: those that are not reserved, in order.
        point: whether a text file separates its cells by commas, so that numbers have a point unless told otherwise.
        uneven: rows that are not as long as the header, and were left out.
        spellings: notes about classes that are written in several ways.
        unknown: labels that look like "not known", with their number of rows.
    """

    path: Path
    slides: int
    labels: tuple[str | None, ...] = field(repr=False)
    columns: tuple[Column, ...]
    point: bool
    uneven: int = 0
    spellings: tuple[str, ...] = ()
    unknown: Counter[str] = field(default_factory=Counter, repr=False)


def read_patients(path: Path) -> Patients:
    """Read a cohort table without a schema.

    Raises:
        UserError: if the table cannot be read, a column has no name or stands twice, ``patient_id`` or ``label`` is
            missing, or there are fewer than two labels.
    """
    table = read_table(path)
    _check_header(table)
    rows_of: dict[str, list[int]] = {}
    for index, row in enumerate(table.rows):
        # A row without patient is an error of the table that the check reports; here it is a patient of its own.
        rows_of.setdefault(row.text("patient_id") or f"\n{index}", []).append(index)
    groups = list(rows_of.values())
    by_row = _column(table, "label", [[index] for index in range(len(table.rows))])
    counts = Counter(as_text(label) for label in by_row.known)
    unknown = by_row.doubtful + Counter({text: counts.pop(text) for text in unknown_among(counts.keys())})
    spellings = one_spelling(counts)
    labels = _column(table, "label", groups).cells
    texts = tuple(None if label is None else spellings.chosen.get(as_text(label)) for label in labels)
    different = len(set(texts) - {None})
    if different < _MINIMUM_CLASSES:
        raise UserError(
            f'{path}, column "label": found {different} different labels; expected at least {_MINIMUM_CLASSES}, the '
            f"classes.{''.join(f' {note}' for note in spellings.notes)}"
        )
    columns = tuple(_column(table, name, groups) for name in table.columns if name and name not in RESERVED_COLUMNS)
    return Patients(
        path, len(table.rows), texts, columns, table.point_only, len(table.uneven), spellings.notes, unknown
    )


def _check_header(table: Table) -> None:
    """The columns that a draft cannot do without, and no name twice."""
    counts = Counter(name for name in table.columns if name)
    problems = [f'column "{name}": stands {count} times in the header' for name, count in counts.items() if count > 1]
    for name in ("patient_id", "label"):
        if name not in counts:
            hint = did_you_mean(name, [other for other in counts if other not in RESERVED_COLUMNS])
            problems.append(f'column "{name}": is missing; rename the column that has it.{hint}')
    raise_together(f"{table.path}: no schema can be drafted from the table", problems)


def _column(table: Table, name: str, groups: list[list[int]]) -> Column:
    """One column by patient."""
    held = [row.cells[name] for row in table.rows]
    unreadable = Counter(cell for cell in held if isinstance(cell, CellFault))
    raw = [_plain(cell) for cell in held]
    texts = {cell for cell in raw if isinstance(cell, str)}
    # "-" beside "+" is the result of a stain, not a gap.
    stained = any("+" in text for text in texts) and all(_STAINING.fullmatch(text) for text in texts)
    perhaps = frozenset(DOUBTFUL_SPELLINGS) - ({"-", "–"} if stained else set())
    cells: list[Cell | None] = []
    varying, hidden, doubtful = 0, 0, Counter[str]()
    for rows in groups:
        found = [raw[row] for row in rows if not isinstance(held[row], CellFault)]
        hidden += not found
        words = {cell.lower() for cell in found if isinstance(cell, str)} & perhaps
        doubtful.update(words)
        known = [None if isinstance(cell, str) and cell.lower() in perhaps else cell for cell in found]
        varying += len({_comparable(cell) for cell in known}) > 1
        cells.append(next((cell for cell in known if cell is not None), None))
    fault = table.faults.get(name)
    reason = None if fault is None else f"found {fault.found}; expected {fault.expected}"
    several = sum(len(rows) > 1 for rows in groups)
    return Column(name, tuple(cells), varying, several, reason, doubtful, unreadable, hidden)


def _plain(cell: object) -> Cell | None:
    """A cell of whatever type a reader hands over, as one of three; None if it is missing for every variable."""
    if is_missing(cell) or isinstance(cell, CellFault):
        return None
    if is_date(cell):
        return cast(Moment, cell)
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        return float(cell)
    return as_text(cell).strip()


def _comparable(cell: Cell | None) -> object:
    """Equal for cells that say the same: 1, 1.0 and "1,0"; yes and Yes."""
    if isinstance(cell, str):
        try:
            return float(cell.replace(",", "."))
        except ValueError:
            return cell.casefold()
    return cell
