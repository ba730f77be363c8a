# SPDX-License-Identifier: Apache-2.0
"""Features in files, as a source of bags."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from persam_monai.cohort import SlideEntry
from persam_monai.data.features.agreement import check_agreement, same_extractor, unsaid
from persam_monai.data.features.fingerprints import check_slide
from persam_monai.data.features.folder import check_distinct, check_folder, missing
from persam_monai.data.features.head import Head, read_head
from persam_monai.data.features.info import FeatureInfo, Made
from persam_monai.data.features.instances import FeatureInstances
from persam_monai.data.features.naming import find_features
from persam_monai.data.features.stored import StoredFeatures
from persam_monai.data.index import PatchSettings
from persam_monai.errors import UserError, raise_together
from persam_monai.settings import RATE, or_none

logger = logging.getLogger(__name__)


class FeatureFiles:
    """The features of slides, as a source of bags: a file for each slide, in one folder.

    Args:
        folder: of all features.
        patch_size: side in pixels of the patches that they should be made of.
        mpp: µm per pixel that they should be made at.
        extractor_name: what they should be made with; ``None`` for whatever it is.
        cache_gb: memory for features that have been read, in GiB. The workers of a data loader share it evenly.

    Raises:
        UserError: if a setting is not possible.
    """

    pixels = False

    def __init__(
        self,
        folder: str | os.PathLike[str],
        patch_size: int = 224,
        mpp: float = 0.25,
        extractor_name: str | None = None,
        cache_gb: float = 4.0,
    ) -> None:
        gigabytes = _number(cache_gb)
        if not RATE.admits(gigabytes) or gigabytes == math.inf:
            raise UserError(f"cache_gb is {cache_gb!r}; expected {RATE.expected}, in GiB.")
        self.folder = Path(folder)
        self.patches = PatchSettings(patch_size, mpp, "grid")
        self.extractor_name: str | None = or_none(extractor_name)
        self.cache_gb: float = gigabytes
        self._made: Made | None = None
        self._seen: dict[Path, FeatureInfo] = {}  # of all datasets that share this source
        self._warned: set[str] = set()

    @property
    def made(self) -> Made:
        """What all files that were looked into agree on.

        Raises:
            TypeError: before :meth:`look`.
        """
        if self._made is None:
            raise TypeError("It is not known yet what made the features: call look() first.")
        return self._made

    def made_of(self, entries: Sequence[SlideEntry]) -> dict[str, Any]:
        """What makes the extractor the same, as the first file of the slides says that can be read.

        Whether all files agree with it is found by :meth:`look`. See :meth:`persam_monai.data.source.Source.made_of`.

        Args:
            entries: the cohort's slides.

        Raises:
            UserError: if not one of the slides has features that can be read.
        """
        return same_extractor(self._first(entries).made)

    def dim_of(self, entries: Sequence[SlideEntry]) -> int:
        """Number of features of a patch, as the first file of the slides says that can be read.

        Args:
            entries: the cohort's slides.

        Raises:
            UserError: if not one of the slides has features that can be read.
        """
        return self._first(entries).dim

    def look(self, entries: Sequence[SlideEntry], label: str = "slides") -> list[FeatureInstances | UserError]:
        """Look into the file of every slide; see :meth:`persam_monai.data.source.Source.look`.

        Raises:
            UserError: if no slide has features, two slides have the same file, or the files do not agree with the
                configuration, with each other or with those of an earlier call.
        """
        paths = self._find(entries, f" for {label}")
        pairs = tqdm(zip(entries, paths, strict=True), f"Looking into features ({label})", len(entries), unit="slide")
        found = [self._look(entry, path) for entry, path in pairs]
        # A file that is not taken for a slide is that slide's problem alone.
        taken = [path if isinstance(one, StoredFeatures) else None for path, one in zip(paths, found, strict=True)]
        check_distinct(entries, taken)
        good = [one for one in found if isinstance(one, StoredFeatures)]
        if good:
            self._check([one.head.info for one in good])
        # The features of a batch have one type: a float16 becomes a float32, never the other way round.
        dtype = np.result_type(*(one.dtype for one in good)).name if good else ""
        place = os.path.realpath(self.folder)
        return [
            one if isinstance(one, UserError) else FeatureInstances(one, dtype, place, self.cache_gb) for one in found
        ]

    def _find(self, entries: Sequence[SlideEntry], purpose: str = "") -> list[Path | None]:
        """The slides' files; an error if none has any."""
        check_folder(self.folder)
        paths = [find_features(self.folder, entry.slide) for entry in entries]
        if entries and not any(paths):
            why = missing(self.folder, entries[0].slide)
            raise UserError(f"Not one of the {len(entries)} slides{purpose} has features. {why}")
        return paths

    def _first(self, entries: Sequence[SlideEntry]) -> FeatureInfo:
        """Of the first slide whose features can be read and say what made them, else of the first that can be read.

        All that are looked into later must agree with it.
        """
        problems, silent = [], None
        for entry, path in zip(entries, self._find(entries), strict=True):
            if path is not None:
                try:
                    info = self._head(entry, path).info
                except UserError as error:
                    problems.append(str(error))
                else:
                    if info.made.extractor or info.made.weights:
                        return self._seen.setdefault(info.path, info)
                    silent = silent or info
        if silent is not None:
            return self._seen.setdefault(silent.path, silent)
        raise_together(f"Not one of the {len(entries)} slides has features that can be read", problems, shown=3)
        raise ValueError("There are no slides, so nothing is known of their features.")

    def _look(self, entry: SlideEntry, path: Path | None) -> StoredFeatures | UserError:
        if path is None:
            return UserError(f"Slide {entry.slide} has no features. {missing(self.folder, entry.slide)}")
        try:
            return StoredFeatures(self._head(entry, path))
        except UserError as error:
            return error

    def _head(self, entry: SlideEntry, path: Path) -> Head:
        head = read_head(path)
        check_slide(head.info, entry, self.folder)
        return head

    def _check(self, infos: Sequence[FeatureInfo]) -> None:
        """Refuse files that do not agree, and say once what files do not say."""
        seen = self._seen | {info.path: info for info in infos}
        expected = Made(self.extractor_name, mpp=self.patches.mpp, patch_size=self.patches.size)
        made = check_agreement(list(seen.values()), expected)
        self._made, self._seen = made, seen
        for name, count in unsaid(infos, expected).items():
            self._warn(
                name,
                f"{count} of {len(infos)} files of features do not say their {name}; it is taken to be "
                f"{getattr(expected, name)}, as the configuration says.",
            )
        if any(info.form == "pt" for info in infos):
            self._warn("coords", "Features of .pt files have no positions: attention cannot be shown on the slides.")

    def _warn(self, about: str, text: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            logger.warning("%s", text)


def _number(value: Any) -> Any:
    """The number that a text says, if it says one; the command line may hand over text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
