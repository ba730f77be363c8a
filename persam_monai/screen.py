# SPDX-License-Identifier: Apache-2.0
"""What a terminal shows: our own messages while a run works, with everything in a log file; tables and numbers."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tqdm.contrib.logging import logging_redirect_tqdm

_DIGITS = 4  # of a number that people compare by eye
_INDENT = "  "
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


def text_table(heading: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Lines of a table whose columns stand below one another.

    Example:
        >>> text_table(["class", "patients"], [["DLBCL", "12"], ["FL", "3"]], right=[1])
        ['  class  patients', '  DLBCL        12', '  FL            3']
    """
    everything = [heading, *rows]
    widths = [max(len(row[column]) for row in everything) for column in range(len(heading))]
    return [
        _INDENT
        + "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in everything
    ]


def number(value: float) -> str:
    """A number with four significant digits and no exponent; digits before the decimal point all stay.

    Example:
        >>> [number(value) for value in (0.0123456, 12.0, 123456.7)]
        ['0.01235', '12', '123457']
    """
    if abs(value) >= 10**_DIGITS:
        value = round(value)
        return f"{value:.0f}"
    return np.format_float_positional(value, precision=_DIGITS, fractional=False, trim="-")


def share(part: int, whole: int) -> str:
    """A share in per cent; 0 % and 100 % mean exactly that."""
    if part in (0, whole):
        return f"{100 * bool(part)} %"
    return f"{min(max(100 * part / whole, 0.1), 99.9):.1f} %"
