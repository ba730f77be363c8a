# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from persam_monai.engines.outputs import TrainingFolder
from persam_monai.errors import UserError
from persam_monai.files import write_json
from persam_monai.model import save_model

SETTINGS: dict[str, Any] = {"bag_size": 100, "milestones": (3, 6), "num_workers": 2, "max_epochs": 9, "device": "cpu"}


@pytest.fixture
def folder(tmp_path: Path) -> TrainingFolder:
    return TrainingFolder(tmp_path / "deep" / "output")


@pytest.fixture
def trained(folder: TrainingFolder) -> TrainingFolder:
    """A folder with a model and a checkpoint."""
    for path in (folder.model, folder.checkpoint):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"tensors")
    write_json(folder.model.with_suffix(".json"), {})
    write_json(folder.checkpoint.with_suffix(".json"), SETTINGS)
    return folder


def files(folder: TrainingFolder) -> list[str]:
    return sorted(str(path.relative_to(folder.root)) for path in folder.root.rglob("*") if path.is_file())


def test_a_new_folder_is_made_and_stays_empty(folder: TrainingFolder) -> None:
    folder.check(overwrite=False)
    folder.clear()
    assert folder.root.is_dir()
    assert files(folder) == []


def test_an_earlier_training_is_not_replaced_unasked(trained: TrainingFolder) -> None:
    before = files(trained)
    with pytest.raises(UserError) as caught:
        trained.check(overwrite=False)
    for words in (str(trained.root), str(trained.model), str(trained.checkpoint), "--resume true", "--overwrite true"):
        assert words in str(caught.value)
    assert files(trained) == before


def test_overwriting_removes_what_belongs_to_the_earlier_training_only(trained: TrainingFolder) -> None:
    (trained.root / "notes.txt").write_text("mine")
    (trained.checkpoint.parent / ".last.pt.123.partial").write_bytes(b"half")
    before = files(trained)
    trained.check(overwrite=True)
    assert files(trained) == before, "nothing is removed before the new training is known to begin"
    trained.clear()
    assert files(trained) == ["notes.txt"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"is not writable.*--output_dir") as caught:
        TrainingFolder(tmp_path / "file" / "output").check(overwrite=False)
    assert str(tmp_path / "file" / "output") in str(caught.value)
    with pytest.raises(UserError, match="is not writable"):
        TrainingFolder(tmp_path / "file").check(overwrite=False)


@pytest.mark.parametrize("resume", [False])
def test_a_training_that_is_not_resumed_starts_from_the_beginning(trained: TrainingFolder, resume: Any) -> None:
    assert trained.resumed_from(resume, {}) is None


@pytest.mark.parametrize("resume", [True])
def test_a_resumed_training_goes_on_from_its_own_checkpoint(trained: TrainingFolder, resume: Any) -> None:
    assert trained.resumed_from(resume, SETTINGS) == trained.checkpoint


def test_resuming_before_the_first_checkpoint_starts_from_the_beginning(folder: TrainingFolder) -> None:
    assert folder.resumed_from(True, SETTINGS) is None


def test_a_checkpoint_can_be_named(trained: TrainingFolder, tmp_path: Path) -> None:
    other = TrainingFolder(tmp_path / "other")
    assert other.resumed_from(str(trained.checkpoint), SETTINGS) == trained.checkpoint
    with pytest.raises(UserError, match=r"--resume nowhere/last\.pt: there is no such checkpoint"):
        other.resumed_from("nowhere/last.pt", SETTINGS)


def test_what_does_not_change_the_result_may_change(trained: TrainingFolder) -> None:
    free = {"num_workers": 8, "device": "cuda:0", "max_epochs": 20}
    assert trained.resumed_from(True, {**SETTINGS, **free}) == trained.checkpoint


def test_other_settings_are_refused_all_at_once(trained: TrainingFolder) -> None:
    changed = {**SETTINGS, "bag_size": 50, "milestones": [2], "seed": 1}
    with pytest.raises(UserError, match="cannot be resumed with other settings") as caught:
        trained.resumed_from(True, changed)
    assert str(caught.value).splitlines()[1:] == [
        "  - bag_size was 100 and is now 50",
        "  - milestones was [3, 6] and is now [2]",
        "  - seed was None and is now 1",
    ]


def test_a_checkpoint_whose_settings_are_unknown_is_refused(trained: TrainingFolder) -> None:
    trained.checkpoint.with_suffix(".json").unlink()
    with pytest.raises(UserError, match=r"last\.json is missing"):
        trained.resumed_from(True, SETTINGS)


def test_a_checkpoint_brings_the_best_model_of_its_training(folder: TrainingFolder, tmp_path: Path) -> None:
    theirs = TrainingFolder(tmp_path / "theirs")
    schema = {"classes": ["a", "b"], "groups": {"g": {"x": {"kind": "numeric"}}}}
    card = {"schema": schema, "head": {}, "patch_size": 224, "mpp": 0.25, "bag_size": 100, "settings": {}}
    save_model(torch.nn.Linear(2, 2), theirs.model, card)
    theirs.checkpoint.parent.mkdir()
    torch.save({"best_model": {"best": 1.5, "epoch": 4}}, theirs.checkpoint)
    assert folder.best_model_of(theirs.checkpoint) == {
        folder.model: theirs.model.read_bytes(),
        folder.model.with_suffix(".json"): theirs.model.with_suffix(".json").read_bytes(),
    }
    theirs.model.unlink()
    with pytest.raises(UserError, match=r"model\.pt is missing"):
        folder.best_model_of(theirs.checkpoint)
    torch.save({"best_model": {"best": float("inf"), "epoch": 0}}, theirs.checkpoint)
    assert folder.best_model_of(theirs.checkpoint) == {}


def test_a_damaged_checkpoint_is_named(trained: TrainingFolder) -> None:
    with pytest.raises(UserError, match=r"last\.pt cannot be read as a file of tensors"):
        trained.best_model_of(trained.checkpoint)
