# SPDX-License-Identifier: Apache-2.0
"""A look at all slides before a training of days, as the training takes before its first epoch."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from persam_monai.cohort import TABLE_NAMES, Cohort, SlideEntry, counted, find_table
from persam_monai.data import IndexCache, PatchSettings, SlideIndex, generator_for, index_slides
from persam_monai.errors import UserError
from persam_monai.files import replacing
from persam_monai.picture import draw_picture
from persam_monai.screen import text_table
from persam_monai.slide_files import ENDINGS, slide_path, without_ending
from persam_monai.slides import PackedMask, PatchCells, Slide, tissue_mask

AT_ONCE = 64  # patches that are read together
COLUMNS = ("slide", "width", "height", "mpp_x", "mpp_y", "backend", "tissue_percent", "patches", "problem")


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


@dataclass(frozen=True)
class CheckedSlide:
    """What is known of a slide now.

    Args:
        name: as in the table.
        index: header, mask and cells, which may be none; ``None`` if the slide could not be looked into.
        problem: what is wrong with it; ``None`` if a training can use it.
    """

    name: str
    index: SlideIndex | None
    problem: str | None

    def row(self) -> dict[str, str]:
        """The values of :data:`COLUMNS` as text; empty where they are not known."""
        values = dict.fromkeys(COLUMNS, "")
        values.update(slide=" ".join(self.name.split()), problem=" ".join((self.problem or "").split()))
        if self.index is not None:
            header, tissue = self.index.header, self.index.cells.tissue.unpack().mask.mean()
            width, height = header.levels[0].dimensions
            values.update(
                width=str(width),
                height=str(height),
                mpp_x=f"{header.mpp[0]:.4g}",
                mpp_y=f"{header.mpp[1]:.4g}",
                backend=header.backend,
                tissue_percent=f"{tissue:.1%}".removesuffix("%"),
                patches=str(len(self.index.cells)),
            )
        return values


@dataclass(frozen=True)
class CloserLook:
    """What is done besides looking for tissue; goes to worker processes.

    Args:
        read: read a patch of every location, so that damaged tiles are found.
        pictures: folder for a picture of each slide; ``None`` draws none.
        patches: most patches drawn into a picture.
        seed: of the patches that are drawn.
    """

    read: bool = False
    pictures: Path | None = None
    patches: int = 200
    seed: int = 0
    indices: Mapping[Path, SlideIndex] = field(default_factory=dict)  # by path, of the slides that can be used
    names: Mapping[Path, str] = field(default_factory=dict)  # of the pictures' files

    def __call__(self, entry: SlideEntry, patches: PatchSettings) -> SlideIndex:
        """What is known of a slide, without cells if it can be opened but not used.

        Raises:
            UserError: the first problem, when everything possible has been done.
        """
        usable = self.indices.get(entry.path)
        index = usable or _without_cells(entry, patches)
        steps: list[Callable[[], None]] = []
        if self.read and usable:
            steps.append(lambda: _read_everywhere(index, patches))
        if self.pictures is not None:
            file = self.pictures / self.names[entry.path]
            steps.append(lambda: draw_picture(index, entry.slide, self.patches, self.seed, file))
        problems = []
        for step in steps:
            try:
                step()
            except UserError as error:
                problems.append(error)
        if problems:
            raise problems[0]
        return index


def check_slides(
    entries: Sequence[SlideEntry],
    patches: PatchSettings,
    closer: CloserLook,
    cache: IndexCache | None,
    num_workers: int,
) -> list[CheckedSlide]:
    """Look into slides.

    Args:
        entries: no path twice.
        patches: what a patch is.
        closer: what is done besides.
        cache: where a training will look for what was found.
        num_workers: worker processes; 0 looks in the calling process.
    """
    if closer.pictures is not None:
        try:
            closer.pictures.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--pictures {closer.pictures}: the folder cannot be made: {error.strerror}.") from error
    found = index_slides(entries, patches, "slides", cache, num_workers)
    indices = {entry.path: one for entry, one in zip(entries, found, strict=True) if isinstance(one, SlideIndex)}
    problems = [None if isinstance(one, SlideIndex) else one for one in found]
    # What cannot be used is looked at again, more forgivingly: its size and mask help to see why.
    everything = closer.read or closer.pictures is not None
    again = [i for i, problem in enumerate(problems) if everything or problem is not None]
    if again:
        closer = replace(closer, indices=indices, names=picture_names(entries))
        label = "a closer look" if everything else "what cannot be used"
        looked = index_slides([entries[i] for i in again], patches, label, None, num_workers, closer)
        for i, one in zip(again, looked, strict=True):
            if isinstance(one, SlideIndex):
                indices = {**indices, entries[i].path: one}
            else:
                problems[i] = problems[i] or one
    return [
        CheckedSlide(entry.slide, indices.get(entry.path), None if problem is None else str(problem))
        for entry, problem in zip(entries, problems, strict=True)
    ]


def _read_everywhere(index: SlideIndex, patches: PatchSettings) -> None:
    """Read one patch of every cell of a slide; the error names the first damaged tile."""
    header, generator = index.header, generator_for(0, "check")
    if header.backend == "cucim":  # it gives the pixels of another tile for one that it cannot decode, and no error
        header = header._replace(backend="openslide")
    with Slide(header.path, header=header) as slide:
        for first in range(0, len(index.cells), AT_ONCE):
            cells = np.arange(first, min(first + AT_ONCE, len(index.cells)))
            slide.read_patches(index.cells.locate(cells, generator), patches.size, patches.mpp)


def picture_names(entries: Sequence[SlideEntry]) -> dict[Path, str]:
    """A file for each slide's picture: its name without ending, and a number where taken (``a.png``, ``a-2.png``)."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for entry in entries:
        stem, number = without_ending(Path(entry.slide).name), 1
        while (name := stem if number == 1 else f"{stem}-{number}").casefold() in taken:
            number += 1
        taken.add(name.casefold())  # some file systems take A.png and a.png for one
        names[entry.path] = f"{name}.png"
    return names


