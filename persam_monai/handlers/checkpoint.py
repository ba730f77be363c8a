# SPDX-License-Identifier: Apache-2.0
"""The last state of a training, whole at any moment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from ignite.handlers.checkpoint import BaseSaveHandler, Checkpoint
from monai.handlers import CheckpointSaver

from persam_monai.files import replacing, write_json

CHECKPOINT = "last.pt"
SETTINGS = "last.json"


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
