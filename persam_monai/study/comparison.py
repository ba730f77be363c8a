# SPDX-License-Identifier: Apache-2.0
"""A whole study: its parts, the comparison of its models, and the files that say how they compare."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from monai.bundle import ConfigParser

import persam_monai
from persam_monai.cohort import Cohort, assign_folds, write_folds
from persam_monai.data import Source
from persam_monai.errors import UserError
from persam_monai.files import replacing, write_json
from persam_monai.metrics import SCORES, Predictions, class_areas, reliability, report
from persam_monai.screen import text_table
from persam_monai.study.classical import predict_classically
from persam_monai.study.parts import NAMES, Part, Study, collect, collect_personalisation, run_parts
from persam_monai.study.personalisation import summarise
from persam_monai.study.report import TITLES, write_differences, write_report
from persam_monai.study.statistics import compare

logger = logging.getLogger(__name__)

SHOWN = ("auroc", "balanced_accuracy", "nll", "calibration_error")  # on the terminal


def run_study(study: Study, jobs: int = 1) -> dict[Part, str]:
    """Run all parts of a study, compare the models and write what came out.

    Writes ``comparison.json``, ``comparison.csv``, ``report.html`` and ``differences.svg`` into the study's folder, of
    the seeds and networks whose parts all were tested.

    Returns:
        The parts that failed, with the reason.

    Raises:
        UserError: as :func:`persam_monai.study.run_parts`, or if the cohort is not usable.
    """
    cohort, source = _cohort(study)
    folds_file = study.output_dir / "folds.csv"
    assignment = assign_folds(cohort, study.folds, 0, folds_file if folds_file.is_file() else None)
    folds = max(assignment.values()) + 1
    if folds != study.folds and all(entry.fold is None for entry in cohort):
        raise UserError(f"--folds {study.folds}: {folds_file} has {folds}. Name another --output_dir.")
    study = replace(study, folds=folds)  # as the column fold of the table has them
    if not folds_file.is_file():
        write_folds(cohort, assignment, folds_file)
    failed = run_parts(study, jobs)
    models = _models(study)
    if not models:
        raise UserError(f"No network was tested on all folds. {study.output_dir}/parts/*/*/part.log say why.")
    models |= predict_classically(cohort, source, assignment, next(iter(models.values()))[0].names)
    results = describe(study, cohort, assignment, models, jobs)
    results["failed"] = {str(part): reason for part, reason in failed.items()}
    if NAMES["persam"] in models:
        seeds = _whole_seeds(study, "persam")
        results["personalisation"] = summarise([collect_personalisation(study, "persam", seed) for seed in seeds])
    write_json(study.output_dir / "comparison.json", results)
    _write_csv(study, results)
    write_report(study.output_dir / "report.html", results, models)
    write_differences(study.output_dir / "differences.svg", results)
    logger.info("\n".join(["", *_table(results), "", f"Wrote {study.output_dir / 'report.html'}."]))
    return failed


def _cohort(study: Study) -> tuple[Cohort, Source]:
    """The cohort and the source of its bags, as the configs make them."""
    parser = ConfigParser()
    parser.read_config(study.files("persam"))
    parser.update(study.settings("persam") | {"output_dir": str(study.output_dir)})
    parser.globals["persam_monai"] = persam_monai
    return parser.get_parsed_content("cohort"), parser.get_parsed_content("source")


def _models(study: Study) -> dict[str, list[Predictions]]:
    """The runs of every network whose parts all are there."""
    models: dict[str, list[Predictions]] = {}
    for network in study.networks:
        if seeds := _whole_seeds(study, network):
            models[NAMES.get(network, network)] = [collect(study, network, seed) for seed in seeds]
        else:
            logger.warning("%s was tested with no seed on all folds, and is left out of the comparison.", network)
    return models


def _whole_seeds(study: Study, network: str) -> list[int]:
    """The seeds with which a network was tested on all folds."""
    return [s for s in study.seeds if all(study.is_done(Part(network, fold, s)) for fold in range(study.folds))]


def describe(
    study: Study,
    cohort: Cohort,
    assignment: Mapping[str, int],
    models: Mapping[str, Sequence[Predictions]],
    jobs: int = 1,
) -> dict[str, Any]:
    """Scores and differences of all models, as JSON-able values.

    Args:
        study: what was studied.
        cohort: its patients.
        assignment: every patient's fold.
        models: the runs of every model; the first one is the reference.
        jobs: processes.

    Returns:
        What :func:`persam_monai.study.statistics.compare` gives, ``spread``: by model and score, mean and standard
        deviation over folds and seeds (``fold_mean``, ``fold_sd``) and standard deviation over seeds of the pooled
        score (``seed_sd``); ``auroc_by_class``; ``confusion_matrix`` and ``reliability`` of the first run; and what
        was studied.
    """
    reference = next(iter(models))
    spread = {}
    folds = np.array([assignment[name] for name in models[reference][0].names])
    for name, runs in models.items():
        parts = [run.take(np.flatnonzero(folds == fold)) for run in runs for fold in range(study.folds)]
        values = {score: np.array([SCORES[score](part) for part in parts]) for score in SCORES}
        pooled = {score: np.array([SCORES[score](run) for run in runs]) for score in SCORES}
        spread[name] = {
            score: {
                "fold_mean": float(np.nanmean(values[score])),
                "fold_sd": float(np.nanstd(values[score], ddof=1)),
                "seed_sd": float(pooled[score].std(ddof=1)) if len(runs) > 1 else None,
            }
            for score in SCORES
        }
    classes = list(cohort.classes)
    return {
        "patients": len(folds),
        "slides": len(cohort),
        "classes": classes,
        "folds": study.folds,
        "seeds": list(study.seeds),
        "reference": reference,
        **compare(models, reference, resamples=study.resamples, jobs=jobs),
        "spread": spread,
        "auroc_by_class": {
            name: {
                classes[index]: float(np.mean([class_areas(run)[index] for run in runs]))
                for index in class_areas(runs[0])
            }
            for name, runs in models.items()
        },
        "confusion_matrix": {n: report(runs[0], classes)["confusion_matrix"] for n, runs in models.items()},
        "reliability": {name: reliability(runs[0]) for name, runs in models.items()},
    }


def _write_csv(study: Study, results: Mapping[str, Any]) -> None:
    """``comparison.csv``: a row for each model and score."""
    with replacing(study.output_dir / "comparison.csv") as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        difference = [f"{results['reference']}_minus_model", "difference_low", "difference_high"]
        writer.writerow(["model", "score", "estimate", "low", "high", "fold_mean", "fold_sd", "seed_sd", *difference])
        for name, scores in results["scores"].items():
            for score, values in scores.items():
                spread = results["spread"][name][score]
                other = results["differences"].get(name, {}).get(score, {})
                row = [*values.values(), *spread.values(), *(other.get(k, "") for k in ("estimate", "low", "high"))]
                writer.writerow([name, score, *row])


def _table(results: Mapping[str, Any]) -> list[str]:
    """The comparison for the terminal."""
    rows = []
    for name, scores in results["scores"].items():
        cells = [f"{scores[score]['estimate']:.3f}" for score in SHOWN]
        auroc, difference = scores["auroc"], results["differences"].get(name)
        cells.insert(1, f"{auroc['low']:.3f}–{auroc['high']:.3f}")
        if difference:
            cells += ["{estimate:+.3f} ({low:+.3f} to {high:+.3f})".format(**difference["auroc"])]
            cells += [f"{difference['delong_p_holm']:.3f}"]
        else:
            cells += ["", ""]
        rows.append([name, *cells])
    shown = [TITLES[score] for score in SHOWN]
    heading = [f"{results['patients']} patients", shown[0], "95 %", *shown[1:], f"{results['reference']} has more", "p"]
    return text_table(heading, rows, right=range(1, len(heading)))
