# SPDX-License-Identifier: Apache-2.0
"""Slides as a source of bags: what the bags need to know of each slide is found once and kept for the next time."""

from __future__ import annotations

import hashlib
import logging
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from persam_monai.cohort import SlideEntry
from persam_monai.data.workers import Busy, WorkerDied, as_it_is, decoding_threads, watch
from persam_monai.errors import UserError
from persam_monai.files import replacing
from persam_monai.settings import check_settings
from persam_monai.slide_files import files_of_slide
from persam_monai.slides import PackedMask, PatchCells, Slide, SlideHeader, open_slide, patch_cells, tissue_mask
from persam_monai.slides.header import HEADER_JSON

logger = logging.getLogger(__name__)

PAIRS = ("run", "step", "downsample", "extent")  # of PatchCells: a value for x and one for y
FORM = 4  # of kept indices and of how tissue is found; whoever changes either counts on


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
        cache: indices of earlier runs, if they are kept.
        num_workers: worker processes; 0 looks in the calling process. A slide that crashes a worker is an error like
            any other.
        index: looks into one slide.

    Returns:
        For each slide its index, or what is wrong with it.
    """
    indices: dict[int, SlideIndex | UserError] = {}
    if cache is not None:
        kept = ((i, cache.find(entry, patches)) for i, entry in enumerate(entries))
        indices = {i: known for i, known in kept if known is not None}
    identities = [file_identity(entry.path) for entry in entries]  # before: if a file changes meanwhile, it shows
    jobs = _Jobs(entries, patches, index, Busy(num_workers))
    with tqdm(desc=f"Looking into slides ({label})", total=len(entries), initial=len(indices), unit="slide") as bar:
        while missing := [i for i in range(len(entries)) if i not in indices]:
            loader = DataLoader(
                jobs,
                None,
                sampler=missing,
                num_workers=min(num_workers, len(missing)),
                collate_fn=as_it_is,
                generator=torch.Generator(),  # so that iterating draws nothing from the global generator
            )
            try:
                for i, result in watch(loader, jobs.busy):
                    indices[i] = result
                    if cache is not None and isinstance(result, SlideIndex):
                        cache.store(entries[i], patches, result, identities[i])
                    bar.update()
            except WorkerDied as death:
                i, indices[i] = death.blamed(entries, "Lower --num_workers.")
                bar.update()
    return [indices[i] for i in range(len(entries))]


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
        with self.busy.with_item(i):
            try:
                return i, self.index(self.entries[i], self.patches)
            except UserError as error:
                return i, error
            except MemoryError as error:  # what a damaged file claims to hold can be any number
                return i, UserError(f"Slide {self.entries[i].path} does not fit into memory ({error}); is it damaged?")


def index_home() -> str | None:
    """Where indices are kept by default: ``persam_monai/index`` in the user's cache folder (XDG base directories).

    Returns:
        ``None`` for a user without a home, such as a container's.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return None if home.startswith("~") else os.path.join(home, "persam_monai", "index")


