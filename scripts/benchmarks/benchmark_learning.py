#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What heads learn on synthetic cohorts from features of random weights, trained as the demo trains."""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import monai.bundle
import pandas as pd
import torch

from persam_monai.metrics import SCORES, Predictions
from persam_monai.synthetic import make_cohort
from turns import as_text, seconds

logger = logging.getLogger(__name__)

HEADS = {"PersAMHead": "image and record", "GatedAttentionMILHead": "image", "ClinicalHead": "record"}
SEEDS = (100, 101, 102)  # the demo's settings were chosen on seeds 0 to 9
FOLDS = 5
CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
EXTRACTING = ("extract", "extractors/resnet18")
PATCHES = {"mpp": 1.0, "patch_size": 112}  # as in demo.json
TRAINING = ("train", "demo")
# The config of a head that is not PersAM's, and the demo's sizes for it.
BASELINES: dict[str, tuple[str, dict[str, Any]]] = {
    "GatedAttentionMILHead": ("heads/gated_attention", {"head#width": 64, "head#projection_hidden": "$None"}),
    "ClinicalHead": ("heads/clinical", {"head#width": 64}),
}
EVALUATING = ("train", "demo", "evaluate")
FIXED = ("patient", "label", "predicted", "warnings")  # columns of the predictions besides the classes


def measure(
    folder: Path, seeds: Sequence[int] = SEEDS, patients: int = 36, size: int = 4096, processes: int = 2
) -> dict[str, Any]:
    """Paint, extract, train and test on every fold.

    Args:
        folder: gets a folder for each seed; absolute.
        seeds: of the cohorts.
        patients: of each cohort.
        size: side of a slide in pixels.
        processes: trainings side by side.

    Returns:
        JSON-able: of each seed the seconds of ``painting``, ``extracting`` and ``training`` (one fold of PersAM, as
        typed on the command line), and by head ``auroc``, macro one-vs-rest over all patients, each of whom was held
        out once; and the ``mean`` over the seeds.
    """
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        seeded = folder / f"seed_{seed}"
        cohort = {"dataset_dir": str(seeded / "cohort"), **PATCHES}
        taken = {
            "painting": seconds(partial(make_cohort, seeded / "cohort", patients, seed, size)),
            "extracting": seconds(partial(_run_command, "extracting", EXTRACTING, cohort)),
            "training": seconds(partial(_run_command, "training", TRAINING, _settings(seeded, "timed", 0))),
        }
        logger.info("seed %d: %s", seed, ", ".join(f"{name} {value:.0f} s" for name, value in taken.items()))
        jobs = [(seeded, head, fold) for head in HEADS for fold in range(FOLDS)]
        with multiprocessing.get_context("fork").Pool(processes, maxtasksperchild=1) as pool:
            pool.starmap(_train_and_evaluate, jobs, chunksize=1)
        auroc = {head: _auroc([seeded / f"{head}_{fold}" for fold in range(FOLDS)]) for head in HEADS}
        logger.info("seed %d: %s", seed, ", ".join(f"{head} {value:.3f}" for head, value in auroc.items()))
        rows.append({"seed": seed, "seconds": taken, "auroc": auroc})
    means = {head: sum(row["auroc"][head] for row in rows) / len(rows) for head in HEADS}
    return {"patients": patients, "size": size, "seeds": rows, "mean": means}


def _settings(seeded: Path, output: str, fold: int) -> dict[str, Any]:
    """Overrides of the training's config."""
    return {
        "dataset_dir": str(seeded / "cohort"),
        "features_dir": str(seeded / "cohort" / "features"),
        "output_dir": str(seeded / output),
        "tracking_uri": f"sqlite:///{seeded}/mlflow.db",
        "fold": fold,
    }


def _run_command(run_id: str, configs: Sequence[str], settings: dict[str, Any]) -> None:
    words = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", str(_files(configs))]
    words += [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    threads = {} if run_id == "extracting" else {"OMP_NUM_THREADS": "1"}
    subprocess.run(words, check=True, capture_output=True, env={**os.environ, **threads})


def _train_and_evaluate(seeded: Path, head: str, fold: int) -> None:
    """One training of the bundle and its evaluation, in a process of its own whose output goes to a file."""
    torch.set_num_threads(1)
    log = os.open(seeded / f"{head}_{fold}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
    settings, files, sizes = _settings(seeded, f"{head}_{fold}", fold), list(TRAINING), dict[str, Any]()
    if head in BASELINES:
        config, sizes = BASELINES[head]
        files.append(config)
    monai.bundle.run("training", config_file=_files(files), **settings, **sizes)
    monai.bundle.run("evaluating", config_file=_files(EVALUATING), **settings)


def _files(configs: Sequence[str]) -> list[str]:
    return [str(CONFIGS / f"{name}.json") for name in configs]


def _auroc(outputs: Sequence[Path]) -> float:
    """Of all folds' test patients together."""
    paths = [output / "evaluation" / "patient_predictions.csv" for output in outputs]
    together = pd.concat([pd.read_csv(path, dtype={"patient": str}) for path in paths])
    assert together["patient"].is_unique
    classes = [name for name in together if name not in FIXED]
    labels = together["label"].map(classes.index).to_numpy()
    names = tuple(together["patient"])
    return float(SCORES["auroc"](Predictions(names, names, labels, together[classes].to_numpy())))


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="a cohort of each")
    parser.add_argument("--patients", type=int, default=36, help="of each cohort")
    parser.add_argument("--size", type=int, default=4096, help="side of a slide in pixels at 0.25 µm/px")
    parser.add_argument("--processes", type=int, default=2, help="trainings side by side")
    parser.add_argument("--folder", type=Path, help="where to work; None: one that is removed")
    asked = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (asked.folder or Path(temporary)).resolve()
        results = measure(folder, asked.seeds, asked.patients, asked.size, asked.processes)
    print(json.dumps(results, indent=2) if asked.json else as_text(results))


if __name__ == "__main__":
    main()
