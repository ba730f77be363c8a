#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a study finds on synthetic cohorts: as they are, and with what one part tells taken away.

``null`` shuffles labels between patients, ``record_only`` slides, ``image_only`` records.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from persam_monai.synthetic import make_cohort
from turns import as_text

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
SEEDS = (203, 204)  # the recipe was chosen on seeds 0 and 1
PATCHES = ("--mpp", "1.0", "--patch_size", "112")
EXTRACTING = "['bundle/configs/extract.json','bundle/configs/extractors/resnet18.json']"
IDENTITY = ("patient_id", "slide", "label")
SHUFFLED = {"as_is": (), "null": ("label",), "record_only": ("slide",), "image_only": ("record",)}


def measure(
    folder: Path,
    seeds: Sequence[int] = SEEDS,
    patients: int = 144,
    kinds: Sequence[str] = ("as_is",),
    shuffles: int = 1,
    options: Sequence[str] = (),
) -> dict[str, Any]:
    """Paint, extract and study cohorts.

    Args:
        folder: where everything goes, and stays.
        seeds: of the cohorts.
        patients: of each cohort.
        kinds: names in :data:`SHUFFLED`.
        shuffles: how often each kind but ``as_is`` is shuffled.
        options: further words for ``cross_validate.py``.

    Returns:
        JSON-able: ``patients``, and ``studies``, each with ``seed``, ``kind``, ``shuffle``, by model the ``auroc``, and
        what of the truth there is.
    """
    studies = []
    for seed in seeds:
        cohort = folder / f"cohort_{patients}_{seed}"
        if not cohort.exists():
            make_cohort(cohort, patients, seed, 4096)
        words = [sys.executable, "-m", "monai.bundle", "run", "extracting", "--config_file", EXTRACTING]
        _run([*words, *PATCHES, "--dataset_dir", str(cohort)])
        for kind in kinds:
            for shuffle in range(1 if kind == "as_is" else shuffles):
                place = folder / f"{kind}_{patients}_{seed}_{shuffle}"
                _write_shuffled(cohort, place / "cohort", SHUFFLED[kind], shuffle)
                words = [sys.executable, "scripts/cross_validate.py", "--dataset_dir", str(place / "cohort")]
                words += ["--features_dir", str(cohort / "features"), "--output_dir", str(place / "study")]
                _run([*words, *PATCHES, *options])
                found = json.loads((place / "study" / "comparison.json").read_text(encoding="utf-8"))
                auroc = {name: scores["auroc"]["estimate"] for name, scores in found["scores"].items()}
                row = {"seed": seed, "kind": kind, "shuffle": shuffle, "auroc": auroc}
                row |= {"truth": found.get("personalisation", {}).get("truth")}
                logger.info("%s", row)
                studies.append(row)
    return {"patients": patients, "studies": studies}


def _write_shuffled(cohort: Path, place: Path, columns: Sequence[str], seed: int) -> None:
    """A table of the cohort in which some columns are those of another patient's first slide."""
    place.mkdir(parents=True, exist_ok=True)
    table = pd.read_csv(cohort / "cohort.csv", dtype=str, keep_default_na=False)
    if columns:
        table = table.drop_duplicates("patient_id")  # one slide each: patients with two cannot change places
        variables = [name for name in map(str, table) if name not in IDENTITY]
        order = np.random.default_rng(seed).permutation(len(table))
        for name in variables if columns == ("record",) else columns:
            table[name] = table[name].to_numpy()[order]
    elif not (place / "truth").exists():
        (place / "truth").symlink_to((cohort / "truth").resolve())
    table.to_csv(place / "cohort.csv", index=False)
    (place / "clinical.yaml").write_bytes((cohort / "clinical.yaml").read_bytes())


def _run(words: Sequence[str]) -> None:
    subprocess.run(words, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="a cohort of each")
    parser.add_argument("--patients", type=int, default=144, help="of each cohort")
    parser.add_argument("--kinds", nargs="+", choices=SHUFFLED, default=["as_is"], help="default: as_is")
    parser.add_argument("--shuffles", type=int, default=1, help="of each kind but as_is")
    parser.add_argument("--folder", type=Path, help="where to work; without it, a folder that is removed")
    asked, options = parser.parse_known_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (asked.folder or Path(temporary)).resolve()
        results = measure(folder, asked.seeds, asked.patients, asked.kinds, asked.shuffles, options)
    print(json.dumps(results, indent=2) if asked.json else as_text(results))


if __name__ == "__main__":
    main()
