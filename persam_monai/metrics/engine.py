# SPDX-License-Identifier: Apache-2.0
"""The same numbers as Ignite metrics, for MONAI's engines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from ignite.engine import Engine
from ignite.metrics import Metric

from persam_monai.data import BagDataset
from persam_monai.errors import UserError, did_you_mean
from persam_monai.metrics.scores import SCORES
from persam_monai.metrics.votes import Votes

LEVELS = ("slide", "patient")


def loss_of(output: dict[str, Any]) -> torch.Tensor:
    """The loss in a trainer's output; MONAI's ``from_engine`` would wrap it in a tuple."""
    loss: torch.Tensor = output["loss"]
    return loss.detach()


class VoteScore(Metric):
    """A score of the predictions that the bags of an epoch vote for.

    Args:
        dataset: the bags' dataset.
        score: ``accuracy``, ``balanced_accuracy`` or ``auroc``.
        level: ``slide`` or ``patient``; never bags.

    Raises:
        UserError: if ``score`` or ``level`` is unknown.
    """

    def __init__(self, dataset: BagDataset, score: str = "auroc", level: str = "slide") -> None:
        for name, value, known in (("score", score, tuple(SCORES)), ("level", level, LEVELS)):
            if value not in known:
                raise UserError(f"{name} is {value!r}; expected one of {', '.join(known)}.{did_you_mean(value, known)}")
        self.dataset = dataset
        self.score = SCORES[score]
        self.level = level
        super().__init__()

    def reset(self) -> None:
        """Forget all votes."""
        self.votes: Votes | None = None

    @torch.no_grad()
    def iteration_completed(self, engine: Engine) -> None:
        """Take the votes of the batch that the engine has just seen."""
        self.update((engine.state.batch["slide"], engine.state.output["pred"].logits))

    def update(self, output: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Count slides ``[B]`` and their logits ``[B, C]``."""
        if self.votes is None:
            self.votes = Votes(self.dataset.entries)
        self.votes.add(*output)

    def compute(self) -> float:
        """The score of the labelled slides or patients."""
        if self.votes is None:
            return float("nan")
        self.votes.discard(self.dataset.skipped)
        predictions = self.votes.slides() if self.level == "slide" else self.votes.patients()
        return self.score(predictions.labelled)


class SlideLoss(Metric):
    """Mean over slides of the mean loss of their bags, so that a large slide weighs like a small one.

    Args:
        loss: takes what the network predicts and the labels ``[B]``; must work on one bag.
        dataset: the bags' dataset; slides that it skips do not count.
    """

    def __init__(self, loss: Callable[[Any, torch.Tensor], torch.Tensor], dataset: BagDataset | None = None) -> None:
        self.loss = loss
        self.dataset = dataset
        super().__init__()

    def reset(self) -> None:
        """Forget all losses."""
        self._losses: dict[int, list[float]] = defaultdict(list)

    @torch.no_grad()
    def iteration_completed(self, engine: Engine) -> None:
        """Take the losses of the batch that the engine has just seen."""
        output = engine.state.output
        self.update((engine.state.batch["slide"], output["pred"], output["label"]))

    def update(self, output: tuple[torch.Tensor, Any, torch.Tensor]) -> None:
        """Count slides ``[B]``, the network's predictions (a tuple of tensors ``[B, …]``) and labels ``[B]``."""
        slides, prediction, labels = output
        for i, slide in enumerate(slides.tolist()):
            one = type(prediction)(*(field[i : i + 1] for field in prediction))
            self._losses[slide].append(float(self.loss(one, labels[i : i + 1])))

    def compute(self) -> float:
        """The mean; NaN without bags."""
        skipped = set() if self.dataset is None else self.dataset.skipped
        means = [sum(losses) / len(losses) for slide, losses in sorted(self._losses.items()) if slide not in skipped]
        return sum(means) / len(means) if means else float("nan")
