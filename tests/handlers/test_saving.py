# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from persam_monai.errors import UserError
from persam_monai.handlers import BestModelSaver


def validated(saver: BestModelSaver, network: nn.Linear, losses: dict[int, float]) -> None:
    """Validate after these epochs, with the epoch as the network's weight."""
    engine = Engine(lambda engine, batch: None)
    for epoch, loss in losses.items():
        nn.init.constant_(network.weight, epoch)
        engine.state.epoch, engine.state.metrics = epoch, {"val_loss": loss}
        saver(engine)


def saved(folder: Path) -> tuple[float, dict[str, object]]:
    weights = torch.load(folder / "model.pt", weights_only=True)
    return float(weights["weight"]), json.loads((folder / "model.json").read_text())


@pytest.mark.parametrize(
    ("skipped", "max_epochs", "best"),
    [(0, 5, 1), (1, 5, 4), (3, 5, 4), (4, 5, 5), (9, 5, 5)],  # never all epochs are skipped
)
def test_the_lowest_loss_after_the_skipped_epochs_is_kept(
    tmp_path: Path, skipped: int, max_epochs: int, best: int
) -> None:
    network = nn.Linear(1, 1)
    saver = BestModelSaver(network, str(tmp_path / "model.pt"), {"bag_size": 3}, max_epochs, skipped)
    validated(saver, network, {1: 0.1, 2: 0.5, 3: 0.4, 4: 0.2, 5: 0.3})
    weight, card = saved(tmp_path)
    assert weight == card["epoch"] == best
    assert card["val_loss"] == {1: 0.1, 4: 0.2, 5: 0.3}[best]
    assert card["bag_size"] == 3


def test_the_only_epoch_is_saved(tmp_path: Path) -> None:
    network = nn.Linear(1, 1)
    validated(BestModelSaver(network, str(tmp_path / "model.pt"), {}, max_epochs=1), network, {1: 3.0})
    assert saved(tmp_path)[0] == 1


def test_a_tie_keeps_the_earlier_model(tmp_path: Path) -> None:
    network = nn.Linear(1, 1)
    validated(BestModelSaver(network, str(tmp_path / "model.pt"), {}, 3, 0), network, {1: 0.5, 2: 0.5})
    assert saved(tmp_path)[0] == 1


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_training_that_diverges_ends_with_advice_and_keeps_the_best(tmp_path: Path, loss: float) -> None:
    network = nn.Linear(1, 1)
    saver = BestModelSaver(network, str(tmp_path / "model.pt"), {}, 3, 0)
    with pytest.raises(UserError, match=f"val_loss is {loss} after epoch 2: the training has diverged.*learning_rate"):
        validated(saver, network, {1: 0.5, 2: loss})
    assert saved(tmp_path)[0] == 1


def test_a_resumed_training_compares_with_what_went_before(tmp_path: Path) -> None:
    network, path = nn.Linear(1, 1), str(tmp_path / "model.pt")
    first = BestModelSaver(network, path, {}, 4, 0)
    validated(first, network, {1: 0.5, 2: 0.3})
    resumed = BestModelSaver(network, path, {}, 4, 0)
    resumed.load_state_dict(first.state_dict())
    validated(resumed, network, {3: 0.4})
    assert saved(tmp_path)[0] == 2
    validated(resumed, network, {4: 0.2})
    assert saved(tmp_path)[0] == 4


def test_a_run_of_the_validation_engine_saves(tmp_path: Path) -> None:
    network, engine = nn.Linear(1, 1), Engine(lambda engine, batch: None)
    BestModelSaver(network, str(tmp_path / "model.pt"), {}, 1).attach(engine)
    engine.state.metrics = {"val_loss": 1.0}
    engine.run([0], max_epochs=1)
    assert (tmp_path / "model.pt").exists()
