# SPDX-License-Identifier: Apache-2.0
"""How a network starts and learns: random weights by the seed alone, and a learning rate for each part."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn


def seed_weights(seed: int, part: str) -> None:
    """Set torch's random state before a part of the network is made.

    The head then starts from the same weights with and without an extractor made before it, and the extractor from the
    same in training and in extraction.

    Args:
        seed: the run's seed.
        part: name of the part.
    """
    digest = hashlib.sha256(f"{seed} {part}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)  # below 2**63, what manual_seed takes


def parameter_groups(
    network: nn.Module,
    lr_extractor: float = 1e-4,
    lr_head: float = 2e-4,
    lr_clinical: float = 4e-6,
    weight_decay: float = 1e-4,
    decay_norms: bool = True,
) -> list[dict[str, Any]]:
    """Groups ``network``'s parameters for :class:`torch.optim.SGD`, with the paper's learning rates by default.

    Args:
        network: a :class:`~persam_monai.networks.PersAM` or :class:`~persam_monai.networks.PersAMHead`; parameters
            under ``extractor`` and ``clinical_encoder`` have rates of their own, all others are the head's. The head's
            are also the clinical encoder's learned tokens for missing values: free vectors before a layer-norm, as
            class tokens are, which at the clinical networks' small rate would stay where they start.
        lr_extractor: learning rate of the extractor.
        lr_head: learning rate of projection, tokens, encoder, aggregator and classifier.
        lr_clinical: learning rate of the clinical networks.
        weight_decay: of every group that decays.
        decay_norms: whether norms, biases, tokens and embeddings decay too, as in the paper.

    Returns:
        Groups with ``name``, ``params``, ``lr`` and ``weight_decay``; every parameter that learns is in exactly one.
        Frozen parameters (``requires_grad`` false) and groups without parameters are left out.
    """
    rates = {"extractor": lr_extractor, "head": lr_head, "clinical": lr_clinical}
    groups: dict[str, dict[str, Any]] = {}
    for part, rate in rates.items():
        groups[part] = {"name": part, "params": [], "lr": rate, "weight_decay": weight_decay}
        groups[f"{part}_no_decay"] = {"name": f"{part}_no_decay", "params": [], "lr": rate, "weight_decay": 0.0}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        names, part = name.split("."), "head"
        if names[0] == "extractor":
            part = "extractor"
        elif "clinical_encoder" in names and "tokens" not in names:
            part = "clinical"
        is_exempt = parameter.dim() < 2 or "tokens" in names  # norms and biases have one dimension
        groups[f"{part}_no_decay" if is_exempt and not decay_norms else part]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]
