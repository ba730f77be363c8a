# SPDX-License-Identifier: Apache-2.0
"""A config file exchanges the head; everything else goes on as it is."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import monai.bundle
import pytest
import torch
from monai.networks.nets import ResNet

from convert_reference_checkpoint import convert_reference_checkpoint
from persam_monai.clinical import ClinicalSchema
from persam_monai.overrides import HEAD_FILES
from tests.bundle.running import CONFIGS, INFERENCE, ROOT, SMALL_EXTRACTOR, TRAINING, run_bundle
from tests.networks.test_reference import other_state

BASELINES = [name for name in HEAD_FILES if name != "PersAMHead"]


def run(monkeypatch: pytest.MonkeyPatch, run_id: str, configs: list[Path], **settings: Any) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.excepthook", None)  # the run replaces it; this puts it back afterwards
    monai.bundle.run(run_id, config_file=[str(path) for path in configs], **settings)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_trains_and_predicts_through_the_bundle(
    name: str, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {"dataset_dir": str(dataset_dir), "output_dir": str(tmp_path)}
    configs = [*TRAINING, CONFIGS / "heads" / f"{HEAD_FILES[name]}.json"]
    run(monkeypatch, "training", configs, **folders, **{"head#width": 32}, max_epochs=1)
    card = json.loads((tmp_path / "models" / "model.json").read_text())
    assert (card["head"]["class"], card["head"]["width"]) == (name, 32)
    run(monkeypatch, "inference", INFERENCE, **folders, patches_per_slide=16, bag_size=8)
    predictions = rows(tmp_path / "inference" / "predictions.csv")
    assert len(predictions) == len(rows(dataset_dir / "cohort.csv"))
    for row in predictions:
        assert sum(float(row[label]) for label in ("DLBCL", "FL", "Reactive")) == pytest.approx(1, abs=1e-5)


def test_a_head_chosen_by_its_class_ends_with_the_config_to_use(dataset_dir: Path, tmp_path: Path) -> None:
    target = {"head#_target_": "persam_monai.networks.ClinicalHead"}
    result = run_bundle("training", TRAINING, dataset_dir=dataset_dir, output_dir=tmp_path, **target)
    assert result.returncode != 0
    message = result.stderr[result.stderr.rindex("Error: ") :]
    assert "ClinicalHead" in message
    assert "bundle/configs/heads/clinical.json" in message
    assert "Traceback" not in result.stderr


def test_extractor_and_optimiser_settings_reach_a_training_and_ablations_its_evaluation(
    dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {"dataset_dir": str(dataset_dir), "output_dir": str(tmp_path)}
    settings: dict[str, Any] = {"extractor_batch": 3, "extractor_checkpointing": True, "decay_norms": False}
    ablations = {"head#exploratory": False, "head#attention": "standard"}
    run(monkeypatch, "training", TRAINING, **folders, **settings, **ablations, max_epochs=1)
    card = json.loads((tmp_path / "models" / "model.json").read_text())
    assert (card["head"]["exploratory"], card["head"]["relevance"], card["head"]["attention"]) == (
        False,
        True,
        "standard",
    )
    assert card["settings"]["extractor_batch"] == 3
    assert card["settings"]["extractor_checkpointing"] is True
    assert card["settings"]["decay_norms"] is False
    evaluating = [CONFIGS / "train.json", CONFIGS / "evaluate.json", SMALL_EXTRACTOR]
    settings |= {"min_tissue": 0.5, "patches_per_slide": 16}
    run(monkeypatch, "evaluating", evaluating, **folders, **settings)
    assert (tmp_path / "evaluation" / "metrics.json").is_file()


def test_a_converted_checkpoint_of_the_public_code_predicts_through_the_bundle(
    dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = ClinicalSchema.load(dataset_dir / "clinical.yaml").group_sizes
    described = json.loads((ROOT / SMALL_EXTRACTOR).read_text())["extractor"]
    backbone = ResNet(**{name: value for name, value in described.items() if not name.startswith("_")})
    torch.save(other_state(features=32, groups=(first, second), classes=3), tmp_path / "theirs.pth")
    torch.save(backbone.state_dict(), tmp_path / "resnet.pth")
    convert_reference_checkpoint(
        tmp_path / "theirs.pth",
        tmp_path / "models" / "model.pt",
        dataset_dir / "clinical.yaml",
        extractor_weights=str(tmp_path / "resnet.pth"),
        backbone=backbone,
    )
    folders = {"dataset_dir": str(dataset_dir), "output_dir": str(tmp_path)}
    run(monkeypatch, "inference", INFERENCE, **folders, patches_per_slide=16, bag_size=8)
    assert len(rows(tmp_path / "inference" / "predictions.csv")) == len(rows(dataset_dir / "cohort.csv"))
