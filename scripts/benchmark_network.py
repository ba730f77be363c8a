#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure the network's speed, memory and size on this machine's CPU, and torchmil's where it is installed."""

from __future__ import annotations

import argparse
import json

from persam_monai.benchmark.network import PARTS, measure, table


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--repeats", type=int, default=7, help="runs of which the median counts")
    parser.add_argument("--minutes", type=float, default=4.0, help="after which nothing more is begun")
    arguments = parser.parse_args()
    found = measure(arguments.only, arguments.threads, arguments.repeats, arguments.minutes)
    print(json.dumps(found, indent=2) if arguments.json else table(found))


if __name__ == "__main__":
    main()
