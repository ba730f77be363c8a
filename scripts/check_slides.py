#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Look at all slides before a training: size, resolution, tissue, patches, and what is wrong with them.

Exit status: 0 if all slides can be used, 1 if any has a problem, 2 if the question itself is not possible.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from fire.parser import DefaultParseValue as as_typed  # reads numbers as the bundle's own command line does

from persam_monai.checking import CloserLook, check_slides, find_slides, slide_lines, write_table
from persam_monai.data import IndexCache, PatchSettings, index_home
from persam_monai.errors import messages_of_a_script
from persam_monai.settings import check_settings
from persam_monai.slide_files import ENDINGS


def main() -> int:
    """Parse the command line, look and print."""
    asked = _parser().parse_args()
    with messages_of_a_script(2):
        check_settings(vars(asked))
        patches = PatchSettings(asked.patch_size, asked.mpp, asked.sampling, asked.min_tissue, asked.backend)
        entries, found = find_slides(asked.places, asked.table, asked.slide_mpp)
        print(f"Found {found}", flush=True)
        cache = None if asked.index_dir == "null" else IndexCache(asked.index_dir)
        closer = CloserLook(asked.read, asked.pictures, asked.patches, asked.seed)
        slides = check_slides(entries, patches, closer, cache, asked.num_workers)
        print(*slide_lines(slides), sep="\n")
        if asked.csv is not None:
            write_table(asked.csv, slides)
    return int(any(slide.problem is not None for slide in slides))


def _parser() -> argparse.ArgumentParser:
    purpose, status = str(__doc__).split("\n\n")
    parser = argparse.ArgumentParser(
        description=purpose, epilog=status, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "places",
        nargs="+",
        metavar="DATASET_DIR_OR_SLIDES",
        help=f"a folder with a cohort table, a folder of slides ({' '.join(ENDINGS)}), or slide files",
    )
    parser.add_argument("--table", help="name of the cohort table in the folder (default: the only cohort.*)")
    parser.add_argument("--mpp", type=as_typed, default=0.25, help="µm per pixel of a patch")
    parser.add_argument("--patch_size", type=as_typed, default=224, help="side of a patch in pixels")
    parser.add_argument("--sampling", default="snapped", help="snapped, uniform or grid")
    parser.add_argument("--min_tissue", type=as_typed, default=0.5, help="least share of tissue in a patch")
    parser.add_argument("--backend", default="auto", help="auto, tiles, cucim or openslide")
    parser.add_argument(
        "--slide_mpp", type=as_typed, help="µm per pixel of slides that stand in no table, if the files do not say"
    )
    parser.add_argument("--read", action="store_true", help="read a patch of every location, to find damage")
    parser.add_argument("--pictures", type=Path, help="folder for a picture of each slide, with tissue and patches")
    parser.add_argument("--patches", type=int, default=200, help="most patches drawn into a picture")
    parser.add_argument("--seed", type=as_typed, default=0, help="of the patches that are drawn")
    parser.add_argument("--csv", type=Path, help="file for the same lines as a table")
    parser.add_argument("--index_dir", default=index_home(), help="keeps what is found for the training; null: nowhere")
    parser.add_argument(
        "--num_workers", type=as_typed, default=len(os.sched_getaffinity(0)), help="processes that look at slides"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
