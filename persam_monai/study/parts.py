# SPDX-License-Identifier: Apache-2.0
"""The parts of a study: one network, trained and tested on one fold with one seed, by the bundle's own configs."""

from __future__ import annotations

import itertools
import json
import logging
import multiprocessing
import os
import sys
import traceback
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import monai.bundle
import pandas as pd
import torch
from mlflow import MlflowClient
from monai.bundle import ConfigParser, ConfigWorkflow
from tqdm import tqdm

from persam_monai.commandline import user_error_in
from persam_monai.errors import UserError, did_you_mean
from persam_monai.files import replacing, write_json
from persam_monai.handlers import MLflowRun
from persam_monai.metrics import Predictions
from persam_monai.overrides import check_overrides
from persam_monai.study.personalisation import measure
from persam_monai.study.statistics import RESAMPLES

logger = logging.getLogger(__name__)

NETWORKS = {
    "persam": "persam",
    "late_fusion": "late_fusion",
    "transformer": "transformer",
    "image": "gated_attention",
    "record": "clinical",
}
"""Names of a study's networks, and of their files in ``bundle/configs/heads``."""

NAMES = {"persam": "PersAM", "late_fusion": "late fusion", "transformer": "transformer"}  # others are as they are
EXPERIMENT = "persam"  # as in train.json
TRIAL = "trial.json"  # validation loss of a trial
PERSONALISATION = "personalisation.csv"  # what measure() gives, of a part with personalised attention
SETTINGS_FILE = "study.json"


@dataclass(frozen=True)
class Study:
    """What is trained and tested, and how.

    Attributes:
        configs: ``bundle/configs``.
        output_dir: gets ``parts/`` and the comparison.
        networks: names in :data:`NETWORKS`.
        seeds: of trainings; folds are drawn with the cohort's own seed, the same for all.
        folds: how many, each a test fold once.
        rates: learning rates among which the validation fold chooses, for each network and fold with the first seed;
            none keeps the recipe's.
        recipe: a config that goes over ``train.json`` and the network's head.
        overrides: of the configs' keys, the same for every network.
        resamples: of the patients, for intervals.
    """

    configs: Path
    output_dir: Path
    networks: tuple[str, ...]
    seeds: tuple[int, ...]
    folds: int
    rates: tuple[float, ...]
    recipe: Path
    overrides: Mapping[str, Any]
    resamples: int = RESAMPLES

    def __post_init__(self) -> None:
        for name in self.networks:
            if name not in NETWORKS:
                known = ", ".join(NETWORKS)
                hint = did_you_mean(name, NETWORKS)
                raise UserError(f'--networks: found "{name}", expected some of {known}.{hint}')

    @property
    def parts(self) -> list[Part]:
        """Every network on every fold with every seed; those of one fold and seed follow one another."""
        order = itertools.product(self.seeds, range(self.folds), self.networks)
        return [Part(network, fold, seed) for seed, fold, network in order]

    @property
    def trials(self) -> list[Part]:
        """Trainings with each of the learning rates and the first seed; none where there is nothing to choose."""
        if len(self.rates) < 2:
            return []
        first = [part for part in self.parts if part.seed == self.seeds[0]]
        return [replace(part, rate=rate) for part in first for rate in self.rates]

    def folder(self, part: Part) -> Path:
        """Where a part is trained and tested: the ``output_dir`` of a training."""
        name = f"fold_{part.fold}_seed_{part.seed}"
        if part.rate is not None:
            return self.output_dir / "trials" / part.network / f"{name}_rate_{part.rate:g}"
        return self.output_dir / "parts" / part.network / name

    def rate_of(self, part: Part) -> float | None:
        """The learning rate of a part: its own or the one that was chosen; ``None`` for the recipe's."""
        if part.rate is not None or not self.rates:
            return part.rate
        if len(self.rates) == 1:
            return self.rates[0]
        losses = {}
        for rate in self.rates:
            file = self.folder(replace(part, seed=self.seeds[0], rate=rate)) / TRIAL
            if file.is_file():
                losses[rate] = json.loads(file.read_text(encoding="utf-8"))["val_loss"]
        if not losses:
            raise UserError("No training succeeded with any of the learning rates.")
        return min(losses, key=lambda rate: losses[rate])

    def is_done(self, part: Part) -> bool:
        """Whether a part was tested."""
        last = PERSONALISATION if part.network == "persam" else "evaluation/metrics.json"
        last = TRIAL if part.rate is not None else last
        return (self.folder(part) / last).is_file()

    def files(self, network: str) -> list[str]:
        """The configs of a network's training, without the recipe."""
        return [str(self.configs / "train.json"), str(self.configs / "heads" / f"{NETWORKS[network]}.json")]

    def settings(self, network: str) -> dict[str, Any]:
        """The recipe and the overrides, without the arguments of a head that this network's has not.

        Raises:
            UserError: if a key is unknown.
        """
        wanted = {**ConfigParser.load_config_file(str(self.recipe)), **self.overrides}
        own = ConfigParser.load_config_files(self.files(network))["head"]
        check_overrides(self.files("persam"), wanted)  # whose head has all arguments that others have
        return {k: v for k, v in wanted.items() if not k.startswith("head#") or k.removeprefix("head#") in own}


