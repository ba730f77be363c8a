# SPDX-License-Identifier: Apache-2.0
"""Which file holds the features of which slide, and whether it was made of that slide."""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Sequence
from pathlib import Path

from persam_monai.cohort import SlideEntry
from persam_monai.data.feature_made import FeatureInfo
from persam_monai.errors import UserError, raise_together
from persam_monai.slide_files import files_of_slide, without_ending

CLAM_FOLDERS = {".h5": "h5_files", ".pt": "pt_files"}
TWO_ENDINGS = ".ome"  # TRIDENT takes the whole of .ome.tif off a name
ENDS = 1 << 20  # bytes at a file's begin and end that a fingerprint covers
CURE = "Name another --features_dir, or make them with run extracting."


def feature_file(folder: str | os.PathLike[str], slide: str) -> Path:
    """Where ``run extracting`` puts a slide's features.

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
    parent, name = _below(slide)
    return Path(folder, parent, f"{without_ending(name)}.h5")


def find_features(folder: str | os.PathLike[str], slide: str) -> Path | None:
    """The file that holds a slide's features.

    The slide's own folder, ``folder`` and CLAM's folder are searched for the ending ``.h5``, then for ``.pt``. In each
    of them the whole name is tried, then that without its ending, then that without both endings of ``.ome.tif``.

    Args:
        folder: of all features.
        slide: the slide as the cohort table names it.

    Returns:
        ``None`` if there is none.
    """
    parent, name = _below(slide)
    stem = without_ending(name)
    stems = [name] if stem == name else [name, stem, stem.removesuffix(TWO_ENDINGS) or stem]
    for suffix, clam in CLAM_FOLDERS.items():
        for inner in (parent, "", clam):
            for text in stems:
                path = Path(folder, inner, text + suffix)
                if os.path.lexists(path):  # a folder too: reading says what is wrong with it
                    return path
    return None


def find_all(folder: Path, slides: Sequence[str], label: str = "slides") -> list[Path | None]:
    """The files of all slides."""
    if not folder.is_dir():
        raise UserError(f"The folder of features {folder} is not there, or is no folder. {CURE}")
    paths = [find_features(folder, slide) for slide in slides]
    if slides and not any(paths):
        raise UserError(f"None of the {len(slides)} slides for {label} has features. {missing(folder, slides[0])}")
    return paths


def missing(folder: Path, slide: str) -> str:
    """Where a slide's features were looked for, and what to do."""
    inner = [path for pattern in ("features_*", "*/features_*") for path in sorted(folder.glob(pattern))]
    # TRIDENT's features are in a folder of a job's.
    hint = f"It contains folders of features, such as {inner[0]}. " if inner else ""
    return (
        f"There is no {feature_file(folder, slide)}, and no .h5 or .pt file of that name in {folder}, h5_files and "
        f"pt_files. {hint}{CURE}"
    )


def check_distinct(entries: Sequence[SlideEntry], paths: Sequence[Path | None]) -> None:
    """Refuse that slides share a file."""
    slides: dict[Path, dict[str, int]] = {}
    for entry, path in zip(entries, paths, strict=True):
        if path is not None:
            slides.setdefault(path, {})[entry.slide] = entry.row
    raise_together(
        "Some slides of the table have the same file of features. Give each its own, in folders as the table has them. "
        "Files",
        [
            f"{path}: {' and '.join(f'{slide} (row {row})' for slide, row in several.items())}"
            for path, several in slides.items()
            if len(several) > 1
        ],
    )


def fingerprint(path: Path) -> str:
    """SHA-256 over size, first and last MiB of each of a slide's files: what a scanner writes differs there."""
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
    """Refuse a file that says of which slide it was made, if that is another slide.

    Args:
        info: of the file.
        entry: the slide that it is taken for. Where its file is not there, the name of the file of features decides.
        folder: of all features.
    """
    if info.fingerprint is None:
        return
    try:
        now = fingerprint(entry.path) if entry.path.is_file() else None
    except UserError:
        now = None
    own = feature_file(folder, entry.slide)
    if now == info.fingerprint or (now is None and info.path == own):
        return
    why = "the slide is not there to compare" if now is None else "its fingerprint is that of another file"
    raise UserError(
        f"{info.path} was not made of slide {entry.slide} ({why}). Make {own} anew (run extracting --overwrite true), "
        "or name another --features_dir."
    )


def _below(slide: str) -> tuple[str, str]:
    """Folder and name of a slide, as a path that leads nowhere but downwards."""
    parts = posixpath.normpath(slide.replace("\0", "/")).split("/")
    parts = [part for part in parts if part not in ("", ".", "..")]
    if not parts:
        raise UserError(f"The slide {slide!r} names no file, so its features have no name either. Correct the table.")
    return "/".join(parts[:-1]), parts[-1]
