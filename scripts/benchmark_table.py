#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure how long a cohort table takes to be read and checked."""

from __future__ import annotations

import argparse
import json

from persam_monai.benchmark.table import measure, report


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--patients", type=int, default=763, help="rows of the table")
    parser.add_argument("--variables", type=int, default=35, help="clinical columns")
    parser.add_argument("--missing", type=float, default=0.2, help="share of empty cells in one column")
    parser.add_argument("--repeats", type=int, default=5, help="loads of each form; the median counts")
    arguments = parser.parse_args()
    found = measure(arguments.patients, arguments.variables, arguments.missing, arguments.repeats)
    print(json.dumps(found, indent=2) if arguments.json else report(found))


if __name__ == "__main__":
    main()