@dataclass(frozen=True)
class Part:
    """One network on one fold with one seed; with a ``rate``, a trial of that learning rate, which is not tested."""

    network: str
    fold: int
    seed: int
    rate: float | None = None

    def __str__(self) -> str:
        rate = "" if self.rate is None else f", learning rate {self.rate:g}"
        return f"{NAMES.get(self.network, self.network)}, fold {self.fold}, seed {self.seed}{rate}"


def run_parts(study: Study, jobs: int = 1) -> dict[Part, str]:
    """Train and test all parts that are not done yet.

    A part that was stopped goes on from its last epoch. Where a part fails the others go on.

    Args:
        study: what to do.
        jobs: parts side by side, each in a process with one thread.

    Returns:
        The parts that failed, with the reason.

    Raises:
        UserError: if the folder holds a study with other settings, or a key is unknown.
    """
    settings = {network: study.settings(network) for network in study.networks}
    _check_same_study(study, settings)
    everything = [*study.trials, *study.parts]
    failed: dict[Part, str] = {}
    if all(map(study.is_done, everything)):
        return failed
    # Forked processes have MONAI imported. What they do not inherit is a connection to a database.
    pool = ProcessPoolExecutor(
        jobs, multiprocessing.get_context("fork"), initializer=torch.set_num_threads, initargs=(1,)
    )
    try:
        parent = pool.submit(_open_run, study).result()
        with tqdm(total=sum(not study.is_done(part) for part in everything), desc="study", unit="part") as bar:
            for some in (study.trials, study.parts):  # parts need what the trials find
                waiting = [part for part in some if not study.is_done(part)]
                futures = {pool.submit(_run, study, part, settings[part.network], parent): part for part in waiting}
                for future in as_completed(futures):
                    part = futures[future]
                    if (reason := future.result()) is not None:
                        failed[part] = reason
                        tqdm.write(f"{part} failed: {reason} (see {study.folder(part) / 'part.log'})")
                    bar.set_postfix_str(str(part))
                    bar.update()
        pool.submit(_close_run, study, parent, not failed).result()
    except BrokenProcessPool:
        raise UserError("A part was killed, most likely for want of memory: use fewer --jobs.") from None
    finally:
        pool.shutdown(cancel_futures=True)
    return failed


def _open_run(study: Study) -> str:
    """Begin the MLflow run of the study, which those of its parts belong to."""
    name = f"study {study.output_dir.name}"
    run = MLflowRun(study.overrides["tracking_uri"], study.overrides.get("experiment_name", EXPERIMENT), name, {}, {})
    return run.open()


def _close_run(study: Study, run_id: str, well: bool) -> None:
    MlflowClient(study.overrides["tracking_uri"]).set_terminated(run_id, "FINISHED" if well else "FAILED")


