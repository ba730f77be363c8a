#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure what heads learn on synthetic cohorts from features of random weights, trained as the demo trains."""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from pathlib import Path

from benchmarks.learning import SEEDS, measure
from benchmarks.turns import as_text


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="a cohort of each")
    parser.add_argument("--patients", type=int, default=36, help="of each cohort")
    parser.add_argument("--size", type=int, default=4096, help="side of a slide in pixels at 0.25 µm/px")
    parser.add_argument("--processes", type=int, default=2, help="trainings side by side")
    parser.add_argument("--folder", type=Path, help="where to work; None: one that is removed")
    asked = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (asked.folder or Path(temporary)).resolve()
        results = measure(folder, asked.seeds, asked.patients, asked.size, asked.processes)
    print(json.dumps(results, indent=2) if asked.json else as_text(results))


if __name__ == "__main__":
    main()
