# SPDX-License-Identifier: Apache-2.0
"""Bags of patches, pixels or features, read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch.utils.data import Dataset

from persam_monai.cohort import Cohort, SlideEntry
from persam_monai.data.bad_slides import OR_SKIP, BadSlides
from persam_monai.data.draws import Draw, generator_for
from persam_monai.data.index import PatchSettings
from persam_monai.errors import UserError, raise_together

ORIENTATIONS = 8  # four rotations, each with or without a flip


class Instances(Protocol):
    """What is known of one slide; can be sent to another process."""

    def __len__(self) -> int:
        """Number of instances, from which bags are drawn."""
        ...

    def read(
        self, chosen: np.ndarray, generator: np.random.Generator, threads: int = 1, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read some of them.

        Args:
            chosen: ``[n]`` indices.
            generator: source of chance, for instances whose location is drawn.
            threads: decoding threads.
            out: where pixels go, ``uint8 [n, size, size, 3]``; by default new memory.

        Returns:
            Pixels ``uint8 [n, size, size, 3]`` or features ``float16`` or ``float32 [n, D]``, and the level-0 positions
            ``int64 [n, 2]`` (x, y) of the patches' upper-left corners.

        Raises:
            UserError: if they cannot be read.
        """
        ...


class Source(Protocol):
    """Gives the instances of slides."""

    @property
    def patches(self) -> PatchSettings:
        """What a patch is."""
        ...

    @property
    def pixels(self) -> bool:
        """Whether instances are pixels; else they are features."""
        ...

    def dim_of(self, entries: Sequence[SlideEntry]) -> int:
        """Number of features of a patch: those in the files, or those of the default extractor."""
        ...

    def made_of(self, entries: Sequence[SlideEntry]) -> dict[str, Any] | None:
        """What makes the extractor of the slides' features the same, JSON-able; ``None`` for pixels."""
        ...

    def look(self, entries: Sequence[SlideEntry], label: str = "slides") -> Sequence[Instances | UserError]:
        """For each slide its instances, or what is wrong with it; ``label`` is shown by progress bars.

        Raises:
            UserError: for what no slide alone is to blame.
        """
        ...


class BagKey(NamedTuple):
    """Names one bag: its slide's index in the cohort, the epoch, and its number among the slide's bags."""

    slide: int
    epoch: int
    bag: int


