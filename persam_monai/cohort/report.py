# SPDX-License-Identifier: Apache-2.0
"""A table's problems on the screen, by column and with the cells, and in a file, complete and without the cells."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from persam_monai.cohort.problems import Problems, TableProblem
from persam_monai.errors import UserError
from persam_monai.files import replacing

HEADER = ("column", "row", "problem")
_EXAMPLES = 5  # rows of a column that are shown in full: enough to see what is wrong with all of them
_EXAMPLES_IN_ALL = 40  # a screen; columns beyond that many still have one each
_ROWS_LISTED = 10


def raise_problems(source: Path, problems: Problems, columns: Sequence[str], file: Path | None) -> None:
    """Raise one error that tells the problems, if there are any.

    Args:
        source: the table.
        problems: what is wrong with it.
        columns: the table's columns, whose order the message follows.
        file: gets all of them, without the cells; one from an earlier time is removed if there are none. None for no
            file.

    Raises:
        UserError: if there are problems.
    """
    if not problems.found:
        _remove(file)
        return
    number, of = len(problems.found), len({problem.column for problem in problems.found} - {None})
    count = f"{number} problem{'' if number == 1 else 's'}" + (f" in {of} column{'' if of == 1 else 's'}" if of else "")
    place, failure = "", None
    if file is not None:
        failure = _write(file, problems.found)
        place = "" if failure else f" ({file} lists all of them)"
    lines = [f"  - {line}" for line in [*problems.summaries, *_told(problems.found, columns)]]
    lines += [f"  The list of problems was not written: {failure}"] if failure else []
    raise UserError("\n".join([f"{source}: the cohort table needs correcting: {count}{place}:", *lines]))


def keep_error(error: UserError, file: Path | None) -> None:
    """Write a list of one problem, that the table as a whole cannot be read; a failure to do so is passed over."""
    if file is not None:
        _write(file, [TableProblem(None, None, "", str(error))])


def _told(found: Sequence[TableProblem], columns: Sequence[str]) -> list[str]:
    """Problems of the table, then by column the first rows of each and how many more there are."""
    place = {column: index for index, column in reversed(list(enumerate(columns)))}
    groups: dict[str | None, list[TableProblem]] = {}
    for problem in sorted(found, key=lambda problem: problem.row or 0):
        if problem.told and problem.row is not None:
            groups.setdefault(problem.column, []).append(problem)
    examples = min(_EXAMPLES, max(1, _EXAMPLES_IN_ALL // max(1, len(groups))))
    lines = [str(problem) for problem in found if problem.told and problem.row is None]
    for column in sorted(groups, key=lambda column: -1 if column is None else place.get(column, len(place))):
        group = groups[column]
        lines += [str(problem) for problem in group[:examples]]
        rest = group[examples:]
        if rest:
            where = f' in column "{column}"' if column is not None else ""
            lines.append(f"… and {len(rest)} more{where} ({rows_listed([problem.row for problem in rest])})")
    return lines


def rows_listed(rows: Sequence[int | None]) -> str:
    """``rows 3, 4`` with an ellipsis after the first ten."""
    listed = ", ".join(str(row) for row in rows[:_ROWS_LISTED])
    return f"row{'' if len(rows) == 1 else 's'} {listed}{', …' if len(rows) > _ROWS_LISTED else ''}"


def _write(file: Path, found: Sequence[TableProblem]) -> str | None:
    """Write the list of problems; returns why that failed, because the table's problems matter more."""
    if os.path.exists(file) and not _is_list(file) and not _is_empty(file):
        return f"{file} is something else and was left as it is; name another place."
    try:
        with replacing(file) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(HEADER)
            for problem in sorted(found, key=lambda problem: (problem.column or "", problem.row or 0)):
                writer.writerow([problem.column or "", problem.row or "", problem.kept])
    except UserError as error:
        return str(error)
    return None


def _is_list(file: Path) -> bool:
    """Whether a file is a list of problems."""
    begin = ",".join(HEADER).encode()
    try:
        with file.open("rb") as stream:
            return stream.read(len(begin)) == begin
    except OSError:
        return False


def _is_empty(file: Path) -> bool:
    return os.path.isfile(file) and file.stat().st_size == 0


def _remove(file: Path | None) -> None:
    """Remove a list from an earlier time: the table is in order now."""
    if file is None or not os.path.isfile(file) or not _is_list(file):
        return
    try:
        file.unlink()
    except OSError as error:
        raise UserError(
            f"{file} lists problems that the table no longer has and cannot be removed: {error.strerror}. Remove it."
        ) from error
