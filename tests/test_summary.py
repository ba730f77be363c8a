# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from persam_monai.errors import UserError
from show_results import summarise


def scores(count: int, accuracy: float | None, balanced: float | None, auroc: float | None) -> dict[str, Any]:
    return {"count": count, "accuracy": accuracy, "balanced_accuracy": balanced, "auroc": auroc}


def test_the_last_screen_shows_files_and_scores_beside_the_baseline(tmp_path: Path) -> None:
    metrics = {
        "slide": scores(8, 0.75, 0.7, 0.91234),
        "patient": scores(7, 0.71, 0.6, None),
        "commonest_class": {
            "always": "Reactive",
            "slide": scores(8, 0.375, 1 / 3, 0.5),
            "patient": scores(7, 0.4, 1 / 3, None),
        },
    }
    for name in ("evaluation/metrics.json", "models/model.pt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(metrics))
    text = summarise(tmp_path)
    lines = [line.split() for line in text.splitlines()]
    assert str(tmp_path.resolve()) in text
    assert any(line[:1] == ["models/model.pt"] for line in lines)
    assert "inference/predictions.csv" not in text  # it does not exist
    assert "Test fold: 8 slides of 7 patients" in text
    assert "always Reactive" in text
    assert ["macro", "AUROC,", "by", "slide", "0.912", "0.500"] in lines
    assert ["accuracy,", "by", "slide", "0.750", "0.375"] in lines
    assert ["balanced", "accuracy,", "by", "patient", "0.600", "0.333"] in lines
    assert ["macro", "AUROC,", "by", "patient", "–", "–"] in lines


def evaluated(folder: Path, head: str, auroc: float, patients: tuple[str, ...] = ("P1", "P2")) -> Path:
    one = scores(2, 0.5, 0.5, auroc)
    metrics = {"slide": one, "patient": one, "commonest_class": {"always": "FL", "slide": one, "patient": one}}
    files = {
        "evaluation/metrics.json": json.dumps(metrics),
        "evaluation/patient_predictions.csv": "patient,label\n" + "".join(f"{name},FL\n" for name in patients),
        "models/model.json": json.dumps({"head": {"class": head}}),
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_several_trainings_are_compared_by_what_their_heads_read(tmp_path: Path) -> None:
    heads = {"PersAMHead": 0.9, "GatedAttentionMILHead": 0.8, "ClinicalHead": 0.7, "mine": 0.6}
    text = summarise(*(evaluated(tmp_path / head, head, auroc) for head, auroc in heads.items()))
    title = next(line for line in text.splitlines() if "Test fold" in line)
    places = [title.index(name) for name in ("PersAM", "image alone", "record alone", "mine", "always FL")]
    assert places == sorted(places)
    line = next(line for line in text.splitlines() if "AUROC, by patient" in line)
    assert line.split()[-5:] == ["0.900", "0.800", "0.700", "0.600", "0.900"]


def test_scores_of_other_patients_are_not_compared(tmp_path: Path) -> None:
    folders = [evaluated(tmp_path / "a", "PersAMHead", 0.9), evaluated(tmp_path / "b", "PersAMHead", 0.9, ("P3",))]
    with pytest.raises(UserError, match="was evaluated on other patients than"):
        summarise(*folders)


def test_what_was_not_evaluated_is_not_summarised(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evaluation/metrics\.json does not exist. Run training and evaluating"):
        summarise(tmp_path)
