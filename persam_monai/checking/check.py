# SPDX-License-Identifier: Apache-2.0
"""Look into slides, as a training does before its first epoch, and closer where that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from persam_monai.checking.picture import draw_picture
from persam_monai.cohort import SlideEntry
from persam_monai.data import IndexCache, PatchSettings, SlideIndex, generator_for, index_slides
from persam_monai.errors import UserError
from persam_monai.slide_files import without_ending
from persam_monai.slides import PackedMask, PatchCells, Slide, TissueMask, tissue_mask

AT_ONCE = 64  # patches that are read together


@dataclass(frozen=True)
class Wanted:
    """What is done besides looking for tissue.

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

    @property
    def tissue(self) -> float:
        """Share of the slide that is tissue, 0..1.

        Raises:
            ValueError: if the slide could not be looked into.
        """
        if self.index is None:
            raise ValueError("there is no mask of a slide that could not be looked into")
        return float(self.index.cells.tissue.unpack().mask.mean())

    @property
    def patches(self) -> int:
        """How many patches the slide gives to an epoch at most."""
        return 0 if self.index is None else len(self.index.cells)


def check_slides(
    entries: Sequence[SlideEntry],
    patches: PatchSettings,
    wanted: Wanted | None = None,
    cache: IndexCache | None = None,
    num_workers: int = 0,
) -> list[CheckedSlide]:
    """Look into slides.

    Args:
        entries: no path twice.
        patches: what a patch is.
        wanted: what is done besides; by default nothing.
        cache: where a training will look for what was found.
        num_workers: worker processes; 0 looks in the calling process.

    Raises:
        UserError: if the folder of the pictures cannot be made. What is wrong with a slide is in its result.
    """
    wanted = wanted or Wanted()
    if wanted.pictures is not None:
        _make(wanted.pictures)
    found = index_slides(entries, patches, "slides", cache, num_workers)
    indices = {entry.path: one for entry, one in zip(entries, found, strict=True) if isinstance(one, SlideIndex)}
    problems = [None if isinstance(one, SlideIndex) else one for one in found]
    # What cannot be used is looked at again, more forgivingly: its size and mask help to see why.
    everything = wanted.read or wanted.pictures is not None
    again = [i for i, problem in enumerate(problems) if everything or problem is not None]
    if again:
        closer = CloserLook(indices, wanted, picture_names(entries))
        label = "a closer look" if everything else "what cannot be used"
        looked = index_slides([entries[i] for i in again], patches, label, None, num_workers, closer)
        for i, one in zip(again, looked, strict=True):
            if isinstance(one, SlideIndex):
                indices[entries[i].path] = one
            else:
                problems[i] = problems[i] or one
    return [
        CheckedSlide(entry.slide, indices.get(entry.path), None if problem is None else str(problem))
        for entry, problem in zip(entries, problems, strict=True)
    ]


@dataclass(frozen=True)
class CloserLook:
    """Reads and draws a slide; goes to worker processes.

    Args:
        indices: by path, of the slides that can be used.
        wanted: what is done.
        names: the file of each slide's picture, by the slide's path.
    """

    indices: Mapping[Path, SlideIndex]
    wanted: Wanted
    names: Mapping[Path, str]

    def __call__(self, entry: SlideEntry, patches: PatchSettings) -> SlideIndex:
        """Look at one slide.

        Returns:
            What is known of it; without cells, if it cannot be used but opened.

        Raises:
            UserError: the first problem, when everything possible has been done.
        """
        usable = self.indices.get(entry.path)
        index = usable or _without_cells(entry, patches)
        problems = []
        steps: list[Callable[[], None]] = [lambda: self._draw(entry, index)]
        if self.wanted.read and usable:
            steps.insert(0, lambda: read_everywhere(index, patches))
        for step in steps:
            try:
                step()
            except UserError as error:
                problems.append(error)
        if problems:
            raise problems[0]
        return index

    def _draw(self, entry: SlideEntry, index: SlideIndex) -> None:
        folder, wanted = self.wanted.pictures, self.wanted
        if folder is not None:
            with Slide(entry.path, header=index.header) as slide:
                place = folder / self.names[entry.path]
                draw_picture(slide, index, entry.slide, wanted.patches, wanted.seed, place)


def read_everywhere(index: SlideIndex, patches: PatchSettings) -> None:
    """Read one patch of every cell of a slide.

    Args:
        index: what is known of the slide.
        patches: what a patch is.

    Raises:
        UserError: names the first damaged tile.
    """
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
        tissue: TissueMask = tissue_mask(slide)
        none = np.empty((0, 2), np.int32)
        packed = PackedMask.of(tissue)
        cells = PatchCells(none, none, (1, 1), (1, 1), (1.0, 1.0), (1.0, 1.0), packed, patches.min_tissue)
        return SlideIndex(slide.header, cells)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--pictures {folder}: the folder cannot be made: {error.strerror}.") from error
