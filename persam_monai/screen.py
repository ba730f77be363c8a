# SPDX-License-Identifier: Apache-2.0
"""What a long run shows: our own messages on the screen, everything in a log file."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm

FORM = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class ScreenFormatter(logging.Formatter):
    """A message alone; warnings and errors say what they are."""

    def format(self, record: logging.LogRecord) -> str:
        """The line for the screen."""
        text = super().format(record)
        return text if record.levelno < logging.WARNING else f"{record.levelname.capitalize()}: {text}"


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.startswith("persam_monai") or record.levelno >= logging.WARNING


@contextmanager
def log_to(file: Path) -> Iterator[None]:
    """Append all that is logged to a file. The screen shows what the package says, and warnings and errors of others.

    Args:
        file: in a folder that is there or will be made; made when something is logged.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    root, log = logging.getLogger(), logging.FileHandler(file, encoding="utf-8", delay=True)
    log.setFormatter(logging.Formatter(FORM))
    with logging_redirect_tqdm():  # lines do not break a progress bar
        screens = [handler for handler in root.handlers if getattr(handler, "stream", None) in (sys.stdout, sys.stderr)]
        formatters = [screen.formatter for screen in screens]
        for screen in screens:
            screen.addFilter(_is_ours)
            screen.setFormatter(ScreenFormatter())
        root.addHandler(log)
        try:
            yield
        finally:
            root.removeHandler(log)
            log.close()
            for screen, formatter in zip(screens, formatters, strict=True):
                screen.removeFilter(_is_ours)
                screen.setFormatter(formatter)
