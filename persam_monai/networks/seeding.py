# SPDX-License-Identifier: Apache-2.0
"""Random weights that depend on the seed and on nothing else."""

from __future__ import annotations

import hashlib

import torch


def seed_weights(seed: int, room: str) -> None:
    """Set torch's random state before a part of the network is made.

    The head then starts from the same weights with and without an extractor made before it, and the extractor from the
    same in training and in extraction.

    Args:
        seed: the run's seed.
        room: name of the part.
    """
    digest = hashlib.sha256(f"{seed} {room}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)  # below 2**63, what manual_seed takes
