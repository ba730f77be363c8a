# SPDX-License-Identifier: Apache-2.0
"""What the demo's way learns: synthetic cohorts, features of random weights, every patient held out once."""

from __future__ import annotations

import csv
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from persam_monai.metrics import Predictions
from persam_monai.metrics.scores import SCORES
from persam_monai.synthetic import make_cohort
from persam_monai.text_table import text_table

HEADS = {"PersAMHead": "image and record", "GatedAttentionMILHead": "image", "ClinicalHead": "record"}
# Settings were chosen on seeds 0 to 9.
SEEDS = (100, 101, 102)
FOLDS = 5
EXTRACTING = ("extract", "extractors/resnet18")
PATCHES = {"mpp": 1.0, "patch_size": 112}  # as in demo.json
TRAINING = ("train", "demo", "frozen")
# The config of a head that is not PersAM's, and the demo's sizes for it.
BASELINES: dict[str, tuple[str, dict[str, Any]]] = {
    "GatedAttentionMILHead": ("heads/gated_attention", {"head#width": 64, "head#projection_hidden": "null"}),
    "ClinicalHead": ("heads/clinical", {"head#width": 64}),
}
EVALUATING = ("train", "demo", "evaluate", "frozen")


@dataclass(frozen=True)
class Job:
    """One training of the bundle and its evaluation.

    Attributes:
        configs: folder of the bundle's configs.
        folder: of the cohort.
        head: class of the head.
        fold: tested on.
    """

    configs: str
    folder: str
    head: str
    fold: int

    @property
    def output(self) -> str:
        """Where its files go."""
        return f"{self.folder}/{self.head}_{self.fold}"

    def settings(self) -> dict[str, Any]:
        """Overrides of the training's config."""
        return {
            "dataset_dir": f"{self.folder}/cohort",
            "output_dir": self.output,
            "tracking_uri": f"sqlite:///{self.folder}/mlflow.db",
            "fold": self.fold,
        }


def measure(
    folder: Path,
    configs: Path,
    seeds: Sequence[int] = SEEDS,
    patients: int = 36,
    size: int = 4096,
    processes: int = 2,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Paint, extract, train and test on every fold, as the demo does it.

    Args:
        folder: gets a folder for each seed.
        configs: the bundle's configs.
        seeds: of the cohorts.
        patients: of each cohort.
        size: side of a slide in pixels.
        processes: trainings side by side.
        progress: is told what has been done.

    Returns:
        JSON-able: of each seed the seconds of ``painting``, ``extracting`` and ``training`` (one fold of PersAM, as
        typed on the command line), and by head ``auroc``, macro one-vs-rest over all patients, each of whom was held
        out once.
    """
    found = []
    for seed in seeds:
        place = folder / f"seed_{seed}"
        seconds = {"painting": _seconds(partial(make_cohort, place / "cohort", patients, seed, size))}
        first = Job(str(configs), str(place), next(iter(HEADS)), 0)
        where = {"dataset_dir": f"{place}/cohort", **PATCHES}
        seconds["extracting"] = _seconds(partial(_type, "extracting", _files(configs, EXTRACTING), where))
        alone = {**first.settings(), "output_dir": f"{place}/timed"}
        seconds["training"] = _seconds(partial(_type, "training", _files(configs, TRAINING), alone))
        if progress:
            progress(f"seed {seed}: " + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()))
        jobs = [Job(str(configs), str(place), head, fold) for head in HEADS for fold in range(FOLDS)]
        with multiprocessing.get_context("fork").Pool(processes, maxtasksperchild=1) as pool:
            pool.map(_run, jobs, chunksize=1)
        scores = {head: _auroc([job for job in jobs if job.head == head]) for head in HEADS}
        if progress:
            progress(f"seed {seed}: " + ", ".join(f"{head} {value:.3f}" for head, value in scores.items()))
        found.append({"seed": seed, "seconds": seconds, "auroc": scores})
    return {"patients": patients, "size": size, "seeds": found}


def table(found: dict[str, Any]) -> str:
    """What :func:`measure` found, as text."""
    titles = ["seed", *(f"{head} ({what})" for head, what in HEADS.items()), "extracting and training"]
    rows = []
    for one in found["seeds"]:
        seconds = one["seconds"]["extracting"] + one["seconds"]["training"]
        rows.append([str(one["seed"]), *(f"{one['auroc'][head]:.3f}" for head in HEADS), f"{seconds:.0f} s"])
    means = [np.mean([one["auroc"][head] for one in found["seeds"]]) for head in HEADS]
    rows.append(["mean", *(f"{value:.3f}" for value in means), ""])
    heading = (
        f"Macro AUROC of {found['patients']} held-out patients in {FOLDS} folds, slides of {found['size']} px, "
        "features of a ResNet18 with random weights"
    )
    return "\n".join([heading, "", *text_table(titles, rows, range(1, len(titles)))])


def _run(job: Job) -> None:
    """Train and evaluate in a process of its own."""
    import monai.bundle
    import torch

    torch.set_num_threads(1)
    log = os.open(f"{job.output}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
    configs, settings = Path(job.configs), job.settings()
    files, sizes = list(TRAINING), dict[str, Any]()
    if job.head in BASELINES:
        config, sizes = BASELINES[job.head]
        files.append(config)
    monai.bundle.run("training", config_file=_files(configs, files), **settings, **sizes)
    monai.bundle.run("evaluating", config_file=_files(configs, EVALUATING), **settings)


def _type(run_id: str, files: Sequence[str], settings: dict[str, Any]) -> None:
    words = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", str(list(files))]
    words += [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    threads = {} if run_id == "extracting" else {"OMP_NUM_THREADS": "1"}
    subprocess.run(words, check=True, capture_output=True, env={**os.environ, **threads})


def _files(configs: Path, names: Sequence[str]) -> list[str]:
    return [str(configs / f"{name}.json") for name in names]


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _auroc(jobs: Sequence[Job]) -> float:
    """Of all folds' test patients together."""
    names: list[str] = []
    labels, probabilities = [], []
    for job in jobs:
        with open(f"{job.output}/evaluation/patient_predictions.csv", newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            classes = [name for name in reader.fieldnames or () if name not in FIXED]
            for row in reader:
                names.append(row["patient"])
                labels.append(classes.index(row["label"]))
                probabilities.append([float(row[name]) for name in classes])
    assert len(set(names)) == len(names)
    together = Predictions(tuple(names), tuple(names), np.array(labels), np.array(probabilities))
    return float(SCORES["auroc"](together))


FIXED = ("patient", "label", "predicted", "warnings")  # columns of the predictions besides the classes