class BagDataset(Dataset[dict[str, Any]]):
    """Bags of the slides of a cohort.

    Nothing is read before :meth:`prepare`; a dataset can be built where there are no slides.

    Args:
        data: the cohort.
        draw: which instances make which bag.
        source: where they come from: :class:`~persam_monai.data.SlidePatches` or
            :class:`~persam_monai.data.FeatureFiles`.
        augment: give every patch a random orientation (applied later, on the device); features have none.
        seed: seed of the locations inside the cells and of the orientations.
        label: what the bags are for, shown by progress bars.
        bad_slides: what happens to slides that cannot be used; by default the first one is an error.

    An item is a dictionary: ``image`` uint8 ``[N, size, size, 3]`` or floating ``[N, D]``, ``clinical`` float32 ``[F]``
    (NaN where missing), ``label`` int64 (−1 when unknown), ``slide`` int64 index into :attr:`entries`, ``locations``
    int64 ``[N, 2]`` in level-0 pixels, ``orientation`` uint8 ``[N]``, 0 to 7.
    """

    def __init__(
        self,
        data: Cohort,
        draw: Draw,
        source: Source,
        augment: bool = False,
        seed: int = 0,
        label: str = "slides",
        bad_slides: BadSlides | None = None,
    ) -> None:
        self.data = data
        self.draw = draw
        self.source = source
        self.augment = augment
        self.seed = seed
        self.label = label
        self.bad_slides = bad_slides or BadSlides()
        self.skipped: set[int] = set()  # indices into entries
        self._instances: Sequence[Instances | None] | None = None

    @property
    def entries(self) -> tuple[SlideEntry, ...]:
        """The slides, in the order that ``slide`` indexes."""
        return self.data.entries

    def prepare(self, only: Sequence[int] | None = None) -> BagDataset:
        """Look for the instances of every slide, once.

        Args:
            only: indices of the slides that give bags; ``None`` takes all.

        Raises:
            UserError: lists every slide that cannot be used, or, where they are skipped, says that none is left.
        """
        if self._instances is not None:
            return self
        indices = range(len(self.entries)) if only is None else only
        looked = dict(zip(indices, self.source.look([self.entries[i] for i in indices], self.label), strict=True))
        problems = {i: problem for i, problem in looked.items() if isinstance(problem, UserError)}
        if not self.bad_slides.skip:
            raise_together(
                f"Some slides cannot be used. {OR_SKIP} Problems", [str(problem) for problem in problems.values()]
            )
        usable = {i: result for i, result in looked.items() if not isinstance(result, UserError)}
        self._instances = [usable.get(i) for i in range(len(self.entries))]
        before = self.bad_slides.of(self.label)
        self.skipped = {i for i, entry in enumerate(self.entries) if entry.slide in before}
        for i, problem in problems.items():
            self.skip(i, problem)
        if len(self.skipped) == len(self.entries):  # all stand on the list of an earlier part
            raise UserError(
                f"Not one of the {len(self.entries)} slides for {self.label} can be used; {self.bad_slides.file} "
                "lists them all. Take off it those that have been mended."
            )
        return self

    def skip(self, slide: int, problem: UserError | str) -> None:
        """Go on without a slide.

        Args:
            slide: index into :attr:`entries`; nothing happens if it is skipped already.
            problem: what is wrong with it.
        """
        if slide in self.skipped:
            return
        self.bad_slides.add(self.label, self.entries[slide].slide, problem)
        self.skipped.add(slide)
        if len(self.skipped) == len(self.entries):
            raise UserError(
                f"Not one of the {len(self.entries)} slides for {self.label} can be used; the last one: {problem}"
            )

    @property
    def instances(self) -> Sequence[Instances | None]:
        """What is known of each slide; ``None`` where it cannot be used.

        Raises:
            TypeError: before :meth:`prepare`; ``len()`` raises the same, which means "not known yet" to data loaders.
        """
        if self._instances is None:
            raise TypeError("The bags are not counted yet: call prepare() first.")
        return self._instances

    def keys(self, epoch: int) -> list[BagKey]:
        """All bags of an epoch, slide by slide, without the slides that are skipped."""
        return [BagKey(slide, epoch, bag) for slide, count in self._counts() for bag in range(count)]

    def __len__(self) -> int:
        return sum(count for _, count in self._counts())

    def _counts(self) -> Iterator[tuple[int, int]]:
        """The slides that are not skipped, each with its number of bags."""
        for slide, instances in enumerate(self.instances):
            if instances is not None and slide not in self.skipped:
                yield slide, self.draw.count(len(instances))

    def size(self, key: BagKey) -> int:
        """Number of patches in a bag."""
        return len(self._choose(key))

    def __getitem__(self, key: BagKey) -> dict[str, Any]:
        return self.read(key)

    def read(self, key: BagKey, threads: int = 1, out: np.ndarray | None = None) -> dict[str, Any]:
        """Read a bag.

        Args:
            key: names it.
            threads: decoding threads.
            out: ``uint8 [N, size, size, 3]`` for pixels; by default new memory.

        Returns:
            An item.

        Raises:
            UserError: if the slide cannot be read.
        """
        entry, instances = self.entries[key.slide], self.instances[key.slide]
        assert instances is not None
        chosen = self._choose(key)
        generator = generator_for(self.seed, entry.slide, key.epoch, key.bag)
        image, locations = instances.read(chosen, generator, threads, out)
        orientations = ORIENTATIONS if self.augment and self.source.pixels else 1
        orientation = generator.integers(0, orientations, size=len(chosen), dtype=np.uint8)
        return {
            "image": image,
            "clinical": entry.clinical,
            "label": -1 if entry.label is None else entry.label,
            "slide": key.slide,
            "locations": locations,
            "orientation": orientation,
        }

    def _choose(self, key: BagKey) -> np.ndarray:
        instances = self.instances[key.slide]
        assert instances is not None
        return self.draw.choose(len(instances), self.entries[key.slide].slide, key.epoch, key.bag)