def _without_cells(entry: SlideEntry, patches: PatchSettings) -> SlideIndex:
    """Header and mask of a slide that gives no patches."""
    with Slide(entry.path, entry.mpp, patches.backend) as slide:
        none, packed = np.empty((0, 2), np.int32), PackedMask.of(tissue_mask(slide))
        cells = PatchCells(none, none, (1, 1), (1, 1), (1.0, 1.0), (1.0, 1.0), packed, patches.min_tissue)
        return SlideIndex(slide.header, cells)


def slide_lines(slides: Sequence[CheckedSlide]) -> list[str]:
    """A table for the terminal, a line per slide, and how many slides can be used."""
    rows = []
    for values in (slide.row() for slide in slides):
        size, tissue = f"{values['width']} x {values['height']}", f"{values['tissue_percent']} %"
        mpp = " x ".join(dict.fromkeys((values["mpp_x"], values["mpp_y"])))
        facts = [size, mpp, values["backend"], tissue, values["patches"]] if values["width"] else [""] * 5
        rows.append([values["slide"], *facts, values["problem"]])
    usable = [slide.index for slide in slides if slide.problem is None and slide.index is not None]
    patches = sum(len(index.cells) for index in usable)
    return [
        *text_table(["slide", "size", "mpp", "backend", "tissue", "patches", "problem"], rows, right=(1, 2, 4, 5)),
        f"{counted(len(slides), 'slide')}: {len(usable)} usable with {patches} patches in all, "
        f"{len(slides) - len(usable) or 'none'} with problems.",
    ]


def write_table(path: str | os.PathLike[str], slides: Sequence[CheckedSlide]) -> None:
    """Write what the lines say as CSV, whole or not at all."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(slide.row() for slide in slides)