def _run(study: Study, part: Part, settings: Mapping[str, Any], parent: str) -> str | None:
    """Train and test a part; the reason if that fails. What it says goes to ``part.log``."""
    folder = study.folder(part)
    folder.mkdir(parents=True, exist_ok=True)
    log = os.open(folder / "part.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
    os.close(log)
    files = study.files(part.network)
    overrides = {**settings, "output_dir": str(folder), "fold": part.fold, "folds": study.folds, "seed": part.seed}
    overrides |= {"run_name": str(part), "folds_file": str(study.output_dir / "folds.csv"), "mlflow_run#parent": parent}
    try:
        if (rate := study.rate_of(part)) is not None:
            overrides |= {"learning_rate": rate, "clinical_learning_rate": rate}
        monai.bundle.run("training", config_file=files, **overrides, resume=True)
        if part.rate is not None:
            card = json.loads((folder / "models" / "model.json").read_text(encoding="utf-8"))
            write_json(folder / TRIAL, {"val_loss": card["val_loss"]})
            return None
        workflow = ConfigWorkflow([*files, str(study.configs / "evaluate.json")], run_id="evaluating", **overrides)
        workflow.initialize()
        workflow.run()
        if part.network == "persam":
            evaluation = workflow.parser.get_parsed_content("evaluation")
            measured = measure(evaluation.network, evaluation.dataset, Path(settings["dataset_dir"]) / "truth")
            with replacing(folder / PERSONALISATION) as partial:
                measured.to_csv(partial)
    except Exception as error:
        traceback.print_exc()
        return str(user_error_in(error) or f"{type(error).__name__}: {error}")
    return None


def _check_same_study(study: Study, settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse to mix parts of different settings; networks and seeds may be added."""
    file = study.output_dir / SETTINGS_FILE
    shared = {"folds": study.folds, "learning_rates": study.rates}
    now: dict[str, Any] = json.loads(json.dumps({name: {**shared, **own} for name, own in settings.items()}))
    for own in now.values():
        own.pop("tracking_uri", None)
    before: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    changed = {
        key
        for name in now.keys() & before.keys()
        for key in now[name].keys() | before[name].keys()
        if now[name].get(key) != before[name].get(key)
    }
    if changed:
        raise UserError(
            f"{study.output_dir} holds a study with another {', '.join(sorted(changed))}. Take back what was changed, "
            "or name another --output_dir."
        )
    write_json(file, {**before, **now})


def collect(study: Study, network: str, seed: int) -> Predictions:
    """The test predictions of all folds together, in the order of ``folds.csv``: every patient once.

    Raises:
        UserError: if a part is missing.
    """
    tables = []
    for fold in range(study.folds):
        part = Part(network, fold, seed)
        if not study.is_done(part):
            raise UserError(f"{part} is missing; run the study again.")
        path = study.folder(part) / "evaluation" / "patient_predictions.csv"
        tables.append(pd.read_csv(path, dtype={"patient": str, "label": str}, keep_default_na=False))
    together = pd.concat(tables).set_index("patient")
    order = pd.read_csv(study.output_dir / "folds.csv", dtype=str, keep_default_na=False)["patient_id"]
    together = together.loc[[patient for patient in order if patient in together.index]]
    classes = [name for name in together.columns if name not in ("label", "predicted", "warnings")]
    names = tuple(together.index)
    labels = together["label"].map(classes.index).to_numpy()
    return Predictions(names, names, labels, together[classes].to_numpy(dtype=float))


def collect_personalisation(study: Study, network: str, seed: int) -> pd.DataFrame:
    """What :func:`~persam_monai.study.personalisation.measure` gives, of the test patients of all folds."""
    files = [study.folder(Part(network, fold, seed)) / PERSONALISATION for fold in range(study.folds)]
    return pd.concat([pd.read_csv(file, dtype={"patient": str}).set_index("patient") for file in files])
