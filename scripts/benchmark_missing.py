#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure what missing clinical values cost, with median filling, learned absence and clinical dropout."""

from __future__ import annotations

import argparse
import json
import sys

from persam_monai.benchmark.missing import SEEDS, SHARES, Effort, measure, table


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="cohorts, one of each seed")
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES, help="shares of the variables to mask")
    parser.add_argument("--clinical_dropout", type=float, default=0.2, help="to compare with none")
    parser.add_argument("--patients", type=int, default=200, help="to train on")
    parser.add_argument("--test_patients", type=int, default=400, help="others, to test on")
    parser.add_argument("--epochs", type=int, default=Effort.epochs, help="of each training")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    arguments = parser.parse_args()
    found = measure(
        arguments.seeds,
        arguments.shares,
        arguments.clinical_dropout,
        arguments.patients,
        arguments.test_patients,
        Effort(epochs=arguments.epochs),
        arguments.threads,
        lambda seed: print(f"seed {seed} done", file=sys.stderr),
    )
    print(json.dumps(found, indent=2) if arguments.json else table(found))


if __name__ == "__main__":
    main()
