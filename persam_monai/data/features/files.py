# SPDX-License-Identifier: Apache-2.0
"""Features in files, as a source of bags."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from persam_monai.cohort import SlideEntry
from persam_monai.data.features.agreement import check_agreement, unsaid
from persam_monai.data.features.folder import any_info, check_distinct, check_folder, missing
from persam_monai.data.features.head import read_head
from persam_monai.data.features.info import FeatureInfo, Made
from persam_monai.data.features.instances import FeatureInstances
from persam_monai.data.features.naming import find_features
from persam_monai.data.features.stored import StoredFeatures
from persam_monai.data.index import PatchSettings
from persam_monai.errors import UserError
from persam_monai.settings import RATE

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
        if not RATE.admits(cache_gb):
            raise UserError(f"cache_gb is {cache_gb!r}; expected {RATE.expected}, in GiB.")
        self.folder = Path(folder)
        self.patches = PatchSettings(patch_size, mpp, "grid")
        self.extractor_name = extractor_name
        self.cache_gb = cache_gb
        self._any: FeatureInfo | None = None
        self._made: Made | None = None
        self._seen: dict[Path, FeatureInfo] = {}  # of all datasets that share this source
        self._warned: set[str] = set()

    @property
    def feature_dim(self) -> int:
        """Number of features of a patch: of the files that were looked into, else of any in the folder.

        Raises:
            UserError: if there is no file of features in the folder.
        """
        if self._seen:
            return next(iter(self._seen.values())).dim
        return self._found().dim

    @property
    def made(self) -> Made:
        """What all files that were looked into agree on.

        Raises:
            TypeError: before :meth:`look`.
        """
        if self._made is None:
            raise TypeError("It is not known yet what made the features: call look() first.")
        return self._made

    @property
    def made_by(self) -> dict[str, Any]:
        """What made the features: those that were looked into, else any in the folder.

        Raises:
            UserError: if there is no file of features in the folder.
        """
        return (self._made or self._found().made).to_dict()

    def look(self, entries: Sequence[SlideEntry], label: str = "slides") -> list[FeatureInstances | UserError]:
        """Look into the file of every slide; see :meth:`persam_monai.data.source.Source.look`.

        Raises:
            UserError: if no slide has features, two slides have the same file, or the files do not agree with the
                configuration, with each other or with those of an earlier call.
        """
        check_folder(self.folder)
        paths = [find_features(self.folder, entry.slide) for entry in entries]
        if entries and not any(paths):
            why = missing(self.folder, entries[0].slide)
            raise UserError(f"Not one of the {len(entries)} slides for {label} has features. {why}")
        check_distinct(entries, paths)
        pairs = tqdm(zip(entries, paths, strict=True), f"Looking into features ({label})", len(entries), unit="slide")
        found = [self._look(entry.slide, path) for entry, path in pairs]
        good = [one for one in found if isinstance(one, StoredFeatures)]
        if good:
            self._check([one.head.info for one in good])
        # The features of a batch have one type: a float16 becomes a float32, never the other way round.
        dtype = np.result_type(*(one.dtype for one in good)).name if good else ""
        place = os.path.realpath(self.folder)
        return [
            one if isinstance(one, UserError) else FeatureInstances(one, dtype, place, self.cache_gb) for one in found
        ]

    def _found(self) -> FeatureInfo:
        self._any = self._any or any_info(self.folder)
        return self._any

    def _look(self, slide: str, path: Path | None) -> StoredFeatures | UserError:
        if path is None:
            return UserError(f"Slide {slide} has no features. {missing(self.folder, slide)}")
        try:
            return StoredFeatures(read_head(path))
        except UserError as error:
            return error

    def _check(self, infos: Sequence[FeatureInfo]) -> None:
        """Refuse files that do not agree, and say once what files do not say."""
        seen = self._seen | {info.path: info for info in infos}
        expected = Made(self.extractor_name, mpp=self.patches.mpp, patch_size=self.patches.size)
        made = check_agreement(list(seen.values()), expected)
        if self._any is not None and self._any.dim != infos[0].dim:  # the network was made for it
            raise UserError(
                f"{self._any.path} has {self._any.dim} features of a patch, but the slides' files, such as "
                f"{infos[0].path}, have {infos[0].dim}. Keep features of one kind in a folder of their own."
            )
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
