#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure how fast patches come out of a slide, against MONAI, OpenSlide, cuCIM and the decoder alone."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from persam_monai.benchmark.reading import ENDURANCE, PARTS, SIDES, Effort, measure, table
from persam_monai.errors import UserError

SLIDES = "slides"


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--only",
        action="append",
        choices=(*PARTS, *ENDURANCE, SLIDES),
        help=f"part to measure, may be repeated; {SLIDES}: nothing but each --slide (default: all)",
    )
    parser.add_argument(
        "--slide", action="append", default=[], type=Path, help="a slide to measure besides, may be repeated"
    )
    parser.add_argument("--repeats", type=_at_least(1, int), default=5, help="turns of which the median counts (5)")
    parser.add_argument(
        "--minutes",
        type=_at_least(0, float),
        default=4.5,
        help="for all parts; repeats and rows that do not fit are left out (4.5)",
    )
    parser.add_argument("--seconds", type=_at_least(0.01, float), default=0.6, help="of each measurement, about (0.6)")
    parser.add_argument("--patches", type=_at_least(1, int), help="of each measurement, instead of --seconds")
    parser.add_argument("--folder", type=Path, help="where the slides are made and kept (default: made and removed)")
    parser.add_argument("--slide-side", type=int, choices=SIDES, default=SIDES[-1], help=f"px ({SIDES[-1]})")
    asked = parser.parse_args()
    parts = [name for name in (*PARTS, *ENDURANCE) if asked.only is None or name in asked.only]
    effort = Effort(asked.repeats, asked.seconds, asked.patches)
    with tempfile.TemporaryDirectory() as temporary:
        try:
            found = measure(
                asked.folder or Path(temporary), parts, asked.slide, effort, asked.slide_side, asked.minutes
            )
        except UserError as error:
            sys.exit(f"Error: {error}")
    print(json.dumps(found, indent=2) if asked.json else table(found))


def _at_least(least: float, kind: Callable[[str], float]) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"is {text}; expected at least {least}")
        return value

    return number


if __name__ == "__main__":
    main()
