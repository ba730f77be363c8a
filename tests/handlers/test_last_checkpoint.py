# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from persam_monai.errors import UserError
from persam_monai.handlers import LastCheckpoint


class Counting:
    """Something that is saved and changes."""

    value = 0

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


@pytest.fixture
def training(tmp_path: Path) -> tuple[Engine, nn.Linear, Path]:
    """An engine that adds 1 to a weight in every epoch and saves."""
    network, counting = nn.Linear(1, 1), Counting()
    nn.init.zeros_(network.weight)

    def step(engine: Engine, batch: int) -> None:
        counting.value = engine.state.epoch
        with torch.no_grad():
            network.weight += 1

    engine = Engine(step)
    folder = tmp_path / "checkpoints"
    LastCheckpoint(str(folder), {"network": network, "counting": counting}, {"bag_size": 3}).attach(engine)
    return engine, network, folder


def loaded(folder: Path) -> dict[str, Any]:
    return dict(torch.load(folder / "last.pt", weights_only=True))


def test_the_last_epochs_state_is_there_after_every_epoch(training: tuple[Engine, nn.Linear, Path]) -> None:
    engine, _, folder = training
    assert not folder.exists()
    seen = []

    @engine.on(Events.EPOCH_STARTED)
    def look(engine: Engine) -> None:
        if engine.state.epoch > 1:
            seen.append(float(loaded(folder)["network"]["weight"]))

    engine.run([0], max_epochs=3)
    assert seen == [1, 2]
    state = loaded(folder)
    assert float(state["network"]["weight"]) == 3
    assert state["counting"] == {"value": 3}
    assert state["trainer"]["iteration"] == 3
    assert state["trainer"]["max_epochs"] == 3
    assert sorted(path.name for path in folder.iterdir()) == ["last.json", "last.pt"]
    assert json.loads((folder / "last.json").read_text()) == {"bag_size": 3}


def test_a_failing_write_leaves_the_previous_state_whole(
    training: tuple[Engine, nn.Linear, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _, folder = training
    save = torch.save

    def full(content: Any, path: Path) -> None:
        if engine.state.epoch == 1:
            return save(content, path)
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"last\.pt cannot be written: No space left on device"):
        engine.run([0], max_epochs=3)
    assert float(loaded(folder)["network"]["weight"]) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["last.json", "last.pt"]


def test_nothing_is_saved_of_an_epoch_that_failed(training: tuple[Engine, nn.Linear, Path]) -> None:
    engine, _, folder = training

    @engine.on(Events.ITERATION_COMPLETED(once=3))
    def fail(engine: Engine) -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        engine.run([0], max_epochs=5)
    assert float(loaded(folder)["network"]["weight"]) == 2
