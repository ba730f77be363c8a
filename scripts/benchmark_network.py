#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure the network's speed, memory and size on this machine's CPU, and torchmil's where it is installed."""

from __future__ import annotations

import argparse
import json

from benchmarks.network import PARTS, measure
from benchmarks.turns import as_text


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--repeats", type=int, default=7, help="runs of which the median counts")
    parser.add_argument("--minutes", type=float, default=4.0, help="after which nothing more begins")
    asked = parser.parse_args()
    results = measure(asked.only, asked.threads, asked.repeats, asked.minutes)
    print(json.dumps(results, indent=2) if asked.json else as_text(results))


if __name__ == "__main__":
    main()
