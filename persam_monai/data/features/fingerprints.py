# SPDX-License-Identifier: Apache-2.0
"""Whether a file of features was made of the slide that it is taken for."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from persam_monai.cohort import SlideEntry
from persam_monai.data.features.info import FeatureInfo
from persam_monai.data.features.naming import feature_file
from persam_monai.errors import UserError
from persam_monai.slide_files import files_of_slide

ENDS = 1 << 20  # bytes at a file's begin and end that a fingerprint looks at
MOVE = "Make its own with run extracting, or, if these are its own, move the file there."
REPLACED = (
    "If the slide was replaced, make its features anew (run extracting --overwrite true); if they are another "
    "cohort's, name another --features_dir."
)


def fingerprint(path: Path) -> str:
    """SHA-256 over the size and the first and last MiB of each of a slide's files: what a scanner writes differs there.

    Raises:
        UserError: if it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for part in files_of_slide(path):
            with part.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                digest.update(f"{size}\0".encode())
                digest.update(file.read(ENDS))
                file.seek(max(0, size - ENDS))
                digest.update(file.read(ENDS))
    except OSError as error:
        raise UserError(f"Slide {path} cannot be read: {error.strerror or error}.") from error
    return digest.hexdigest()


def check_slide(info: FeatureInfo, entry: SlideEntry, folder: Path) -> None:
    """Refuse a file of our own that was made of another slide. Others' files do not say of which they were made.

    Args:
        info: of the file.
        entry: the slide that it is taken for. If its file is there, the fingerprints are compared.
        folder: of all features.

    Raises:
        UserError: if the fingerprints differ, or if there is nothing to compare and the file lies where the features of
            another slide belong.
    """
    if (
        info.form != "persam_monai" or info.fingerprint is None
    ):  # the latter were converted, and lie where they were put
        return
    now = _fingerprint_if_there(entry.path)
    own = feature_file(folder, entry.slide)
    if now is not None and now == info.fingerprint:
        return
    if info.path != own:
        why = "cannot be compared" if now is None else "was another file"
        raise UserError(
            f"Slide {entry.slide} has no features at {own}. {info.path} is where run extracting puts those of another "
            f"slide of that name, and the slide that it was made of {why}. {MOVE}"
        )
    if now is not None:
        raise UserError(
            f"The features of slide {entry.slide}, {info.path}, were made of another file than {entry.path}. {REPLACED}"
        )


def _fingerprint_if_there(path: Path) -> str | None:
    """A slide's fingerprint; none if it is not there or cannot be read, for features do not need it."""
    try:
        return fingerprint(path) if path.is_file() else None
    except (UserError, OSError):
        return None
