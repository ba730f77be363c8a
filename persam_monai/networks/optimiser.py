# SPDX-License-Identifier: Apache-2.0
"""Parameter groups for the optimiser: each room of the network learns at a rate of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from monai.optimizers import generate_param_groups
from torch import Tensor, nn


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
    kinds = [(room, exempt) for room in rates for exempt in (False, True)]
    matches: list[Callable[[tuple[str, Tensor]], bool]] = [
        partial(_belongs, room=room, exempt=exempt, decay_norms=decay_norms) for room, exempt in kinds
    ]
    found = generate_param_groups(
        network, matches, ["filter"] * len(kinds), [rates[room] for room, _ in kinds], include_others=False
    )
    groups = []
    for (room, exempt), group in zip(kinds, found, strict=True):
        params = list(group["params"])
        if params:
            name = f"{room}_no_decay" if exempt else room
            decay = 0.0 if exempt else weight_decay
            groups.append({"name": name, "params": params, "lr": group["lr"], "weight_decay": decay})
    return groups


def _belongs(item: tuple[str, Tensor], room: str, exempt: bool, decay_norms: bool) -> bool:
    """Whether a named parameter belongs to the group of ``room`` that is exempt from weight decay, or is not."""
    name, parameter = item
    parts = name.split(".")
    its_room = "head"
    if parts[0] == "extractor":
        its_room = "extractor"
    elif "clinical_encoder" in parts and "tokens" not in parts:
        its_room = "clinical"
    is_exempt = not decay_norms and (parameter.dim() < 2 or "tokens" in parts)  # norms and biases have one dimension
    return parameter.requires_grad and its_room == room and is_exempt == exempt
