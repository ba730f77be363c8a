# SPDX-License-Identifier: Apache-2.0
"""Which file is the table, and which reader reads it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from persam_monai.cohort.tables.excel import read_excel
from persam_monai.cohort.tables.parquet import read_parquet
from persam_monai.cohort.tables.table import Table
from persam_monai.cohort.tables.text import read_text
from persam_monai.errors import UserError, did_you_mean, raise_together
from persam_monai.settings import is_null

_STEM = "cohort"
_READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": read_text,
    ".tsv": read_text,
    ".xlsx": read_excel,
    ".parquet": read_parquet,
}
TABLE_NAMES = tuple(f"{_STEM}{ending}" for ending in _READERS)
"""What a cohort table is called, unless a setting names it."""

_WORKBOOK = 'open it in the program that wrote it and save it as "Excel Workbook (.xlsx)"'
_TEXT = "give it the ending .csv or .tsv if it is a table in UTF-8 text"
_EXPORT = 'export the table as "CSV UTF-8" (.csv)'
_CURES = {
    **dict.fromkeys((".xls", ".xlsm", ".xlsb", ".xltx", ".ods", ".numbers"), _WORKBOOK),
    **dict.fromkeys((".txt", ".tab", ".dat"), _TEXT),
    **dict.fromkeys((".sav", ".dta", ".sas7bdat", ".rds", ".feather", ".json", ".gz", ".zip"), _EXPORT),
}


def find_table(folder: Path, table: object = None) -> Path | None:
    """The cohort table of a folder.

    Args:
        folder: the dataset folder.
        table: name of the table in the folder, or its path; ``None`` (or a text that means it, as the command line
            hands it over): the one ``cohort.*`` that there is.

    Returns:
        The table that is named, whether it exists or not; or the one that was found; or None.

    Raises:
        UserError: if there are several, or the folder cannot be read.
    """
    if not is_null(table):
        return folder / str(table)
    try:
        files = sorted(file for file in folder.iterdir() if file.stem == _STEM and os.path.isfile(file))
    except OSError as error:
        raise UserError(f"{folder}: the folder cannot be read: {error.strerror}.") from error
    found = [file for file in files if file.suffix.lower() in _READERS]
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise UserError(
            f"{folder}: found {len(found)} cohort tables ({names}), expected one. Say which with --table "
            f"{found[0].name}, or remove the others."
        )
    # A table of a kind that cannot be read is found too, so that reading it tells what to do.
    return next(iter(found or [file for file in files if file.suffix.lower() in _CURES]), None)


def read_table(path: Path, admit_uneven: bool = False) -> Table:
    """Read a table; the file's ending says how.

    Args:
        path: the file.
        admit_uneven: whether rows that are not as long as the header are only noted in :attr:`Table.uneven`, for
            callers that report them together with other problems.

    Raises:
        UserError: if the file is missing, unreadable, of an unknown kind, not what its ending says, or without rows, or
            if rows differ in length from the header (all of them together).
    """
    if not os.path.exists(path):
        names = os.listdir(path.parent) if os.path.isdir(path.parent) else []
        names = [name for name in names if Path(name).suffix.lower() in _READERS]  # and not the name of a slide
        raise UserError(f"{path}: no such file; expected the cohort table.{did_you_mean(path.name, names)}")
    if os.path.isdir(path):
        raise UserError(f"{path}: the table cannot be read: it is a folder; expected a file.")
    ending = path.suffix.lower()
    if ending not in _READERS:
        cure = _CURES.get(ending, _EXPORT)
        raise UserError(
            f'{path}: found the ending "{path.suffix}", expected {", ".join(_READERS)}. To have the table read, {cure}.'
        )
    try:
        table = _READERS[ending](path)
    except OSError as error:
        raise UserError(f"{path}: the table cannot be read: {error.strerror or error}.") from error
    if not admit_uneven:
        problems = [f"row {line}: {text}" for line, text in table.uneven]
        raise_together(f"{path}: rows differ in length from the header", problems)
    return table
