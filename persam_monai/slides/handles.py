# SPDX-License-Identifier: Apache-2.0
"""Open slides, a bounded number of them in each process."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

from persam_monai.slides.slide import Slide

MAX_OPEN = 16  # slides per process: eight workers stay far below the usual limit of 1,024 open files

_open: OrderedDict[tuple[int, Path, float | None], Slide] = OrderedDict()


def open_slide(path: Path, mpp: float | None = None) -> Slide:
    """An open slide from this process's cache; the one used longest ago is closed when there are too many.

    Handles are never shared between processes: a forked worker opens its own.

    Args:
        path: the slide's file.
        mpp: µm per level-0 pixel from the cohort table, or ``None``.

    Raises:
        UserError: as :class:`~persam_monai.slides.slide.Slide`.
    """
    key = (os.getpid(), path, mpp)
    if key in _open:
        _open.move_to_end(key)
        return _open[key]
    slide = _open[key] = Slide(path, mpp)
    while len(_open) > MAX_OPEN:
        (owner, _, _), oldest = _open.popitem(last=False)
        if owner == os.getpid():
            oldest.close()
    return slide
