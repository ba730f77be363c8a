# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging

import pytest
import torch
from ignite.engine import Engine
from monai.handlers import StatsHandler

from persam_monai.handlers import RaiseErrors, SeedEpochs


def drawn(seed: int, first_epoch: int = 1, noise: int = 0) -> dict[int, float]:
    """What each epoch draws; ``noise`` numbers are drawn before."""
    found: dict[int, float] = {}

    def step(engine: Engine, batch: int) -> None:
        found[engine.state.epoch] = float(torch.rand(()))

    engine = Engine(step)
    SeedEpochs(seed).attach(engine)
    torch.rand(noise)
    if first_epoch > 1:
        engine.load_state_dict({"epoch": first_epoch - 1, "max_epochs": 4, "epoch_length": 1})
    engine.run([0], max_epochs=4)
    return found


def test_an_epochs_random_numbers_depend_on_seed_and_epoch_alone() -> None:
    whole = drawn(7)
    assert drawn(7, noise=100) == whole
    assert drawn(7, first_epoch=3) == {epoch: whole[epoch] for epoch in (3, 4)}
    assert len(set(whole.values())) == 4
    assert not set(whole.values()) & set(drawn(8).values())


def test_errors_reach_the_caller_without_a_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def step(engine: Engine, batch: int) -> None:
        raise ValueError("broken")

    engine = Engine(step)
    RaiseErrors().attach(engine)
    StatsHandler(iteration_log=False, name="stats").attach(engine)
    with caplog.at_level(logging.INFO), pytest.raises(ValueError, match="broken"):
        engine.run([0])
    assert not [record for record in caplog.records if record.exc_info or "Traceback" in record.getMessage()]
