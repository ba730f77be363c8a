# SPDX-License-Identifier: Apache-2.0
"""Small PersAM heads, trained and tested on simulated bags and records with gaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from persam_monai.benchmark.missing.bags import Part, record_schema
from persam_monai.losses import PersAMLoss
from persam_monai.networks import PersAMHead, parameter_groups


@dataclass(frozen=True)
class Contender:
    """How a head treats missing values, and what it learns from.

    Attributes:
        trained_on: share of the variables that is masked in the training records.
        missing: ``"median"`` or ``"learned"``.
        clinical_dropout: as of :class:`~persam_monai.networks.Head`.
    """

    trained_on: float
    missing: str
    clinical_dropout: float = 0.0


@dataclass(frozen=True)
class Effort:
    """How heads are trained, all alike.

    Attributes:
        epochs: passes over the training patients, each on another of their bags.
        rate: learning rate of AdamW at the start; it falls to 0 along a cosine. One rate for the whole head, so that
            no room depends on the others' being right.
        batch: bags at once.
        width: R of the head; it has one encoder layer of four heads.
        dropout: of the head.
    """

    epochs: int = 40
    rate: float = 3e-3
    batch: int = 20
    width: int = 64
    dropout: float = 0.1


def make_head(contender: Contender, effort: Effort, features: int, classes: int) -> PersAMHead:
    """A head as PyTorch's generator initialises it; contenders start from the same weights, as far as they have them.

    Args:
        contender: how it treats missing values.
        effort: its width and dropout.
        features: D.
        classes: C.
    """
    schema = record_schema()
    settings: dict[str, Any] = {
        "num_classes": classes,
        "clinical_groups": schema.group_sizes,
        "feature_dim": features,
        "width": effort.width,
        "projection_hidden": None,
        "heads": 4,
        "layers": 1,
        "feedforward": effort.width,
        "dropout": effort.dropout,
        "clinical_variables": schema.variable_sizes,
    }
    plain = PersAMHead(**settings)
    head = PersAMHead(**settings, missing=contender.missing, clinical_dropout=contender.clinical_dropout)
    head.load_state_dict(plain.state_dict(), strict=False)
    return head


def train(contender: Contender, part: Part, effort: Effort, seed: int) -> PersAMHead:
    """Train one head.

    Args:
        contender: what it learns from, and how it treats missing values.
        part: the training patients.
        effort: how long and how fast.
        seed: decides weights, order of patients and dropout.

    Returns:
        The head, in eval mode.
    """
    torch.manual_seed(seed)
    classes = int(part.labels.max()) + 1
    head = make_head(contender, effort, part.features.shape[2], classes).train()
    records = torch.from_numpy(part.masked(contender.trained_on, variable_sizes()))
    head.fit_records(records)
    features, labels = torch.from_numpy(part.features), torch.from_numpy(part.labels)
    loss = PersAMLoss(np.bincount(part.labels).tolist())
    groups = parameter_groups(head, lr_head=effort.rate, lr_clinical=effort.rate, decay_norms=False)
    optimiser = torch.optim.AdamW(groups)
    batches = -(-len(labels) // effort.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, effort.epochs * batches)
    order = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed + 1)  # the same dropout for all, whatever their initialisation drew
    for epoch in range(effort.epochs):
        for chosen in torch.randperm(len(labels), generator=order).split(effort.batch):
            bags = features[chosen, epoch % features.shape[1]]  # [B, D, N]
            optimiser.zero_grad()
            loss(head.attend(bags, records[chosen]), labels[chosen]).backward()
            optimiser.step()
            schedule.step()
    return head.eval()


def accuracy(head: PersAMHead, part: Part, share: float) -> float:
    """Share of the patients whose class ``head`` gets right from one bag and a record with gaps.

    Args:
        head: in eval mode.
        part: the test patients.
        share: of the variables to mask.
    """
    records = torch.from_numpy(part.masked(share, variable_sizes()))
    with torch.inference_mode():
        logits = head(torch.from_numpy(part.features[:, 0]), records)  # [P, C]
    return float(np.mean(logits.argmax(dim=1).numpy() == part.labels))


def variable_sizes() -> list[int]:
    """How many numbers of the record each variable has."""
    return [variable.width for variable in record_schema().variables]
