# SPDX-License-Identifier: Apache-2.0
"""Which file holds the features of which slide."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from pathlib import Path

from persam_monai.errors import UserError
from persam_monai.slide_files import without_ending

CLAM_FOLDERS = {".h5": "h5_files", ".pt": "pt_files"}  # where CLAM puts its files
TWO_ENDINGS = ".ome"  # TRIDENT takes the whole of .ome.tif off a name


def feature_file(folder: str | os.PathLike[str], slide: str) -> Path:
    """Where our file of a slide's features goes.

    Args:
        folder: of all features.
        slide: the slide as the cohort table names it.

    Returns:
        The slide's path with ``.h5`` for its ending, if it has a slide's, below ``folder``: a path from the root loses
        the root, one that leads upwards loses its dots.

    Raises:
        UserError: if the text names no file.

    Example:
        >>> feature_file("features", "../slides/P001.tif").as_posix()
        'features/slides/P001.h5'
    """
    inner, name = _below(slide)
    return Path(folder, inner, f"{without_ending(name)}.h5")


def find_features(folder: str | os.PathLike[str], slide: str) -> Path | None:
    """The file that holds a slide's features.

    Args:
        folder: of all features.
        slide: the slide as the cohort table names it.

    Returns:
        The first of :func:`places` where there is a file; ``None`` if there is none.
    """
    # Also for a folder in a file's place: reading says what is wrong with that.
    return next((place for place in places(folder, slide) if os.path.lexists(place)), None)


def places(folder: str | os.PathLike[str], slide: str) -> Iterator[Path]:
    """Where a slide's features are looked for, in this order.

    In the slide's own folder, in ``folder`` and in CLAM's folder, ending in ``.h5``; the same ending in ``.pt``. In
    each of them the whole name is tried, then that without its ending, then that without both endings of ``.ome.tif``.
    """
    inner, name = _below(slide)
    stem = without_ending(name)
    stems = [name] if stem == name else [name, stem, stem.removesuffix(TWO_ENDINGS) or stem]
    seen = set()
    for suffix, clam in CLAM_FOLDERS.items():
        for parent in (inner, "", clam):
            for one in stems:
                place = Path(folder, parent, one + suffix)
                if place not in seen:
                    seen.add(place)
                    yield place


def _below(slide: str) -> tuple[str, str]:
    """Folder and name of a slide, as a path that leads nowhere but downwards."""
    parts = posixpath.normpath(slide.replace("\0", "/")).split("/")
    parts = [part for part in parts if part not in ("", ".", "..")]
    if not parts:
        raise UserError(f"The slide {slide!r} names no file, so its features have no name either. Mend the table.")
    return "/".join(parts[:-1]), parts[-1]
