# SPDX-License-Identifier: Apache-2.0
"""Open slides, a bounded number of them in each process."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

from persam_monai.slides.header import SlideHeader
from persam_monai.slides.slide import Slide

MAX_OPEN = 16  # slides per process: opening one again with its header takes microseconds

_open: OrderedDict[tuple[int, Path, str, tuple[float, float]], Slide] = OrderedDict()


def open_slide(header: SlideHeader) -> Slide:
    """An open slide from this process's cache; the one used longest ago is closed when there are too many.

    Handles are never shared between processes: a forked worker opens its own.

    Args:
        header: of the slide.

    Raises:
        UserError: as :class:`~persam_monai.slides.slide.Slide`.
    """
    key = (os.getpid(), header.path, header.backend, header.mpp)
    if key in _open:
        _open.move_to_end(key)
        return _open[key]
    slide = _open[key] = Slide(header.path, header=header)
    while len(_open) > MAX_OPEN:
        _, oldest = _open.popitem(last=False)
        oldest.close()  # does nothing to a parent's
    return slide
