#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure how fast features are extracted and learnt from, against what the network alone would take."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from benchmarks.features import PARTS, Settings, measure
from benchmarks.slides import SIDES
from benchmarks.turns import as_text
from persam_monai.errors import UserError
from persam_monai.networks import AUTOCAST, resolve_precision


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure")
    parser.add_argument("--minutes", type=float, default=3.0, help="after which nothing more begins")
    parser.add_argument("--folder", type=Path, help="where slide and features are made, and removed; None: temporary")
    parser.add_argument("--device", default="cpu", help="runs the network")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of PyTorch")
    parser.add_argument("--precision", nargs="+", choices=list(AUTOCAST), help="of the network; None: all fast ones")
    extraction = parser.add_argument_group("extraction")
    extraction.add_argument("--slide-side", type=int, choices=SIDES, default=Settings.slide_side, help="pixels")
    extraction.add_argument("--workers", type=int, default=Settings.workers, help="processes that read")
    extraction.add_argument("--copies", type=int, default=Settings.copies, help="of the slide, in one call")
    training = parser.add_argument_group("training on features")
    training.add_argument("--files", type=int, default=Settings.files, help="slides with features, 60 %% to learn from")
    training.add_argument("--patches", type=int, default=Settings.patches, help="of each slide")
    training.add_argument("--features", type=int, default=Settings.features, help="of each patch")
    training.add_argument(
        "--cache-gb", nargs="+", type=float, default=Settings.caches, help="a run of each; the first has bounds"
    )
    training.add_argument("--stretches", type=int, default=Settings.stretches, help="of the epoch, in turns")
    training.add_argument("--stretch-batches", type=int, default=Settings.stretch_batches, help="batches of each")
    training.add_argument("--full", action="store_true", help="measure the whole first epoch")
    asked = parser.parse_args()
    if asked.folder is not None and not asked.folder.is_dir():
        parser.error(f"--folder {asked.folder}: there is no such folder")
    settings = Settings(
        asked.precision or list(dict.fromkeys(("float32", resolve_precision("auto", asked.device)))),
        asked.device,
        asked.threads,
        asked.slide_side,
        asked.workers,
        asked.copies,
        asked.files,
        asked.patches,
        asked.features,
        asked.cache_gb,
        asked.stretches,
        None if asked.full else asked.stretch_batches,
    )
    try:
        results = measure(asked.only, settings, asked.folder, asked.minutes)
    except UserError as error:
        sys.exit(f"Error: {error}")
    print(json.dumps(results, indent=2) if asked.json else as_text(results))


if __name__ == "__main__":
    main()
