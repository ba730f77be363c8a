# SPDX-License-Identifier: Apache-2.0
"""What a training keeps: the model that is best on validation, and its last state, whole at any moment."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers.checkpoint import BaseSaveHandler, Checkpoint
from monai.handlers import CheckpointSaver
from torch import nn

from persam_monai.errors import UserError
from persam_monai.files import replacing, write_json
from persam_monai.model import save_model

logger = logging.getLogger(__name__)

CHECKPOINT = "last.pt"
SETTINGS = "last.json"


class BestModelSaver:
    """Saves the network whenever the validation loss is the lowest so far.

    Attach it to the validation engine. The first epochs can be excluded (the paper: three), but never all of them.

    Args:
        network: the network to save (without any wrapper).
        path: where ``model.pt`` goes; ``model.json`` is written beside it.
        card: what ``model.json`` says, apart from what is known only when saving.
        max_epochs: length of the training.
        skip_epochs: epochs whose model is never chosen; at most ``max_epochs - 1`` are.
        metric: name of the engine's metric to minimise.
    """

    def __init__(
        self,
        network: nn.Module,
        path: str,
        card: Mapping[str, Any],
        max_epochs: int,
        skip_epochs: int = 3,
        metric: str = "val_loss",
    ) -> None:
        self.network = network
        self.path = path
        self.card = dict(card)
        self.skip_epochs = min(skip_epochs, max_epochs - 1)
        self.metric = metric
        self.best = math.inf
        self.epoch = 0

    def attach(self, engine: Engine) -> None:
        """Look at the metric after every run of ``engine``."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Save the network if it is the best so far."""
        epoch, value = engine.state.epoch, float(engine.state.metrics[self.metric])
        if not math.isfinite(value):
            raise UserError(
                f"{self.metric} is {value} after epoch {epoch}: the training has diverged. Lower --learning_rate (and "
                "--extractor_learning_rate), or use --precision float32."
            )
        if epoch <= self.skip_epochs or value >= self.best:
            return
        self.best, self.epoch = value, epoch
        save_model(self.network, self.path, {**self.card, "epoch": epoch, self.metric: value})
        logger.debug("Saved %s: %s is %.4f after epoch %d.", self.path, self.metric, value, epoch)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far and its epoch, for a resumed training."""
        return {"best": self.best, "epoch": self.epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        A best epoch that is now to be skipped (a longer training skips more) does not count.
        """
        if int(state["epoch"]) > self.skip_epochs:
            self.best, self.epoch = float(state["best"]), int(state["epoch"])


class LastCheckpoint(CheckpointSaver):
    """MONAI's checkpoint saver with one file that is replaced in a single step after every epoch.

    MONAI's own removes the previous file, then writes the next one in place: a training killed in between has none.

    Args:
        save_dir: folder of ``last.pt`` and ``last.json``.
        save_dict: what to save besides the engine itself: objects with ``state_dict()``, by name.
        settings: what the training was started with; written beside the checkpoint for the resume to compare.
    """

    def __init__(self, save_dir: str, save_dict: dict[str, Any], settings: Mapping[str, Any]) -> None:
        # Without an interval MONAI's saver builds no file handler of its own, which would make the folder at once.
        super().__init__(save_dir=save_dir, save_dict=dict(save_dict))
        self.save_interval = 1
        self._interval_checkpoint = Checkpoint(self.save_dict, _ReplacingSaver(Path(save_dir), settings), n_saved=1)

    def attach(self, engine: Engine) -> None:
        """Save after every epoch of ``engine``, with the engine's own state."""
        self.save_dict["trainer"] = engine
        super().attach(engine)


class _ReplacingSaver(BaseSaveHandler):
    """Writes every checkpoint to the same place."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings = dict(settings)

    def __call__(self, checkpoint: Mapping[str, Any], filename: str, metadata: Mapping[str, Any] | None = None) -> None:
        write_json(self.folder / SETTINGS, self.settings)
        with replacing(self.folder / CHECKPOINT) as partial:
            torch.save(checkpoint, partial)

    def remove(self, filename: str) -> None:
        """Keep the file: the next one replaces it."""
