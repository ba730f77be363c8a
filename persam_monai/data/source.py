# SPDX-License-Identifier: Apache-2.0
"""Where the instances of a bag come from: pixels of slides, or features that were extracted before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from persam_monai.cohort import SlideEntry
from persam_monai.data.index import PatchSettings
from persam_monai.errors import UserError


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
            generator: source of chance, for instances that may lie in several places.
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

    def made_of(self, entries: Sequence[SlideEntry]) -> dict[str, Any] | None:
        """What makes the extractor of the slides' features the same.

        Args:
            entries: the cohort's slides.

        Returns:
            JSON-able: ``extractor``, ``weights``, ``mpp``, ``patch_size`` and ``settings`` (those of its input);
            ``None`` for pixels.

        Raises:
            UserError: if not one of the slides has features that can be read.
        """
        ...

    def look(self, entries: Sequence[SlideEntry], label: str = "slides") -> Sequence[Instances | UserError]:
        """Look for the instances of every slide.

        Args:
            entries: the cohort's slides.
            label: what they are for, shown by progress bars.

        Returns:
            For each slide what was found, or what is wrong with it.

        Raises:
            UserError: for what no slide alone is to blame.
        """
        ...
