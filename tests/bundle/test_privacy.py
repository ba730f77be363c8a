# SPDX-License-Identifier: Apache-2.0
"""Nothing of a cohort reaches the logs or MLflow: recognisable names and values are planted, and looked for."""

from __future__ import annotations

import csv
import json
import math
import shutil
import sqlite3
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from persam_monai.cohort import Cohort, split
from persam_monai.privacy import pseudonym
from tests.bundle.running import EVALUATING, TRAINING, run_bundle, run_well
from tests.bundle.test_bad_slides import ALL_CELLS, damage

SURNAMES = "Quillfeather"  # in every patient_id
FOLDER, ACCESSION = "Brockhurst_Amelia", "ACC-90817"  # in every slide's path
CLASSES = ("Glioquartzite", "Feldsparoma", "Tourmalinosis")
LEVELS = ("zyxelchrome", "vermicious", "oblongata")
REMARK, NOTE = "told to Dr Hawthornwaite", "transferred from Snodsbury"
EVERYBODYS, LOGGED, OUTLIER = 48213.7, 27651.3, 91357.25  # the first two are every patient's, so also the medians
CELL = "seventyfold-QX"  # where a number belongs

SCHEMA = f"""\
classes: [{", ".join(CLASSES)}]
groups:
  interview:
    growth: {{kind: categorical, levels: [{", ".join(LEVELS)}]}}
    smoker: {{kind: binary}}
  blood:
    ferritin: {{kind: numeric}}
    ldh: {{kind: numeric, transform: log}}
    crp: {{kind: numeric}}
"""

LOGGING = """\
[loggers]
keys=root,engines
[handlers]
keys=console,file,engines
[formatters]
keys=plain
[logger_root]
level=DEBUG
handlers=console,file
[logger_engines]
level=DEBUG
handlers=engines
qualname=ignite.engine
[handler_console]
class=StreamHandler
level=INFO
formatter=plain
args=(sys.stdout,)
[handler_file]
class=FileHandler
level=DEBUG
formatter=plain
args=({path!r}, "w")
[handler_engines]
class=FileHandler
level=DEBUG
formatter=plain
args=({engines!r}, "w")
[formatter_plain]
format=%(asctime)s %(levelname)s %(name)s: %(message)s
"""


class Planted(NamedTuple):
    """A cohort whose contents can be recognised."""

    folder: Path
    training: str  # damaged slides, one in each part
    test: str


def spellings(value: float) -> set[str]:
    """How a number, or its logarithm, might be written."""
    plain = {f"{value}", f"{value:.2f}", f"{value:.6g}", f"{value:.5e}", f"{np.float32(value):.4f}"}
    return {*plain, *(text.replace(".", ",") for text in plain), f"{math.log(value):.4f}"}


IDENTIFIERS = {SURNAMES, FOLDER, *FOLDER.split("_"), ACCESSION, "Hawthornwaite", "Snodsbury"}
NUMBERS = set().union(*map(spellings, (EVERYBODYS, LOGGED, OUTLIER)))
VALUES = {*LEVELS, *NUMBERS}
SECRETS = {*IDENTIFIERS, *VALUES, *CLASSES}


def found(secrets: Iterable[str], text: str) -> set[str]:
    folded = text.casefold()
    return {secret for secret in secrets if secret.casefold() in folded}


@pytest.fixture(scope="module", autouse=True)
def key() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERSAM_PSEUDONYM_KEY", "a key of this test")
        yield