class IndexCache:
    """A folder with one file per slide and settings.

    A kept index holds as long as the slide's files have the same sizes and times of change. Processes may share the
    folder: files are replaced whole.

    Args:
        folder: made when the first index is kept.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).expanduser()
        self._writable = True

    def find(self, entry: SlideEntry, patches: PatchSettings) -> SlideIndex | None:
        """A slide's index, or ``None`` if it is not known, out of date or damaged."""
        try:
            with np.load(self._file(entry, patches), allow_pickle=False) as stored:
                if stored["identity"].tolist() != file_identity(entry.path):
                    return None
                run, step, downsample, extent, scale = (tuple(stored[name].tolist()) for name in (*PAIRS, "scale"))
                tissue = PackedMask(stored["bits"], int(stored["width"]), scale)
                least = float(stored["min_tissue"])
                cells = PatchCells(stored["origins"], stored["choices"], run, step, downsample, extent, tissue, least)
                header = HEADER_JSON.validate_json(bytes(stored["header"]))
                return SlideIndex(header._replace(path=entry.path), cells)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, EOFError, RuntimeError, BadZipFile, zlib.error) as error:
            logger.debug("The index of slide %s is damaged (%s) and made anew.", entry.slide, error)
            return None

    def store(self, entry: SlideEntry, patches: PatchSettings, index: SlideIndex, identity: list[int] | None) -> None:
        """Keep a slide's index. Where nothing can be written, a warning says so once and work goes on."""
        if not self._writable or identity is None:
            return
        cells, tissue = index.cells, index.cells.tissue
        header = HEADER_JSON.dump_json(index.header._replace(path=Path()))  # a slide's name may be a patient's
        arrays = {name: getattr(cells, name) for name in ("origins", "choices", *PAIRS, "min_tissue")}
        arrays |= {"bits": tissue.bits, "width": tissue.width, "scale": tissue.scale}
        try:
            with replacing(self._file(entry, patches)) as partial, partial.open("wb") as file:
                np.savez_compressed(file, identity=identity, header=np.frombuffer(header, np.uint8), **arrays)
        except UserError as error:
            self._writable = False
            logger.warning("What is found in the slides is not kept for the next time: %s", error)

    def _file(self, entry: SlideEntry, patches: PatchSettings) -> Path:
        settings = [float(v) if isinstance(v, int) else v for v in (entry.mpp, *vars(patches).values())]  # 1 is 1.0
        key = (FORM, os.path.realpath(entry.path), *settings)
        return self.folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()}.npz"


def file_identity(path: Path) -> list[int] | None:
    """Changes when one of the slide's files does; ``None`` if they cannot be looked at."""
    try:
        files = [file.stat() for file in files_of_slide(path)]
    except OSError:
        return None
    return [number for status in files for number in (status.st_size, status.st_mtime_ns)]


class SlidePatches:
    """The patches of slides, as a source of bags.

    Args:
        patches: what a patch is.
        index_dir: folder where what is found in the slides is kept for the next time; ``None`` keeps nothing.
        index_workers: worker processes that look for tissue; 0 looks in the calling process.
    """

    pixels = True
    # Defaults of a training: one bag in a batch, for memory.
    batch_size, accumulation_steps, num_workers = 1, 8, 2
    feature_dim = 2048  # of the default extractor, ResNet50

    def __init__(
        self, patches: PatchSettings, index_dir: str | os.PathLike[str] | None = None, index_workers: int = 0
    ) -> None:
        self.patches = patches
        self.index_dir = index_dir
        self.index_workers = index_workers

    def dim_of(self, entries: Sequence[SlideEntry]) -> int:
        """As the default extractor has them; see :class:`~persam_monai.data.Source`."""
        return self.feature_dim

    def made_of(self, entries: Sequence[SlideEntry]) -> None:
        """Nothing: pixels are no features; see :class:`~persam_monai.data.Source`."""

    def look(self, entries: Sequence[SlideEntry], label: str = "slides") -> list[SlideInstances | UserError]:
        """Look for tissue in every slide; see :class:`~persam_monai.data.Source`."""
        cache = None if self.index_dir is None else IndexCache(self.index_dir)
        indices = index_slides(entries, self.patches, label, cache, self.index_workers)
        return [i if isinstance(i, UserError) else SlideInstances(i, self.patches) for i in indices]


@dataclass(frozen=True)
class SlideInstances:
    """The patches of one slide.

    Attributes:
        index: what was found in the slide.
        patches: what a patch is.
    """

    index: SlideIndex
    patches: PatchSettings

    def __len__(self) -> int:
        return len(self.index.cells)

    def read(
        self, chosen: np.ndarray, generator: np.random.Generator, threads: int = 1, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read one patch of each chosen cell; see :class:`~persam_monai.data.Instances`."""
        locations = self.index.cells.locate(chosen, generator)
        slide = open_slide(self.index.header)
        return slide.read_patches(locations, self.patches.size, self.patches.mpp, threads, out), locations
