# SPDX-License-Identifier: Apache-2.0
"""Which slides are meant: files, the slides of a folder, or those of a cohort table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from persam_monai.clinical import ClinicalSchema
from persam_monai.cohort import SlideEntry, find_table, read_table
from persam_monai.cohort.problems import Problems
from persam_monai.cohort.reading import RowReader
from persam_monai.cohort.tables import TABLE_NAMES, Table
from persam_monai.errors import UserError, did_you_mean, raise_together
from persam_monai.slide_files import ENDINGS, slide_path


class Source(NamedTuple):
    """Slides, and where they were found."""

    entries: tuple[SlideEntry, ...]  # without patient, label and record
    found: str  # a sentence


def find_slides(
    places: Sequence[str | os.PathLike[str]], table: str | None = None, slide_mpp: float | None = None
) -> Source:
    """Find slides.

    Of a cohort table the columns ``slide`` and ``mpp`` are read and nothing else: slides can be looked at before the
    clinical part of a study is in order.

    Args:
        places: slide files, and folders with a cohort table or with slides.
        table: name of the table inside the folders; ``None``: the only ``cohort.*`` there is, if any.
        slide_mpp: µm per level-0 pixel of slides that stand in no table, in place of what the files say.

    Returns:
        Each slide once, in the order found. Files that do not exist are among them: that is a slide's problem.

    Raises:
        UserError: if a folder is missing or has neither table nor slides, or a table cannot be read.
    """
    entries: list[SlideEntry] = []
    found: list[str] = []
    by_hand = 0
    for place in map(Path, places):
        if place.is_dir():
            some, words = _of_folder(place, table, slide_mpp)
            entries += some
            found.append(words)
        elif not place.exists() and place.suffix.lower() not in ENDINGS:
            raise UserError(
                f"{place}: no such file or folder; expected a dataset folder, a folder of slides, or slides."
            )
        else:
            entries.append(_entry(str(place), slide_path(place), slide_mpp))
            by_hand += 1
    if by_hand:
        found.append(f"{_count(by_hand)} given by hand")
    once = {entry.path: entry for entry in reversed(entries)}  # the first one stays
    kept = tuple(entry for entry in entries if once[entry.path] is entry)
    repeated = len(entries) - len(kept)
    return Source(kept, "; ".join(found) + (f"; {repeated} named again, looked at once" if repeated else "") + ".")


def _of_folder(folder: Path, table: str | None, slide_mpp: float | None) -> tuple[list[SlideEntry], str]:
    path = find_table(folder, table)
    if path is not None:
        entries = _of_table(read_table(path))
        return entries, f"{_count(len(entries))} in {path}"
    try:
        files = [path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.is_file()]
    except OSError as error:
        raise UserError(f"{folder}: the folder cannot be read: {error.strerror}.") from error
    # macOS leaves ._a.svs beside a.svs
    files = sorted({slide_path(path) for path in files if not path.name.startswith(".")})
    if not files:
        raise UserError(
            f"{folder}: found neither {TABLE_NAMES[0]} nor slides; expected a dataset folder, or files ending in "
            f"{', '.join(ENDINGS)} in it (folders inside it are not searched)."
        )
    entries = [_entry(path.name, path, slide_mpp) for path in files]
    return entries, f"{_count(len(files))} in {folder}, which has no {TABLE_NAMES[0]}"


def _of_table(table: Table) -> list[SlideEntry]:
    """The rows' slides, by the same rules as :class:`~persam_monai.cohort.Cohort` has."""
    problems = Problems()
    if "slide" not in table.columns:
        problems.add(
            None,
            "slide",
            f"is missing; the table has {', '.join(table.columns)}.{did_you_mean('slide', table.columns)} Name the "
            'column with the paths of the slides "slide".',
        )
    for column in ("slide", "mpp"):
        if table.columns.count(column) > 1:
            problems.add(None, column, f"stands {table.columns.count(column)} times in the header; remove the others.")
    # The rules for these two columns are the cohort's own; it knows of no others here.
    usable = frozenset({"slide", "mpp"} & set(table.columns))
    for column in usable & table.faults.keys():
        fault = table.faults[column]
        problems.add(None, column, f"found {fault.found}, expected {fault.expected}; write the column as one of these.")
    reader = RowReader(table, ClinicalSchema((), {}), usable, False, ".", problems)
    entries = [] if problems.found else [reader.read(row) for row in table.rows]
    raise_together(f"{table.path}: the cohort table needs correcting", problems.lines())
    return entries


def _entry(name: str, path: Path, mpp: float | None) -> SlideEntry:
    return SlideEntry(name, path, "", None, np.empty(0, np.float32), mpp, None, 0)


def _count(slides: int) -> str:
    return f"{slides} slide{'' if slides == 1 else 's'}"
