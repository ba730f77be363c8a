#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure how fast patches come out of a slide, against MONAI, OpenSlide, cuCIM and the decoder alone."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.endurance import ENDURANCE
from benchmarks.reading import PARTS, Effort, measure
from benchmarks.slides import SIDES
from benchmarks.turns import as_text
from persam_monai.errors import UserError


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--only",
        nargs="+",
        action="extend",
        choices=(*PARTS, *ENDURANCE, "slides"),
        help="parts to measure; slides: nothing but each --slide; None: all",
    )
    parser.add_argument("--slide", nargs="+", action="extend", default=[], type=Path, help="slides to measure besides")
    parser.add_argument("--repeats", type=int, default=5, help="turns of which the median counts")
    parser.add_argument("--minutes", type=float, default=4.5, help="for all; what does not fit is left out")
    parser.add_argument("--folder", type=Path, help="where the slides are made and kept; None: made and removed")
    parser.add_argument("--slide-side", type=int, choices=SIDES, default=SIDES[-1], help="of these slides in pixels")
    asked = parser.parse_args()
    parts = [name for name in (*PARTS, *ENDURANCE) if asked.only is None or name in asked.only]
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        try:
            results = measure(folder, parts, asked.slide, Effort(asked.repeats), asked.slide_side, asked.minutes)
        except UserError as error:
            sys.exit(f"Error: {error}")
    print(json.dumps(results, indent=2) if asked.json else as_text(results))


if __name__ == "__main__":
    main()
