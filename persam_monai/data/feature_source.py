# SPDX-License-Identifier: Apache-2.0
"""Features in files, as a source of bags; those that have been read stay in memory as far as the bound allows."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import get_worker_info
from tqdm import tqdm

from persam_monai.cohort import SlideEntry
from persam_monai.data.feature_finding import check_distinct, check_slide, find_all, missing
from persam_monai.data.feature_made import EXTRACTOR, FeatureInfo, Made, differences, short
from persam_monai.data.index import PatchSettings, SlidePatches
from persam_monai.data.stored_features import StoredFeatures, open_features
from persam_monai.errors import UserError, raise_together
from persam_monai.settings import check_settings

logger = logging.getLogger(__name__)

INDEX_WORKERS = 2  # processes that look for tissue, so that a slide that crashes a library takes no training with it
COMPARED = (*EXTRACTOR, "mpp", "patch_size", "dim")
GB = 1024**3
OPTIONS = {"extractor": "--extractor_name", "mpp": "--mpp", "patch_size": "--patch_size"}


class FeatureCache:
    """Whole files in memory, and single rows from the disk where the bound is reached.

    A file in the cache stays: where a set is larger than the cache, a part of it is always there, and of the rest the
    rows of each bag are read.

    Args:
        bound: most bytes of features and positions that are kept. 0 keeps none.
    """

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.kept: dict[Path, tuple[StoredFeatures, np.ndarray, np.ndarray]] = {}
        self.nbytes = 0  # of all that is kept: a sum over hundreds of files would be made for every bag

    def rows(self, stored: StoredFeatures, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Some rows of a file: features ``[n, D]`` and positions ``[n, 2]``, the caller's own."""
        path = stored.info.path
        if path in self.kept and self.kept[path][0].identity != stored.identity:
            self.nbytes -= self.kept.pop(path)[0].nbytes  # it was made anew
        if path not in self.kept:
            if self.nbytes + stored.nbytes > self.bound:
                return stored.read(chosen)
            self.kept[path] = (stored, *stored.read())
            self.nbytes += stored.nbytes
        _, features, coords = self.kept[path]
        return features[chosen], coords[chosen]


_caches: dict[tuple[str, int], FeatureCache] = {}  # of this process


def cache_for(folder: str, gigabytes: float) -> FeatureCache:
    """This process's cache for a folder.

    Args:
        folder: of the features.
        gigabytes: most that is kept; the workers of a data loader share it evenly.
    """
    worker = get_worker_info()
    bound = int(gigabytes * GB) // (1 if worker is None else worker.num_workers)
    if (folder, bound) not in _caches:
        _caches[folder, bound] = FeatureCache(bound)
    return _caches[folder, bound]


