# SPDX-License-Identifier: Apache-2.0
"""What every engine of the bundle does besides its work."""

from __future__ import annotations

import torch
from ignite.engine import Engine, Events

from persam_monai.data import generator_for


class RaiseErrors:
    """Hands errors on to the caller. Attach it first.

    Without it MONAI's ``StatsHandler`` prints a traceback in the middle of the log, and an engine with any other
    handler of errors swallows them.
    """

    def attach(self, engine: Engine) -> None:
        """Raise what ``engine`` raises."""
        engine.add_event_handler(Events.EXCEPTION_RAISED, self)

    def __call__(self, engine: Engine, error: BaseException) -> None:
        """Raise ``error``."""
        raise error


class SeedEpochs:
    """Sets torch's random state from the seed and the epoch when an epoch starts.

    Dropout then depends on nothing that went before, so a resumed training draws what an uninterrupted one would.

    Args:
        seed: the run's seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Seed every epoch of ``engine``."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed the epoch that begins."""
        torch.manual_seed(int(generator_for(self.seed, "torch", engine.state.epoch).integers(2**63)))
