# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from describe_model import find_model, model_lines
from persam_monai.clinical import ClinicalSchema, RecordStatistics
from persam_monai.errors import UserError
from persam_monai.model import load_card, save_model

ROOT = Path(__file__).parents[1]
SCHEMA = ClinicalSchema.from_dict(
    {
        "classes": ["DLBCL", "FL"],
        "groups": {
            "interview": {
                "age": {"kind": "numeric", "unit": "years", "range": [0, 120]},
                "sex": {"kind": "categorical", "levels": ["female", "male", "diverse"]},
                "fever": {"kind": "binary"},
            },
            "blood": {
                "ldh": {"kind": "numeric", "unit": "U/L", "transform": "log"},
                "stage": {"kind": "ordinal", "levels": ["I", "II", "III", "IV"]},
                "never_measured": {"kind": "numeric"},
            },
        },
    }
)
RECORDS: list[dict[str, object]] = [
    {"age": 40, "sex": "female", "fever": "no", "ldh": 100, "stage": "I"},
    {"age": 50, "sex": "male", "fever": "no", "ldh": 200, "stage": "II"},
    {"age": 75, "sex": "male", "fever": "yes", "ldh": 800, "stage": "III"},
    {"age": None, "sex": "male", "fever": "no", "ldh": None, "stage": "IV"},
]
CARD: dict[str, Any] = {
    "schema": SCHEMA.to_dict(),
    "head": {
        "class": "PersAMHead",
        "width": 512,
        "layers": 2,
        "heads": 8,
        "attention": "balanced",
        "dropout": 0.1,
        "missing": "median",
    },
    "patch_size": 224,
    "mpp": 0.25,
    "bag_size": 100,
    "settings": {"fold": 2, "folds": 5, "seed": 7, "extractor_weights": None},
}
TRAINED = {
    "statistics": RecordStatistics.fit(
        SCHEMA, np.stack([SCHEMA.encode(record, "here") for record in RECORDS])
    ).to_dict(),
    "trained_on": {
        "patients": 4,
        "slides": 6,
        "classes": {"DLBCL": {"patients": 3, "slides": 5}, "FL": {"patients": 1, "slides": 1}},
    },
}


def saved(folder: Path, **more: Any) -> Path:
    save_model(nn.Linear(1, 1), folder / "model.pt", {**CARD, **more})
    return folder / "model.pt"


def shown(path: Path) -> str:
    return "\n".join(model_lines(load_card(path)))


def row(text: str, name: str) -> str:
    return " ".join(next(line for line in text.splitlines() if line.split()[:1] == [name]).split())


def test_variables_are_told_in_their_own_units(tmp_path: Path) -> None:
    text = shown(saved(tmp_path, **TRAINED))
    assert "Clinical records of 4 patients" in text
    assert row(text, "age") == "age numeric years 3 50 40 to 75"
    assert row(text, "ldh") == "ldh numeric, log U/L 3 200 100 to 800"
    assert row(text, "stage") == "stage ordinal 4 II/III I to IV"
    assert row(text, "fever") == "fever binary 4 no no, yes"
    assert row(text, "sex") == "sex categorical 4 female, male (nobody had: diverse)"
    assert row(text, "never_measured") == "never_measured numeric 0 nobody had a value"


def test_the_training_is_told(tmp_path: Path) -> None:
    text = shown(saved(tmp_path, **TRAINED))
    assert "Classes: DLBCL, FL" in text
    assert "224 x 224 pixels at 0.25 µm per pixel, 100 in a bag" in text
    assert "Trained on 4 patients, 6 slides (DLBCL: 3 patients, 5 slides; FL: 1 patient, 1 slide)" in text
    assert "Test fold: 2 of 5, seed 7" in text
    assert "Extractor began from: random weights" in text
    assert "PersAMHead (PersAM, personalised attention); width 512, layers 2, heads 8" in text


@pytest.mark.parametrize(
    ("head", "sentences"),
    [
        ({}, ["the median of the training patients stands in for it", "Clinical dropout: 0"]),
        (
            {"missing": "learned", "clinical_dropout": 0.3},
            ["the network is told where (learned)", "Clinical dropout: 0.3"],
        ),
        ({"relevance": False}, ["relevance false"]),
    ],
)
def test_missing_values_are_told_in_words(tmp_path: Path, head: dict[str, Any], sentences: list[str]) -> None:
    text = shown(saved(tmp_path, **{**TRAINED, "head": {**CARD["head"], **head}}))
    for sentence in sentences:
        assert sentence in text


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    text = shown(saved(tmp_path, settings={}, head={}))
    assert "not written down" in text
    assert row(text, "ldh") == "ldh numeric, log U/L"
    assert "None" not in text
    assert "nan" not in text


def test_a_model_that_is_not_whole_is_an_error(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes() + b"x")
    command = [sys.executable, str(ROOT / "scripts/describe_model.py"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert "do not belong together" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("place", ["output", "output/models", "output/models/model.pt", "output/models/model.json"])
def test_a_model_is_found_where_a_person_names_it(tmp_path: Path, place: str) -> None:
    weights = saved(tmp_path / "output" / "models")
    assert find_model(tmp_path / place) == weights


@pytest.mark.parametrize("place", ["output", "nowhere", "half", "half/model.pt"])
def test_a_model_that_is_not_there_is_an_error_without_options_that_the_script_lacks(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / "output").mkdir()
    saved(tmp_path / "half").unlink()
    with pytest.raises(UserError) as error:
        find_model(tmp_path / place)
    for part in (str(tmp_path / place), ".pt", "output_dir"):
        assert part in str(error.value)
    assert "--" not in str(error.value)


def test_nothing_is_said_of_missing_values_where_no_record_is_read(tmp_path: Path) -> None:
    head = {"class": "GatedAttentionMILHead", "num_classes": 2, "width": 64}
    text = shown(saved(tmp_path, **{**TRAINED, "head": head}))
    assert "gated attention over the patches alone); width 64" in text
    assert "issing clinical value" not in text
