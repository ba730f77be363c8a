# SPDX-License-Identifier: Apache-2.0
"""Which files a slide consists of, and what its name is without the ending."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from persam_monai.files import absolute

# What OpenSlide reads; then what it does not read, but others extract features of.
ENDINGS = (
    *(".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".dcm", ".svslide", ".czi"),
    *(".qptiff", ".isyntax", ".kfb", ".sdpc", ".vsi"),
)
HEAD = 1 << 16  # bytes of a DICOM file: what comes before the series identifier takes a few hundred
# PS3.5, section 7.1, explicit and implicit VR, little endian: (0020,000D) StudyInstanceUID and, next to it only at a
# file's top level, (0020,000E) SeriesInstanceUID.
SERIES = re.compile(rb" \0\x0d\0(?:UI..|..\0\0)[0-9.]+[\0 ]? \0\x0e\0(?:UI..|..\0\0)([0-9.]+)", re.DOTALL)


def without_ending(name: str) -> str:
    """A slide's name without its ending, if it has one of :data:`ENDINGS`. Other names may have dots of their own.

    Example:
        >>> without_ending("S21-1044.2.svs"), without_ending("S21-1044.2")
        ('S21-1044.2', 'S21-1044.2')
    """
    stem, ending = os.path.splitext(name)
    return stem if ending.lower() in ENDINGS else name


def slide_path(named: str | os.PathLike[str]) -> Path:
    """The file by which a slide is opened.

    A DICOM slide may be named by its folder or by any of its files: it is opened by the first of them.

    Returns:
        An absolute path. A folder stays as it is unless the DICOM files in it are one slide.
    """
    path = absolute(named)
    if not os.path.isdir(path):
        return files_of_slide(path)[0] if _series(path) else path
    try:
        first_of = {_series(file): file for file in sorted(path.iterdir(), reverse=True)}
    except OSError:  # whoever opens the slide says that it is no file
        return path
    found = [file for series, file in first_of.items() if series]
    return found[0] if len(found) == 1 else path


def files_of_slide(path: Path) -> list[Path]:
    """All files that a slide consists of, as OpenSlide finds them.

    These are of MIRAX the files in the folder of the same name, of Hamamatsu VMS and VMU those that the named file
    lists, of DICOM the files of the same series in the folder; of all others the named file alone.

    Args:
        path: the file by which the slide is opened.

    Raises:
        OSError: if the file or its folder cannot be read.
    """
    others: Iterable[Path] = ()
    kind = path.suffix.lower()
    if kind == ".mrxs":
        others = path.with_suffix("").glob("*")
    elif kind in (".vms", ".vmu"):
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        others = (path.parent / name for name in re.findall(r"=[ \t]*(.+?)\s*$", text, re.MULTILINE))
    elif series := _series(path):
        others = (file for file in path.parent.iterdir() if _series(file) == series)
    return sorted({path, *(file for file in others if os.path.isfile(file))})


def _series(file: Path) -> bytes | None:
    """The SeriesInstanceUID of a DICOM file; ``None`` of all others."""
    try:
        if not os.path.isfile(file):  # opening a pipe would wait for ever
            return None
        with file.open("rb") as content:
            head = content.read(HEAD)
    except OSError:
        return None
    found = SERIES.search(head) if head[128:132] == b"DICM" else None
    return found[1] if found else None
