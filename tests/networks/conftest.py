# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from persam_monai.networks import PersAMHead


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
