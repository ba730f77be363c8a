#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure what heads learn on synthetic cohorts from features of random weights, the way the demo goes."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from persam_monai.benchmark.learning import SEEDS, measure, table

CONFIGS = Path(__file__).resolve().parents[1] / "bundle" / "configs"


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="cohorts, one of each seed")
    parser.add_argument("--patients", type=int, default=36, help="of each cohort")
    parser.add_argument("--size", type=int, default=4096, help="side of a slide in pixels at 0.25 µm/px")
    parser.add_argument("--processes", type=int, default=2, help="trainings side by side")
    parser.add_argument("--folder", type=Path, default=None, help="where to work; by default one that is removed")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        settings = (asked.seeds, asked.patients, asked.size, asked.processes)
        found = measure(folder.resolve(), CONFIGS, *settings, lambda text: print(text, file=sys.stderr))
    print(json.dumps(found, indent=2) if asked.json else table(found))


if __name__ == "__main__":
    main()