@dataclass(frozen=True)
class FeatureInstances:
    """The features of one slide, as instances of bags. Can be sent to another process.

    Attributes:
        stored: their file.
        dtype: ``float16`` or ``float32``, of what is read; the same for all slides that were looked into together.
        folder: of all features.
        cache_gb: memory for features that have been read, in GiB.
    """

    stored: StoredFeatures
    dtype: str
    folder: str
    cache_gb: float

    @property
    def dim(self) -> int:
        """Number of features of a patch."""
        return self.stored.info.dim

    @property
    def extent(self) -> tuple[float, float] | None:
        """Width and height of a patch in level-0 pixels, if the file says so."""
        return self.stored.info.extent

    def __len__(self) -> int:
        return self.stored.info.count

    def read(
        self, chosen: np.ndarray, generator: np.random.Generator, threads: int = 1, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read the chosen rows; see :meth:`persam_monai.data.Instances.read`.

        Nothing is left to chance: a row has one position. Where the file has none, it is −1.
        """
        features, coords = cache_for(self.folder, self.cache_gb).rows(self.stored, chosen)
        if out is None:
            return features.astype(self.dtype, copy=False), coords
        out[...] = features
        return out, coords


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
    # Defaults of a training: as many bags a step as from slides, but together, read by the training's own process.
    batch_size, accumulation_steps, num_workers = 8, 1, 0

    def __init__(
        self,
        folder: str | os.PathLike[str],
        patch_size: int = 224,
        mpp: float = 0.25,
        extractor_name: str | None = None,
        cache_gb: float = 4.0,
    ) -> None:
        check_settings({"cache_gb": cache_gb})
        self.folder = Path(folder)
        self.patches = PatchSettings(patch_size, mpp, "grid")
        self.extractor_name = extractor_name
        self.cache_gb = cache_gb
        # What all files must agree on, and who says so; from all datasets that share this source.
        self._known: dict[str, tuple[Any, str]] = {}
        self._warned: set[str] = set()

    def made_of(self, entries: Sequence[SlideEntry]) -> dict[str, Any]:
        """What makes the extractor the same, as the first file of the slides says that can be read.

        Whether all files agree with it is checked by :meth:`look`. See :meth:`persam_monai.data.Source.made_of`.
        """
        return self._first(entries).made.of_extractor()

    def dim_of(self, entries: Sequence[SlideEntry]) -> int:
        """Number of features of a patch, as the first file of the slides says that can be read."""
        return self._first(entries).dim

    def look(self, entries: Sequence[SlideEntry], label: str = "slides") -> list[FeatureInstances | UserError]:
        """Look into the file of every slide; see :meth:`persam_monai.data.Source.look`.

        Raises:
            UserError: if no slide has features, two slides have the same file, or the files do not agree with the
                configuration, with each other or with those of an earlier call.
        """
        paths = find_all(self.folder, [entry.slide for entry in entries], label)
        pairs = tqdm(zip(entries, paths, strict=True), f"Looking into features ({label})", len(entries), unit="slide")
        looked = [self._open(entry, path) for entry, path in pairs]
        # A file that is not taken for a slide is that slide's problem alone.
        used = [item.info.path if isinstance(item, StoredFeatures) else None for item in looked]
        check_distinct(entries, used)
        good = [item for item in looked if isinstance(item, StoredFeatures)]
        self._check([item.info for item in good])
        # The features of a batch have one type: a float16 becomes a float32, never the other way round.
        dtype = np.result_type(*(item.dtype for item in good)).name if good else ""
        folder = os.path.realpath(self.folder)
        return [
            item if isinstance(item, UserError) else FeatureInstances(item, dtype, folder, self.cache_gb)
            for item in looked
        ]

    def _open(self, entry: SlideEntry, path: Path | None) -> StoredFeatures | UserError:
        try:
            if path is None:
                raise UserError(f"Slide {entry.slide} has no features. {missing(self.folder, entry.slide)}")
            stored = open_features(path)
            check_slide(stored.info, entry, self.folder)
        except UserError as error:
            return error
        return stored

    def _first(self, entries: Sequence[SlideEntry]) -> FeatureInfo:
        """Of the first slide whose features can be read. All that are looked into later must agree with it."""
        problems = []
        for entry, path in zip(entries, find_all(self.folder, [entry.slide for entry in entries]), strict=True):
            stored = self._open(entry, path)
            if isinstance(stored, StoredFeatures):
                self._learn(stored.info)
                return stored.info
            problems.append(str(stored))
        raise_together(f"None of the {len(entries)} slides has features that can be read", problems, shown=3)
        raise ValueError("There are no slides, so nothing is known of their features.")

    def _learn(self, info: FeatureInfo) -> dict[str, Any]:
        """Take over what a file says, where nothing was known; returns all that it says."""
        facts = {**info.made.facts(), "dim": info.dim}
        for name, value in facts.items():
            self._known.setdefault(name, (value, str(info.path)))
        return facts

    def _check(self, infos: Sequence[FeatureInfo]) -> None:
        """Refuse files that do not agree, and log once what files do not say."""
        configured = Made(self.extractor_name, mpp=self.patches.mpp, patch_size=self.patches.size).facts()
        problems = []
        for info in infos:
            facts = self._learn(info)
            expected = {name: value for name, (value, _) in self._known.items()} | configured
            for name, (actual, wanted) in differences(facts, expected, COMPARED).items():
                reference = OPTIONS[name] if name in configured else self._known[name][1]
                problems.append(f"{info.path}: {name} is {short(actual)}, but {short(wanted)} in {reference}")
        raise_together(
            f"The features do not fit. Run with {', '.join(OPTIONS.values())} as the files say, keep features of "
            "different extractors in different folders, or make them anew with run extracting. Differences",
            problems,
            shown=5,
        )
        for name, value in configured.items():
            silent = sum(name not in info.made.facts() for info in infos)
            if silent:
                self._warn(
                    name, f"{silent} of {len(infos)} files of features do not say their {name}; {value} is assumed."
                )
        if any(info.form == "pt" for info in infos):
            self._warn("coords", "Features of .pt files have no positions: attention cannot be shown on the slides.")

    def _warn(self, about: str, text: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            logger.warning("%s", text)


def bag_source(
    patches: PatchSettings,
    features_dir: str | os.PathLike[str] | None = None,
    index_dir: str | os.PathLike[str] | None = None,
    extractor_name: str | None = None,
    cache_gb: float = 4.0,
) -> SlidePatches | FeatureFiles:
    """Where the bags of a run come from.

    Args:
        patches: what a patch is.
        features_dir: folder of features; ``None`` reads the slides.
        index_dir: see :class:`~persam_monai.data.SlidePatches`.
        extractor_name: see :class:`FeatureFiles`.
        cache_gb: see :class:`FeatureFiles`.
    """
    if features_dir is None:
        return SlidePatches(patches, index_dir, INDEX_WORKERS)
    return FeatureFiles(features_dir, patches.size, patches.mpp, extractor_name, cache_gb)
