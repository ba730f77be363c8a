#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Read schema and clinical table as a training would, and say what is in them or what is wrong."""

from __future__ import annotations

import argparse
import io
import logging
import sys
from pathlib import Path

from persam_monai.cohort import Cohort
from persam_monai.cohort.description import describe_folds, describe_records
from persam_monai.errors import UserError, raise_together


def main() -> None:
    """Parse the command line, read and print."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Exit status: 0 if a training can read them, 1 if not.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("dataset_dir", type=Path, help="folder with clinical.yaml and the cohort table")
    parser.add_argument("--table", help="name of the table in the folder; None: the one cohort.* that there is")
    parser.add_argument("--schema", type=Path, help="the schema, or a model.json; None: clinical.yaml of the folder")
    parser.add_argument("--decimal", choices=(".", ","), help="the table's decimal sign, if the schema has another one")
    parser.add_argument("--features_dir", type=Path, help="folder of features; the slides need not be there then")
    parser.add_argument("--without_slides", action="store_true", help="the slides need not be there yet")
    parser.add_argument(
        "--problems", type=Path, default="problems.csv", help="file for all problems, without the cells"
    )
    parser.add_argument(
        "--inference", action="store_true", help="the table is for a model to predict: no labels needed"
    )
    parser.add_argument("--folds", type=int, default=5, help="to draw, if the table has no column fold")
    parser.add_argument("--seed", type=int, default=0, help="of that draw")
    asked = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)  # columns that are ignored, and the like
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a level that the terminal cannot show must not end this
    try:
        pixels = asked.features_dir is None and not asked.without_slides
        cohort = Cohort.load_dir(
            asked.dataset_dir, not asked.inference, asked.table, asked.problems, pixels, asked.decimal, asked.schema
        )
        if asked.features_dir is not None:
            _check_features(cohort, asked.features_dir)
        print(*describe_records(cohort, asked.inference), sep="\n", flush=True)
        if not asked.inference:
            print("", *describe_folds(cohort, asked.folds, asked.seed), sep="\n")
    except UserError as error:
        sys.exit(f"Error: {error}")


def _check_features(cohort: Cohort, folder: Path) -> None:
    """Look into all feature files as a training does, with the patches that the first one says."""
    from persam_monai.data import FeatureFiles  # here, because who only checks a table should not wait for torch

    made = FeatureFiles(folder).made_of(cohort.entries)
    source = FeatureFiles(folder, made["patch_size"] or 224, made["mpp"] or 0.25)
    problems = [str(found) for found in source.look(cohort.entries) if isinstance(found, UserError)]
    raise_together(f"{folder}: the features need correcting", problems, shown=10)
    print(f"Features of {len(cohort)} slides are in {folder}.")


if __name__ == "__main__":
    main()
