# SPDX-License-Identifier: Apache-2.0
"""The files that an extraction is to leave, and whether they are there already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import persam_monai
from persam_monai.cohort import SlideEntry
from persam_monai.data import PatchSettings
from persam_monai.data.features import Made, feature_file, read_info
from persam_monai.data.features.fingerprints import fingerprint
from persam_monai.data.features.info import short
from persam_monai.errors import UserError, raise_together
from persam_monai.networks import PatchExtractor, extractor_name, weights_sha256

FORM = 1  # of the way features are made; whoever changes it so that other features come out counts on
# Kept in the files, but features do not depend on them beyond the last bits.
FREE = frozenset({"backend", "extractor_batch"})
CURE = "Name another --features_dir, or replace them with --overwrite true"


def made_with(extractor: PatchExtractor, patches: PatchSettings, precision: str, batch: int) -> Made:
    """What an extraction makes features with.

    Args:
        extractor: with its weights.
        patches: what a patch is.
        precision: of the arithmetic.
        batch: patches that go through the extractor at once.
    """
    settings = {
        "form": FORM,
        "sampling": patches.sampling,
        "min_tissue": patches.min_tissue,
        "backend": patches.backend,
        "pixel_mean": extractor.pixel_mean.tolist(),
        "pixel_std": extractor.pixel_std.tolist(),
        "input_size": extractor.input_size or None,
        "precision": precision,
        "extractor_batch": batch,
    }
    name, weights = extractor_name(extractor.backbone), weights_sha256(extractor.backbone)
    return Made(name, weights, float(patches.mpp), patches.size, settings, persam_monai.__version__)


class UnreadableSlideError(UserError):
    """A slide whose file cannot be read now, whatever is kept of it: that slide's problem and no other's."""


@dataclass(frozen=True)
class Target:
    """A slide and the file of its features.

    Attributes:
        entry: the slide.
        file: where the features go.
        made: what they are to be made with.
        dtype: ``float16`` or ``float32``.
        overwrite: whether features that were made otherwise may be replaced.
        any_precision: whether features that were made in another precision are as good.
    """

    entry: SlideEntry
    file: Path
    made: Made
    dtype: str
    overwrite: bool
    any_precision: bool = False

    @cached_property
    def fingerprint(self) -> str:
        """Of the slide's file as it was when this was first asked for.

        Raises:
            UnreadableSlideError: if it cannot be read.
        """
        try:
            return fingerprint(self.entry.path)
        except UserError as error:
            raise UnreadableSlideError(str(error)) from error

    def is_there(self) -> bool:
        """Whether the file is there and was made as it is to be.

        Raises:
            UserError: if it is there, was made otherwise, and may not be replaced.
            UnreadableSlideError: if it is there, and whether the slide is still the same cannot be told.
        """
        differences = self.differences()
        if differences and not self.overwrite:
            raise UserError(f"{self.file} was made otherwise: {'; '.join(differences)}. {CURE}.")
        return differences == []

    def differences(self) -> list[str] | None:
        """What distinguishes the file from what it is to be, for messages; ``None`` if there is no file.

        Raises:
            UnreadableSlideError: if the slide cannot be read, and nothing else is different.
        """
        if not os.path.lexists(self.file):
            return None
        try:
            info = read_info(self.file)
        except UserError as error:
            return [f"it cannot be read ({error})"]
        before, now = self._compared(info.made, info.dtype), self._compared(self.made, self.dtype)
        found = [
            f"{name} was {short(before.get(name))} and is now {short(now.get(name))}"
            for name in {**now, **before}
            if before.get(name) != now.get(name)
        ]
        if not found and info.fingerprint != self.fingerprint:
            found = ["the slide's file was another"]
        return found

    def _compared(self, made: Made, dtype: str) -> dict[str, Any]:
        """All that must agree, by name."""
        free = FREE | {"precision"} if self.any_precision else FREE
        settings = {name: value for name, value in made.settings.items() if name not in free}
        fixed = {"extractor": made.extractor, "weights": made.weights, "mpp": made.mpp, "patch_size": made.patch_size}
        return {**fixed, **settings, "features_dtype": dtype}


def targets(
    entries: Sequence[SlideEntry],
    folder: Path,
    made: Made,
    dtype: str = "float16",
    overwrite: bool = False,
    any_precision: bool = False,
) -> list[Target]:
    """The files that features of slides go to.

    Args:
        entries: the slides.
        folder: of all features.
        made: what they are made with.
        dtype: of the features in the files.
        overwrite: whether features that were made otherwise may be replaced.
        any_precision: whether features that were made in another precision are as good.

    Raises:
        UserError: if two slides have the same file.
    """
    found = [
        Target(entry, feature_file(folder, entry.slide), _for(entry, made), dtype, overwrite, any_precision)
        for entry in entries
    ]
    first_of: dict[Path, Target] = {}
    for one in found:
        first_of.setdefault(one.file, one)
    raise_together(
        "The features of some slides would go to the same file. Rename one of each two, or extract them by two tables "
        "into two folders",
        [
            f"{first_of[one.file].entry.slide} (row {first_of[one.file].entry.row}) and {one.entry.slide} (row "
            f"{one.entry.row}): {one.file}"
            for one in found
            if first_of[one.file] is not one
        ],
    )
    return found


def _for(entry: SlideEntry, made: Made) -> Made:
    """``made`` of one slide: a resolution that the table says for it, against its file, changes what a patch is."""
    return made if entry.mpp is None else replace(made, settings={**made.settings, "slide_mpp": float(entry.mpp)})
