# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from persam_monai.networks import Head, PersAMHead
from persam_monai.networks.network import HEADS

SIZES = {
    "num_classes": 3,
    "clinical_groups": [3, 2],
    "feature_dim": 7,
    "width": 16,
    "projection_hidden": 5,
    "heads": 2,
    "feedforward": 12,
}


def small_head(name: str, **arguments: Any) -> Head:
    """A head of tiny width by its name, with those of the sizes and arguments that it takes."""
    taken = inspect.signature(HEADS[name]).parameters
    return HEADS[name](**{key: value for key, value in (SIZES | arguments).items() if key in taken})


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=["balanced", "standard"])
def attention(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_head() -> Callable[..., PersAMHead]:
    """Heads of tiny width in eval mode, for records that are standardised already."""

    def make(attention: str = "balanced", num_classes: int = 3, **ablations: Any) -> PersAMHead:
        head = PersAMHead(num_classes, [3, 2], 7, 16, 5, attention, heads=2, feedforward=12, **ablations).eval()
        head.clinical_encoder.assume_standardised()
        return head

    return make
