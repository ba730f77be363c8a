# SPDX-License-Identifier: Apache-2.0
"""What was found in a slide, kept for the next time."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from persam_monai.cohort import SlideEntry
from persam_monai.errors import UserError
from persam_monai.files import replacing
from persam_monai.slide_files import files_of_slide
from persam_monai.slides import PatchCells, SlideHeader
from persam_monai.slides.header import header_from_dict, header_to_dict
from persam_monai.slides.packed import PackedMask

logger = logging.getLogger(__name__)

PAIRS = ("run", "step", "downsample", "extent")  # of PatchCells: a value for x and one for y
FORM = 3  # of the entries and of the way tissue is found; whoever changes either counts on


def index_home() -> str | None:
    """Where indices are kept by default: ``persam_monai/index`` in the user's cache folder (XDG base directories).

    Returns:
        ``None`` for a user without a home, such as a container's.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return None if home.startswith("~") else os.path.join(home, "persam_monai", "index")


class IndexCache:
    """A folder with one file per slide and settings.

    An entry holds as long as the slide's files have the same sizes and times of change. Names and contents of the
    entries say nothing of the slide's name. Processes may share the folder: entries are replaced whole.

    Args:
        folder: made when the first entry is kept.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).expanduser()
        self._writable = True

    def find(self, entry: SlideEntry, patches: Any) -> tuple[SlideHeader, PatchCells] | None:
        """What was found in a slide, or ``None`` if that is not known, out of date or damaged.

        Args:
            entry: the slide.
            patches: :class:`~persam_monai.data.index.PatchSettings` it was looked into with.
        """
        try:
            with np.load(self._file(entry, patches), allow_pickle=False) as stored:
                about = json.loads(bytes(stored["about"]))
                if about["identity"] != file_identity(entry.path):
                    return None
                tissue = PackedMask(stored["bits"], int(about["width"]), (about["scale"][0], about["scale"][1]))
                run, step, downsample, extent = ((about[name][0], about[name][1]) for name in PAIRS)
                cells = PatchCells(
                    stored["origins"], stored["choices"], run, step, downsample, extent, tissue, about["min_tissue"]
                )
                return header_from_dict(about["header"], entry.path), cells
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, EOFError, RuntimeError, BadZipFile, zlib.error) as error:
            logger.debug("The index of slide %s is damaged (%s) and made anew.", entry.slide, error)
            return None

    def store(
        self, entry: SlideEntry, patches: Any, header: SlideHeader, cells: PatchCells, identity: list[int] | None = None
    ) -> None:
        """Keep what was found in a slide. Where nothing can be written, that is said once and work goes on.

        Args:
            entry: the slide.
            patches: what it was looked into with.
            header: what was found, with ``cells``.
            cells: what was found, with ``header``.
            identity: the slide's before it was looked into; if it is another now, nothing is kept.
        """
        now = file_identity(entry.path)
        if not self._writable or now is None or now != (identity or now):
            return
        about = {
            "identity": now,
            "header": header_to_dict(header),
            "width": cells.tissue.width,
            "scale": cells.tissue.scale,
            **{name: getattr(cells, name) for name in (*PAIRS, "min_tissue")},
        }
        text = np.frombuffer(json.dumps(about).encode(), np.uint8)
        kept = self._file(entry, patches)
        try:
            with replacing(kept) as partial, partial.open("wb") as file:
                np.savez_compressed(
                    file, about=text, bits=cells.tissue.bits, origins=cells.origins, choices=cells.choices
                )
        except UserError as error:
            self._writable = False
            logger.warning("What is found in the slides is not kept for the next time: %s", error)

    def _file(self, entry: SlideEntry, patches: Any) -> Path:
        settings = {"slide_mpp": entry.mpp, **vars(patches)}
        numbers = {name: float(value) for name, value in settings.items() if isinstance(value, int | float)}
        key = (FORM, os.path.realpath(entry.path), sorted({**settings, **numbers}.items()))  # 1 and 1.0 are one
        return self.folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()}.npz"


def file_identity(path: Path) -> list[int] | None:
    """Changes when one of the slide's files does; ``None`` if they cannot be looked at."""
    try:
        found = [file.stat() for file in files_of_slide(path)]
    except OSError:
        return None
    return [number for status in found for number in (status.st_size, status.st_mtime_ns)]