@pytest.fixture(scope="module")
def planted(dataset_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    folder = tmp_path_factory.mktemp("planted") / "cohort"
    (folder / "slides" / FOLDER).mkdir(parents=True)
    (folder / "clinical.yaml").write_text(SCHEMA)
    with (dataset_dir / "cohort.csv").open(newline="", encoding="utf-8") as file:
        before = list(csv.DictReader(file))
    labels = dict(zip(sorted({row["label"] for row in before}), CLASSES, strict=True))
    rows: list[dict[str, Any]] = []
    for i, row in enumerate(before):
        slide = f"slides/{FOLDER}/{ACCESSION}-{i:02}.tif"
        shutil.copy(dataset_dir / row["slide"], folder / slide)
        rows.append(
            {
                "patient_id": f"{SURNAMES}-{row['patient_id']}",
                "slide": slide,
                "label": labels[row["label"]],
                "growth": LEVELS[int(row["patient_id"][1:]) % 3],
                "smoker": ("yes", "no")[int(row["patient_id"][1:]) % 2],
                "ferritin": EVERYBODYS,
                "ldh": LOGGED,
                "crp": 5 + int(row["patient_id"][1:]) % 4,
                "remarks": REMARK,
                "note": NOTE,
            }
        )
    write_table(folder, rows)
    parts = split(Cohort.load_dir(str(folder)), 0, 5, 0)
    alone = next(entry for entry in parts.train if sum(e.patient_id == entry.patient_id for e in parts.train) == 1)
    rows[[row["patient_id"] for row in rows].index(alone.patient_id)]["crp"] = OUTLIER
    write_table(folder, rows)
    bad = next(entry for entry in parts.train if entry is not alone), parts.test.entries[0]
    for entry in bad:
        damage(entry.path)
    return Planted(folder, bad[0].slide, bad[1].slide)


def write_table(folder: Path, rows: list[dict[str, Any]]) -> None:
    with (folder / "cohort.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def logging_file(folder: Path) -> Path:
    """A configuration of logging that writes everything to files: all loggers to one, the engines' to another."""
    config = folder / "logging.conf"
    config.write_text(LOGGING.format(path=str(folder / "all.log"), engines=str(folder / "engines.log")))
    return config


def logged(folder: Path) -> str:
    """All that was written to those files; the next run begins them anew."""
    return "".join((folder / name).read_text(encoding="utf-8") for name in ("all.log", "engines.log"))


class Ran(NamedTuple):
    """What is left of a run."""

    output: Path
    result: subprocess.CompletedProcess[str]
    log: str


@pytest.fixture(scope="module")
def runs(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """A training and an evaluation that both skip a slide."""
    folder = tmp_path_factory.mktemp("told")
    ran = {}
    settings: dict[str, Any] = {"dataset_dir": planted.folder, "output_dir": folder / "output"}
    settings.update(bag_size=ALL_CELLS, on_bad_slide="skip", num_workers=1, index_dir=folder / "index")
    settings.update(logging_file=logging_file(folder))
    for name, configs in (("training", TRAINING), ("evaluating", EVALUATING)):
        result = run_well(name, configs, **settings)
        ran[name] = Ran(folder / "output", result, logged(folder))
    return ran


def artefacts(output: Path) -> dict[str, str]:
    """Name and content of every file that MLflow keeps beside its database."""
    files = [path for path in (output / "mlruns").rglob("*") if path.is_file()]
    return {str(path.relative_to(output)): path.read_bytes().decode("latin-1") for path in files}


def database(output: Path) -> str:
    """The database as bytes and as every value of every table."""
    files = "".join(path.read_bytes().decode("latin-1") for path in output.glob("mlflow.db*"))
    with sqlite3.connect(output / "mlflow.db") as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [row for name in tables for row in connection.execute(f'SELECT * FROM "{name}"')]
    connection.close()
    return "\n".join([files, *(str(value) for row in rows for value in row)])


@pytest.mark.parametrize("name", ["training", "evaluating"])
def test_what_a_run_logs_says_nothing_of_the_cohort(runs: dict[str, Ran], planted: Planted, name: str) -> None:
    _, result, log = runs[name]
    assert "DEBUG" in log
    for text in (log, result.stdout, result.stderr):
        assert found(SECRETS, text) == set()
    slide = planted.training if name == "training" else planted.test
    for text in (log, result.stdout):
        assert f"Skipped slide {pseudonym(slide)} " in text
    assert f"Slide {pseudonym(str(planted.folder / slide))} is read by tiles" in log  # in worker processes


def test_mlflow_is_told_nothing_of_the_cohort(runs: dict[str, Ran], planted: Planted) -> None:
    output = runs["training"].output
    assert found(SECRETS, database(output)) == set()
    kept = artefacts(output)
    names = sorted(Path(file).name for file in kept)
    assert names == sorted(
        [
            *("config.json", "model_description.json", "skipped_slides.csv"),  # of the training
            *("config.json", "metrics.json", "skipped_slides.csv"),  # of the evaluation
        ]
    )
    for file, content in kept.items():
        # An evaluation's metrics are those of its classes, which they name.
        secrets = SECRETS - set(CLASSES) if file.endswith("metrics.json") else SECRETS
        assert found(secrets, file + content) == set(), file
    lists = {content for file, content in kept.items() if file.endswith("skipped_slides.csv")}
    assert lists == {
        f"part,pseudonym\ntraining,{pseudonym(planted.training)}\n",
        f"part,pseudonym\ntest,{pseudonym(planted.test)}\n",
    }


def test_mlflow_has_what_tells_a_model_from_others(runs: dict[str, Ran]) -> None:
    output = runs["training"].output
    (description,) = (json.loads(text) for file, text in artefacts(output).items() if "model_description" in file)
    card = json.loads((output / "models" / "model.json").read_text(encoding="utf-8"))
    assert description["sha256"] == card["sha256"]
    assert description["head"] == card["head"]
    assert description["classes"] == 3
    assert description["variables"] == [{"categorical": 1, "binary": 1}, {"numeric": 3}]
    assignment = card["settings"]["fold_assignment"]
    everything = database(output)
    assert pseudonym(assignment) in everything
    assert assignment not in everything


def test_what_was_planted_is_in_the_files_that_stay(runs: dict[str, Ran], planted: Planted) -> None:
    output = runs["training"].output
    card, folds, skipped, test_skipped = (
        (output / name).read_text(encoding="utf-8")
        for name in ("models/model.json", "folds.csv", "skipped_slides.csv", "evaluation/skipped_slides.csv")
    )
    assert found(SECRETS, folds) == {SURNAMES, *CLASSES}
    assert {*LEVELS, *CLASSES} <= found(SECRETS, card)
    assert found(spellings(EVERYBODYS), card), "a median that is a patient's value"
    for text, slide in ((skipped, planted.training), (test_skipped, planted.test)):
        assert str(planted.folder / slide) in text
        assert pseudonym(slide) in text
    state = torch.load(output / "models" / "model.pt", weights_only=True)
    (median,) = (tensor for name, tensor in state.items() if name.endswith("clinical_encoder.median"))
    assert np.float32(EVERYBODYS) in median.tolist()
    assert np.float32(math.log(LOGGED)) in median.tolist()


def test_an_error_in_the_middle_names_the_slide_on_the_screen_alone(planted: Planted, tmp_path: Path) -> None:
    output = tmp_path / "output"
    settings: dict[str, Any] = {"dataset_dir": planted.folder, "output_dir": output, "debug": "true"}
    result = run_bundle("training", TRAINING, **settings, bag_size=ALL_CELLS, logging_file=logging_file(tmp_path))
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert str(planted.folder / planted.training) in result.stderr
    log, mlflow = logged(tmp_path), database(output)
    assert "terminating due to exception: UserError" in log
    assert "FAILED" in mlflow
    for text in (log, result.stdout, mlflow, *artefacts(output).values()):
        assert found(SECRETS, text) == set()


def test_an_error_in_the_table_shows_the_cell_on_the_screen_alone(planted: Planted, tmp_path: Path) -> None:
    broken = tmp_path / "cohort"
    shutil.copytree(planted.folder, broken)
    with (broken / "cohort.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rows[6]["ldh"] = CELL
    write_table(broken, rows)
    settings: dict[str, Any] = {"dataset_dir": broken, "output_dir": tmp_path / "output", "debug": "true"}
    result = run_bundle("training", TRAINING, **settings, logging_file=logging_file(tmp_path))
    assert result.returncode == 1
    assert found([CELL, "row 8", "ldh"], result.stderr) == {CELL, "row 8", "ldh"}
    for text in (logged(tmp_path), result.stdout):
        assert found({*SECRETS, CELL}, text) == set()
