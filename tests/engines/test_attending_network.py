# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn

from persam_monai.errors import UserError
from persam_monai.networks import AttendingNetwork, PersAM, PersAMHead


class Watched(nn.Module):
    """A convolution that remembers in which type it computed."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 16, 8, stride=8)
        self.dtype: torch.dtype | None = None

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.convolution(image)
        self.dtype = features.dtype
        return features.mean(dim=(2, 3))


@pytest.fixture
def network() -> PersAM:
    torch.manual_seed(0)
    head = PersAMHead(2, [3, 1], 16, width=16, projection_hidden=None, heads=2, feedforward=16)
    head.clinical_encoder.assume_standardised()
    return PersAM(Watched(), head).eval()


IMAGE = torch.randint(0, 256, (2, 3, 4, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
RECORD = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[True] * 4, [True] * 3 + [False]])


@pytest.mark.parametrize(("precision", "inside"), [("float32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_is_that_of_the_computation_and_results_are_float32(
    network: PersAM, precision: str, inside: torch.dtype
) -> None:
    found = AttendingNetwork(network, precision)(IMAGE, RECORD, MASK)
    assert network.extractor.backbone.dtype == inside
    assert {field.dtype for field in found if field is not found.mask} == {torch.float32}
    exact = network.attend(IMAGE, RECORD, MASK)
    assert network.extractor.backbone.dtype == torch.float32  # autocast ends with the call
    tolerance = 0 if precision == "float32" else 0.05
    for ours, theirs in zip(found, exact, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)
    if precision == "bf16":
        assert not torch.equal(found.logits, exact.logits)


def test_gradients_reach_the_network_in_its_own_type(network: PersAM) -> None:
    AttendingNetwork(network, "bf16")(IMAGE, RECORD, MASK).logits.sum().backward()
    weight = network.extractor.backbone.convolution.weight
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    assert weight.grad.abs().sum() > 0


def test_an_unknown_precision_is_refused(network: PersAM) -> None:
    with pytest.raises(UserError, match="precision is 'float16'; expected one of auto, float32, bf16"):
        AttendingNetwork(network, "float16")
