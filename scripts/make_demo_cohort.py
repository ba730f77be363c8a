#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make a synthetic cohort: slides, clinical table, schema and ground truth."""

from __future__ import annotations

import argparse
from pathlib import Path

from persam_monai.errors import messages_of_a_script
from persam_monai.synthetic import make_cohort


def main() -> None:
    """Parse the command line and make the cohort."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder to make; must not hold anything yet")
    parser.add_argument("--patients", type=int, default=36, help="number of patients, at least 6")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes")
    parser.add_argument("--size", type=int, default=4096, help="side of a slide in pixels at 0.25 µm/px")
    parser.add_argument("--workers", type=int, default=None, help="processes that paint side by side; None: all CPUs")
    arguments = parser.parse_args()
    with messages_of_a_script(2):
        folder = make_cohort(**vars(arguments), progress=True)
    print(f"Synthetic cohort in {folder} (see {folder / 'README.txt'})")


if __name__ == "__main__":
    main()
