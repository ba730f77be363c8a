# SPDX-License-Identifier: Apache-2.0
"""What the bags need to know of each slide before any patch is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from persam_monai.cohort import SlideEntry
from persam_monai.data.index_cache import IndexCache, file_identity
from persam_monai.data.workers import Busy, WorkerDied, as_it_is, decoding_threads, watch
from persam_monai.errors import UserError
from persam_monai.settings import check_settings
from persam_monai.slides import PatchCells, Slide, SlideHeader, patch_cells, tissue_mask


@dataclass(frozen=True)
class PatchSettings:
    """What a patch is.

    Args:
        size: side in pixels.
        mpp: µm per pixel.
        sampling: ``snapped`` to the file's tiles, ``uniform``, or a plain ``grid`` (see
            :func:`persam_monai.slides.patch_cells`).
        min_tissue: least share of tissue, 0..1.
        backend: how pixels are read (see :class:`persam_monai.slides.Slide`).
    """

    size: int = 224
    mpp: float = 0.25
    sampling: str = "snapped"
    min_tissue: float = 0.5
    backend: str = "auto"

    def __post_init__(self) -> None:
        check_settings({**vars(self), "patch_size": self.size})


class SlideIndex(NamedTuple):
    """A slide that has been looked into."""

    header: SlideHeader
    cells: PatchCells


def index_slide(entry: SlideEntry, patches: PatchSettings) -> SlideIndex:
    """Open a slide, look for tissue and lay the cells.

    Raises:
        UserError: if it cannot be opened or decoded, has no resolution, is too coarse or too small, or holds no tissue.
    """
    with Slide(entry.path, entry.mpp, patches.backend) as slide:
        # What the levels alone forbid, before any pixel is looked at.
        plan = slide.plan(patches.size, patches.mpp)
        if (np.array(slide.levels[plan.level].dimensions) < plan.region).any():
            raise UserError(
                f"Slide {entry.path} is smaller than a patch of {patches.size} px at {patches.mpp:g} µm/px. Take the "
                "row out of the table, or choose another --patch_size."
            )
        tissue = tissue_mask(slide, threads=decoding_threads())
        cells = patch_cells(slide, tissue, patches.size, patches.mpp, patches.sampling, patches.min_tissue)
        if not len(cells):
            raise UserError(
                f"Slide {entry.path}: no tissue found (no patch of {patches.size} px at {patches.mpp:g} µm/px is at "
                f"least {patches.min_tissue:.0%} tissue). Look at the slide (scripts/check_slides.py draws what was "
                "found); lower --min_tissue if it is really tissue, or take the row out of the table."
            )
        return SlideIndex(slide.header, cells)


def index_slides(
    entries: Sequence[SlideEntry],
    patches: PatchSettings,
    label: str = "slides",
    cache: IndexCache | None = None,
    num_workers: int = 0,
    index: Callable[[SlideEntry, PatchSettings], SlideIndex] = index_slide,
) -> list[SlideIndex | UserError]:
    """Look into every slide.

    Args:
        entries: the cohort's slides.
        patches: what a patch is.
        label: what the slides are for, shown by the progress bar.
        cache: what was found before, if it is kept.
        num_workers: worker processes; 0 looks in the calling process. A slide that crashes a worker is an error like
            any other.
        index: looks into one slide.

    Returns:
        For each slide what was found, or what is wrong with it.
    """
    found: dict[int, SlideIndex | UserError] = {}
    if cache is not None:
        kept = ((i, cache.find(entry, patches)) for i, entry in enumerate(entries))
        found = {i: SlideIndex(*one) for i, one in kept if one is not None}
    before = [file_identity(entry.path) for entry in entries]
    jobs = _Jobs(entries, patches, index, Busy(num_workers))
    with tqdm(desc=f"Looking into slides ({label})", total=len(entries), initial=len(found), unit="slide") as bar:
        while missing := [i for i in range(len(entries)) if i not in found]:
            loader = DataLoader(
                jobs,
                None,
                sampler=missing,
                num_workers=min(num_workers, len(missing)),
                collate_fn=as_it_is,
                generator=torch.Generator(),  # so that iterating draws nothing from the global generator
            )
            try:
                for i, one in watch(loader, jobs.busy, len(missing)):
                    found[i] = one
                    if cache is not None and isinstance(one, SlideIndex):
                        cache.store(entries[i], patches, one.header, one.cells, before[i])
                    bar.update()
            except WorkerDied as death:
                if not death.its_fault or death.item is None:
                    slide = "" if death.item is None else f" The slide was {entries[death.item].path}."
                    raise UserError(f"Slides cannot be looked into: {death}{slide} Lower --num_workers.") from death
                found[death.item] = UserError(f"Slide {entries[death.item].path} cannot be used: {death}")
                bar.update()
    return [found[i] for i in range(len(entries))]


class _Jobs(Dataset[tuple[int, SlideIndex | UserError]]):
    """Looking into slides, as a dataset that worker processes go through."""

    def __init__(
        self,
        entries: Sequence[SlideEntry],
        patches: PatchSettings,
        index: Callable[[SlideEntry, PatchSettings], SlideIndex],
        busy: Busy,
    ) -> None:
        self.entries = entries
        self.patches = patches
        self.index = index
        self.busy = busy

    def __getitem__(self, i: int) -> tuple[int, SlideIndex | UserError]:
        with self.busy.with_item(i, str(self.entries[i].path)):
            try:
                return i, self.index(self.entries[i], self.patches)
            except UserError as error:
                return i, error
            except MemoryError as error:  # what a damaged file claims to hold can be any number
                return i, UserError(f"Slide {self.entries[i].path} does not fit into memory ({error}); is it damaged?")
