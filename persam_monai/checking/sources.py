# SPDX-License-Identifier: Apache-2.0
"""Which slides are meant: files, the slides of a folder, or those of a cohort table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from persam_monai.cohort import TABLE_NAMES, Cohort, SlideEntry, counted, find_table
from persam_monai.errors import UserError
from persam_monai.slide_files import ENDINGS, slide_path


def find_slides(
    locations: Sequence[str | os.PathLike[str]], table: str | None = None, slide_mpp: float | None = None
) -> tuple[tuple[SlideEntry, ...], str]:
    """Find slides.

    Args:
        locations: slide files, and folders with a cohort table (see :meth:`persam_monai.cohort.Cohort.load_slides`) or
            with slides.
        table: name of the table inside the folders; ``None``: the only ``cohort.*`` there is, if any.
        slide_mpp: µm per level-0 pixel of slides that are in no table, in place of what the files say.

    Returns:
        Each slide once, in the order found, and a sentence that says where. Files that do not exist are among them:
        that is a slide's problem.

    Raises:
        UserError: if a folder is missing or has neither table nor slides, or a table cannot be read.
    """
    entries: list[SlideEntry] = []
    found: list[str] = []
    for location in map(Path, locations):
        if location.is_dir():
            some, where = _of_folder(location, table, slide_mpp)
            entries += some
            found.append(f"{counted(len(some), 'slide')} in {where}")
        elif not location.exists() and location.suffix.lower() not in ENDINGS:
            raise UserError(
                f"{location}: no such file or folder; expected a dataset folder, a folder of slides, or slides."
            )
        else:
            entries.append(_entry(str(location), slide_path(location), slide_mpp))
            found.append(str(location))
    once = {entry.path: entry for entry in reversed(entries)}  # the first one stays
    return tuple(entry for entry in entries if once[entry.path] is entry), f"{'; '.join(found)}."


def _of_folder(folder: Path, table: str | None, slide_mpp: float | None) -> tuple[list[SlideEntry], Path]:
    if table is not None or any((folder / name).is_file() for name in TABLE_NAMES):
        path = find_table(folder, table)
        return list(Cohort.load_slides(path, require_slides=False)), path
    files = [path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.is_file()]
    # macOS leaves ._a.svs beside a.svs
    files = sorted({slide_path(path) for path in files if not path.name.startswith(".")})
    if not files:
        raise UserError(
            f"{folder}: found neither {TABLE_NAMES[0]} nor slides; expected a dataset folder, or files ending in "
            f"{', '.join(ENDINGS)} in it (folders inside it are not searched)."
        )
    return [_entry(path.name, path, slide_mpp) for path in files], folder


def _entry(name: str, path: Path, mpp: float | None) -> SlideEntry:
    return SlideEntry(name, path, "", None, np.empty(0, np.float32), mpp, None, 0)
