# SPDX-License-Identifier: Apache-2.0
"""What every way to read pixels offers."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Backend(Protocol):
    """An open file that regions of pixels are read from.

    Attributes:
        name: as in ``BACKENDS``.
        own_threads: whether ``read`` divides its work among ``threads`` itself; otherwise callers may call it from
            several threads at once.
    """

    name: str
    own_threads: bool

    def read(self, starts: np.ndarray, level: int, out: np.ndarray, threads: int = 1) -> None:
        """Read regions that lie at least partly inside the slide.

        Args:
            starts: ``int64 [N, 2]`` upper-left corners (x, y) in pixels of ``level``; may lie outside the slide.
            level: 0 is the finest.
            out: ``uint8 [N, h, w, 3]``, filled with RGB; what lies outside the slide may be left as it is.
            threads: decoding threads, where ``own_threads``.

        Raises:
            UserError: if the file is damaged there; names the slide.
        """
        ...

    def reducible(self, level: int) -> int:
        """The largest of 1, 2, 4 and 8 by which :meth:`read_reduced` can shrink ``level``."""
        ...

    def read_reduced(self, top: int, height: int, level: int, factor: int) -> np.ndarray:
        """A strip over the whole width of ``level``, shrunk while it is decoded.

        Args:
            top: first row, in pixels of ``level``; a multiple of ``factor``.
            height: rows; the strip ends at the slide's edge at the latest.
            level: 0 is the finest.
            factor: 1, or what :meth:`reducible` allows.

        Returns:
            ``uint8 [ceil(rows / factor), ceil(width / factor), 3]``.

        Raises:
            UserError: if the file is damaged there; names the slide.
        """
        ...

    def close(self) -> None:
        """Close the file."""
        ...
