# SPDX-License-Identifier: Apache-2.0
"""A source of bags that passes over slides whose features are there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from persam_monai.cohort import SlideEntry
from persam_monai.data import Instances, PatchSettings, Source
from persam_monai.errors import UserError


class Nothing:
    """No instances."""

    def __len__(self) -> int:
        return 0

    def read(
        self, chosen: np.ndarray, generator: np.random.Generator, threads: int = 1, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """There is nothing to read."""
        raise NotImplementedError


class RemainingSlides:
    """Looks into some of the slides only.

    Args:
        source: looks into these.
        remaining: which they are, by their places among all.
    """

    def __init__(self, source: Source, remaining: Collection[int]) -> None:
        self.source = source
        self.remaining = remaining

    @property
    def patches(self) -> PatchSettings:
        """What a patch is."""
        return self.source.patches

    @property
    def pixels(self) -> bool:
        """Whether instances are pixels."""
        return self.source.pixels

    def made_of(self, entries: Sequence[SlideEntry]) -> dict[str, Any] | None:
        """See :meth:`persam_monai.data.source.Source.made_of`."""
        return self.source.made_of(entries)

    def look(self, entries: Sequence[SlideEntry], label: str = "slides") -> Sequence[Instances | UserError]:
        """See :meth:`persam_monai.data.source.Source.look`; the others have no instances."""
        found = self.source.look([entries[i] for i in self.remaining], label)
        by_place = dict(zip(self.remaining, found, strict=True))
        return [by_place.get(i, Nothing()) for i in range(len(entries))]
