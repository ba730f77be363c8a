# SPDX-License-Identifier: Apache-2.0
"""The folder that a training writes to, and what may already be in it."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persam_monai.errors import UserError, raise_together
from persam_monai.files import replacing
from persam_monai.handlers.checkpoint import CHECKPOINT, SETTINGS
from persam_monai.handlers.predictions import PREDICTION_FILES

logger = logging.getLogger(__name__)

# What may differ between the two halves of a resumed training without changing its result.
FREE_ON_RESUME = frozenset({"num_workers", "device", "max_epochs", "dataset_dir", "extractor_weights"})


@dataclass(frozen=True)
class TrainingFolder:
    """Where a training keeps its files.

    Args:
        root: the ``output_dir``.
    """

    root: Path

    @property
    def model(self) -> Path:
        """The best model's weights."""
        return self.root / "models" / "model.pt"

    @property
    def checkpoint(self) -> Path:
        """The last state of the training."""
        return self.root / "checkpoints" / CHECKPOINT

    def claim(self, overwrite: bool) -> None:
        """Make the folder for a training from the start.

        Args:
            overwrite: remove an earlier training's model, checkpoint and evaluation.

        Raises:
            UserError: if the folder cannot be written, or holds a training and ``overwrite`` is false.
        """
        make_writable(self.root)
        earlier = [file for file in (self.model, self.checkpoint) if file.exists()]
        results = [self.root / "evaluation" / name for name in ("metrics.json", *PREDICTION_FILES)]
        if earlier and not overwrite:
            raise UserError(
                f"{self.root} already holds a training ({', '.join(str(file) for file in earlier)}). Go on with it by "
                "--resume true, replace it by --overwrite true, or name another --output_dir."
            )
        for file in [*earlier, *(file.with_suffix(".json") for file in earlier), *results]:
            file.unlink(missing_ok=True)

    def adopt(self, checkpoint: Path, overwrite: bool) -> None:
        """Make the folder for going on from another folder's checkpoint: take over its best model so far.

        Args:
            checkpoint: in the ``checkpoints`` folder of another training.
            overwrite: as in :meth:`claim`.

        Raises:
            UserError: as :meth:`claim`.
        """
        self.claim(overwrite)
        theirs = TrainingFolder(checkpoint.resolve().parents[1]).model
        for file, ours in ((theirs, self.model), (theirs.with_suffix(".json"), self.model.with_suffix(".json"))):
            if file.is_file():
                with replacing(ours) as partial:
                    shutil.copyfile(file, partial)

    def resumed_from(self, resume: str | bool, settings: Mapping[str, Any]) -> Path | None:
        """The checkpoint to go on from.

        Args:
            resume: true for this folder's own, or a path.
            settings: of the training that is about to go on.

        Returns:
            ``None`` if the training is to start from the beginning: it is not resumed, or it was stopped before its
            first checkpoint.

        Raises:
            UserError: if a path is given and there is no file, or the settings are not those of the checkpoint.
        """
        if is_false(resume):
            return None
        path = self.checkpoint if is_true(resume) else Path(str(resume))
        if not path.is_file():
            if not is_true(resume):
                raise UserError(f"--resume {path}: there is no such checkpoint. Expected a path to a {CHECKPOINT}.")
            logger.info("%s does not exist yet: the training starts from the beginning.", path)
            return None
        _compare(path.with_name(SETTINGS), settings)
        return path


def is_true(setting: object) -> bool:
    """Whether a setting that may also be a path means yes."""
    return str(setting).lower() in ("true", "yes", "1")


def is_false(setting: object) -> bool:
    """Whether a setting that may also be a path means no."""
    return str(setting).lower() in ("false", "no", "0", "none", "")


def make_writable(folder: Path) -> None:
    """Make ``folder`` if need be, and make sure that files can be written there.

    Raises:
        UserError: if they cannot.
    """
    probe = folder / f".writable.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"output_dir {folder} is not writable: {error.strerror or error}. Name a folder that you may write to "
            "with --output_dir."
        ) from error


def _compare(file: Path, settings: Mapping[str, Any]) -> None:
    """Raise if the settings written beside a checkpoint differ from ``settings`` in what matters."""
    if not file.is_file():
        return
    before = json.loads(file.read_text(encoding="utf-8"))
    now = json.loads(json.dumps(dict(settings)))
    raise_together(
        "The training cannot be resumed with other settings than it was started with",
        [
            f"{name} was {before.get(name)!r} and is now {now.get(name)!r}"
            for name in sorted(before.keys() | now.keys())
            if name not in FREE_ON_RESUME and before.get(name) != now.get(name)
        ],
    )
