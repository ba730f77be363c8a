# SPDX-License-Identifier: Apache-2.0
"""What the bags need to know of each slide before any patch is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tqdm import tqdm

from persam_monai.cohort import SlideEntry
from persam_monai.errors import UserError, raise_together
from persam_monai.settings import check_settings
from persam_monai.slides import PatchCells, Slide, patch_cells, tissue_mask


@dataclass(frozen=True)
class PatchSettings:
    """What a patch is.

    Args:
        size: side in pixels.
        mpp: µm per pixel.
        sampling: ``snapped`` to the file's tiles, or a plain ``grid`` (see :func:`persam_monai.slides.patch_cells`).
        min_tissue: least share of tissue, 0..1.
    """

    size: int = 224
    mpp: float = 0.25
    sampling: str = "snapped"
    min_tissue: float = 0.5

    def __post_init__(self) -> None:
        check_settings({**vars(self), "patch_size": self.size})


def index_slides(entries: Sequence[SlideEntry], patches: PatchSettings, label: str) -> list[PatchCells]:
    """Find the cells of every slide.

    Args:
        entries: the cohort's slides.
        patches: what a patch is.
        label: what the slides are for, shown by the progress bar.

    Raises:
        UserError: lists every slide that cannot be opened, has no resolution or holds no tissue.
    """
    # One after another: cuCIM crashes when several threads open slides at the same time.
    results = [
        _index_slide(entry, patches) for entry in tqdm(entries, desc=f"Looking for tissue ({label})", unit="slide")
    ]
    raise_together("Some slides cannot be used", [str(result) for result in results if isinstance(result, UserError)])
    return [result for result in results if isinstance(result, PatchCells)]


def _index_slide(entry: SlideEntry, patches: PatchSettings) -> PatchCells | UserError:
    """The cells of one slide, or what is wrong with it."""
    try:
        with Slide(entry.path, entry.mpp) as slide:
            cells = patch_cells(
                slide, tissue_mask(slide), patches.size, patches.mpp, patches.sampling, patches.min_tissue
            )
    except UserError as error:
        return error
    if not len(cells):
        return UserError(
            f"Slide {entry.path}: no tissue found (no patch of {patches.size} px at {patches.mpp:g} µm/px is at least "
            f"{patches.min_tissue:.0%} tissue). Look at the slide; lower --min_tissue if it is really tissue, or take "
            "the row out of the table."
        )
    return cells
