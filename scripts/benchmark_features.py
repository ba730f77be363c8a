#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure how fast features are extracted and learnt from, against what the network alone would take."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from persam_monai.benchmark.features import PARTS, ExtractionEffort, Sizes, TrainingEffort, measure, table
from persam_monai.benchmark.features.report import SIDE
from persam_monai.benchmark.reading import SIDES
from persam_monai.errors import UserError
from persam_monai.networks import AUTOCAST, resolve_precision


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure")
    parser.add_argument("--folder", type=Path, help="where slide and features are made, and removed; None: temporary")
    parser.add_argument("--device", default="cpu", help="runs the network")
    parser.add_argument("--threads", type=_at_least_one, default=os.cpu_count(), help="of PyTorch")
    parser.add_argument(
        "--precision", nargs="+", choices=list(AUTOCAST), help="of the network; by default all fast ones"
    )
    extraction = parser.add_argument_group("extraction")
    extraction.add_argument(
        "--slide", nargs="+", default=[], type=Path, help="slides to measure besides the painted one"
    )
    extraction.add_argument("--slide-side", type=int, choices=SIDES, default=SIDE, help="of the painted slide, in px")
    extraction.add_argument(
        "--repeats", type=_at_least_one, default=ExtractionEffort.repeats, help="turns; the median counts"
    )
    extraction.add_argument(
        "--extractor-batch", type=_at_least_one, default=ExtractionEffort.batch, help="patches in a batch"
    )
    extraction.add_argument(
        "--workers", type=_at_least_one, default=ExtractionEffort.workers, help="processes that read"
    )
    extraction.add_argument(
        "--copies", type=_at_least_one, default=ExtractionEffort.copies, help="of the slide, in one call"
    )
    training = parser.add_argument_group("training on features")
    for one in fields(Sizes):
        training.add_argument(f"--{one.name.replace('_', '-')}", type=int, default=one.default, help=WORDS[one.name])
    training.add_argument(
        "--cache-gb",
        nargs="+",
        type=float,
        default=TrainingEffort.caches,
        help="a run of each; for the first the figures must hold, the others show what happens",
    )
    training.add_argument(
        "--stretches", type=_at_least_one, default=TrainingEffort.stretches, help="of the epoch, in turns"
    )
    training.add_argument(
        "--stretch-batches", type=_at_least_one, default=TrainingEffort.batches, help="batches of each"
    )
    training.add_argument("--full", action="store_true", help="measure the whole first epoch")
    training.add_argument("--warm", action="store_true", help="leave the files in the system's memory, where they are")
    parser.add_argument("--minutes", type=float, default=4.0, help="after which nothing more is begun")
    asked = parser.parse_args()
    if asked.folder is not None and not asked.folder.is_dir():
        parser.error(f"--folder {asked.folder}: there is no such folder")
    asked.precision = asked.precision or list(dict.fromkeys(("float32", resolve_precision("auto", asked.device))))
    try:
        efforts = _extraction(asked), _training(asked)
    except ValueError as error:
        parser.error(str(error))
    torch.set_num_threads(asked.threads)
    try:
        found = measure(asked.only, asked.slide, *efforts, asked.folder, asked.slide_side, asked.minutes)
    except UserError as error:
        sys.exit(f"Error: {error}")
    print(json.dumps(found, indent=2) if asked.json else table(found))


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"is {text}; expected a whole number of at least 1")
    return int(text)


WORDS = {
    "files": "slides with features",
    "training": "how many of them are learnt from",
    "patches": "of each slide",
    "features": "of each patch",
    "bags": "most bags of a slide in an epoch",
    "bag_size": "patches in a bag",
    "batch_size": "bags in a batch",
}


def _extraction(asked: argparse.Namespace) -> ExtractionEffort:
    return ExtractionEffort(
        asked.precision,
        asked.repeats,
        batch=asked.extractor_batch,
        workers=asked.workers,
        device=asked.device,
        copies=asked.copies,
    )


def _training(asked: argparse.Namespace) -> TrainingEffort:
    sizes: dict[str, Any] = {one.name: getattr(asked, one.name) for one in fields(Sizes)}
    return TrainingEffort(
        Sizes(**sizes),
        asked.cache_gb,
        asked.precision,
        asked.device,
        asked.threads,
        asked.stretches,
        None if asked.full else asked.stretch_batches,
        not asked.warm,
    )


if __name__ == "__main__":
    main()
