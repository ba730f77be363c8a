#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Read schema and clinical table as a training would, and say what is in them or what is wrong."""

from __future__ import annotations

import argparse
import io
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from persam_monai.checking.records import describe_folds, describe_records, load_cohort
from persam_monai.errors import UserError


def main() -> None:
    """Parse the command line, read and print."""
    asked = _parser().parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)  # columns that are ignored, and the like
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a level that the terminal cannot show must not end this
    try:
        cohort = load_cohort(
            asked.dataset_dir, asked.table, asked.schema, asked.problems, asked.inference, asked.without_slides
        )
        print(*describe_records(cohort, asked.inference), sep="\n", flush=True)
        if not asked.inference:
            print("", *describe_folds(cohort, asked.folds, asked.seed), sep="\n")
    except UserError as error:
        sys.exit(f"Error: {error}")


def _at_least(least: int) -> Callable[[str], int]:
    """Reads a whole number of at least ``least``."""

    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) < 2**32:
            raise argparse.ArgumentTypeError(f"found {text}; expected a whole number from {least}")
        return int(text)

    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Exit status: 0 if a training can read them, 1 if not.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("dataset_dir", type=Path, help="folder with clinical.yaml and the cohort table")
    parser.add_argument("--table", help="name of the table in the folder; None: the one cohort.* that there is")
    parser.add_argument("--schema", type=Path, help="the schema, or a model.json; None: clinical.yaml of the folder")
    parser.add_argument(
        "--problems", type=Path, default=Path("problems.csv"), help="file for all problems, without the cells"
    )
    parser.add_argument("--without_slides", action="store_true", help="the slides need not be there yet")
    parser.add_argument(
        "--inference", action="store_true", help="labels may be absent; nothing is said of what only a training minds"
    )
    parser.add_argument("--folds", type=_at_least(3), default=5, help="to draw, if the table has no column fold")
    parser.add_argument("--seed", type=_at_least(0), default=0, help="of that draw")
    return parser


if __name__ == "__main__":
    main()
