# SPDX-License-Identifier: Apache-2.0
"""A folder of features: whether it is there, what is in it, what is missing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from persam_monai.cohort import SlideEntry
from persam_monai.data.features.naming import CLAM_FOLDERS, feature_file
from persam_monai.errors import UserError, raise_together
from persam_monai.slide_files import without_ending

CURE = "Name another --features_dir, or make them with run extracting."
SHOWN = 5  # folders in a message


def check_folder(folder: Path) -> None:
    """Refuse a folder that is none."""
    if not folder.is_dir():
        found = "is no folder" if folder.exists() else "does not exist"
        raise UserError(f"The folder of features {folder} {found}. {CURE}")


def missing(folder: Path, slide: str) -> str:
    """Where a slide's features were looked for, and what to do."""
    name = PurePosixPath(slide).name
    inner = ", ".join(str(path.relative_to(folder)) for path in _inner_folders(folder))
    hint = f"There are folders of features in it: {inner}. " if inner else ""
    return (
        f"Looked for {feature_file(folder, slide)}, and in {folder}, {' and '.join(CLAM_FOLDERS.values())} for "
        f"{' and '.join(dict.fromkeys((name, without_ending(name))))} with the endings {' and '.join(CLAM_FOLDERS)}. "
        f"{hint}{CURE}"
    )


def check_distinct(entries: Sequence[SlideEntry], paths: Sequence[Path | None]) -> None:
    """Refuse that slides share a file.

    Args:
        entries: the slides.
        paths: their files.

    Raises:
        UserError: lists the files and their slides.
    """
    slides: dict[str, dict[str, int]] = {}
    for entry, path in zip(entries, paths, strict=True):
        if path is not None:
            slides.setdefault(os.path.realpath(path), {})[entry.slide] = entry.row
    raise_together(
        "Some slides of the table have the same file of features. Give each its own, in folders as the table has them. "
        "Files",
        [
            f"{path}: {' and '.join(f'{slide} (row {row})' for slide, row in several.items())}"
            for path, several in slides.items()
            if len(several) > 1
        ],
    )


def _inner_folders(folder: Path) -> list[Path]:
    """Folders of features in a folder, as TRIDENT lays them out."""
    found = (path for pattern in ("features_*", "*/features_*") for path in sorted(folder.glob(pattern)))
    return [path for path in found if path.is_dir()][:SHOWN]
