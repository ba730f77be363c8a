# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from persam_monai.networks.precision import Dropout, dropout


@pytest.mark.parametrize("probability", [0.1, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_as_many_are_lost_as_was_asked_and_the_mean_stays(probability: float, dtype: torch.dtype) -> None:
    count = 1_000_001  # not a multiple of four
    found = dropout(torch.ones(count, dtype=dtype), probability)
    lost = (found == 0).double().mean().item()
    assert abs(lost - probability) < 5 * (probability * (1 - probability) / count) ** 0.5 + 1e-5  # five deviations
    assert torch.unique(found).tolist() == pytest.approx([0, 1 / (1 - probability)], rel=1e-2)
    assert found.dtype == dtype


def test_neighbours_are_lost_independently() -> None:
    lost = (dropout(torch.ones(400_000), 0.3) == 0).double()
    for distance in (1, 2, 3, 4):  # four share a draw
        together = (lost[:-distance] * lost[distance:]).mean().item()
        assert together == pytest.approx(0.09, abs=0.004)


def test_gradients_are_those_of_what_was_kept() -> None:
    values = torch.randn(50, 3, requires_grad=True)
    found = dropout(values, 0.4)
    found.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, torch.where(found == 0, 0.0, 1 / 0.6), rtol=1e-4, atol=0)


def test_the_seed_decides() -> None:
    values = torch.ones(1000)
    torch.manual_seed(3)
    first = dropout(values, 0.5)
    second = dropout(values, 0.5)
    torch.manual_seed(3)
    assert torch.equal(dropout(values, 0.5), first)
    assert not torch.equal(first, second)


def test_nothing_is_lost_when_nothing_is_trained() -> None:
    values = torch.randn(100)
    assert torch.equal(Dropout(0.5).eval()(values), values)
    assert torch.equal(Dropout(0.0)(values), values)
    assert not torch.equal(Dropout(0.5)(values), values)
    assert not dropout(values, 1.0).any()
    assert (torch.jit.script(Dropout(0.5))(values) == 0).any()
