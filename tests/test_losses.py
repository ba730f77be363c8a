# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from persam_monai.errors import UserError
from persam_monai.losses import PersAMLoss
from persam_monai.networks import Attention

COUNTS = [30, 20, 10]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def attention(logits: Tensor, explanatory: Tensor, mask: Tensor | None = None) -> Attention:
    """What the loss looks at, with nothing in the other fields."""
    if mask is None:
        mask = torch.ones(len(explanatory), explanatory.shape[2], dtype=torch.bool)
    nothing = torch.empty(0)
    return Attention(logits, explanatory, nothing, nothing, nothing, nothing, mask)


def by_hand(logits: list[float], explanatory: list[list[float]], label: int) -> float:
    """The loss of one bag, with the paper's product over patches (for 100 of them) written out."""
    cross_entropy = math.log(sum(math.exp(value) for value in logits)) - logits[label]
    total, loss = sum(COUNTS), 0.0
    for index, of_patches in enumerate(explanatory):
        absent = 1.0
        for value in of_patches:
            absent *= (1 - 0.05 * value) ** (100 / len(of_patches))
        if index == label:
            weight, target = total / (2 * COUNTS[label]), 0.95
        else:
            weight, target = total / (2 * (total - COUNTS[label])), 0.05
        loss -= weight * (target * math.log(1 - absent) + (1 - target) * math.log(absent)) / len(explanatory)
    return cross_entropy + loss


@pytest.mark.parametrize("patches", [1, 4, 100])
def test_loss_is_the_direct_formula(patches: int) -> None:
    logits, explanatory = torch.randn(2, 3).double(), torch.rand(2, 3, patches).double()
    labels = torch.tensor([2, 0])
    found = PersAMLoss(COUNTS, reduction="none")(attention(logits, explanatory), labels)
    expected = [by_hand(logits[bag].tolist(), explanatory[bag].tolist(), int(labels[bag])) for bag in range(2)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(PersAMLoss(COUNTS)(attention(logits, explanatory), labels), found.mean())


def test_parts_are_weighted_one_to_one_unless_said_otherwise() -> None:
    some, labels = attention(torch.randn(2, 3), torch.rand(2, 3, 5)), torch.tensor([1, 2])
    cross_entropy = PersAMLoss(COUNTS, mil_weight=0.0)(some, labels)
    mil = PersAMLoss(COUNTS, ce_weight=0.0)(some, labels)
    torch.testing.assert_close(cross_entropy, torch.nn.functional.cross_entropy(some.logits, labels))
    torch.testing.assert_close(PersAMLoss(COUNTS)(some, labels), cross_entropy + mil)


def test_a_bag_repeated_has_the_same_loss() -> None:
    logits, explanatory, labels = torch.randn(2, 3), torch.rand(2, 3, 5), torch.tensor([1, 2])
    loss = PersAMLoss(COUNTS)
    repeated = loss(attention(logits, explanatory.repeat(1, 1, 40)), labels)
    torch.testing.assert_close(repeated, loss(attention(logits, explanatory), labels))


def test_padding_changes_nothing() -> None:
    logits, explanatory, labels = torch.randn(2, 3), torch.rand(2, 3, 5), torch.tensor([1, 2])
    padded = torch.cat([explanatory, torch.rand(2, 3, 4)], dim=2).requires_grad_()
    mask = torch.arange(9).expand(2, -1) < 5
    loss = PersAMLoss(COUNTS)
    found = loss(attention(logits, padded, mask), labels)
    torch.testing.assert_close(found, loss(attention(logits, explanatory), labels), rtol=0, atol=1e-6)
    found.backward()
    assert padded.grad is not None
    assert (padded.grad[..., 5:] == 0).all()
    assert (padded.grad[..., :5] != 0).all()


@pytest.mark.parametrize("patches", [1, 100, 100_000])
@pytest.mark.parametrize("value", [0.0, 1e-7, 1.0])
def test_loss_and_gradients_are_finite_at_the_extremes(patches: int, value: float) -> None:
    explanatory = torch.full((1, 3, patches), value, requires_grad=True)
    logits = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    found = PersAMLoss(COUNTS)(attention(logits, explanatory), torch.tensor([1]))
    found.backward()
    assert torch.isfinite(found)
    assert logits.grad is not None
    assert explanatory.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert torch.isfinite(explanatory.grad).all()


def test_bag_of_padding_alone_has_a_finite_loss() -> None:
    explanatory = torch.zeros(1, 3, 4, requires_grad=True)
    some = attention(torch.zeros(1, 3), explanatory, torch.zeros(1, 4, dtype=torch.bool))
    found = PersAMLoss(COUNTS)(some, torch.tensor([1]))
    found.backward()
    assert torch.isfinite(found)
    assert explanatory.grad is not None
    assert (explanatory.grad == 0).all()


def test_gradients_are_right() -> None:
    logits = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    explanatory = torch.rand(2, 3, 4, dtype=torch.float64, requires_grad=True)
    loss, labels = PersAMLoss(COUNTS, reduction="none"), torch.tensor([0, 2])
    mask = torch.tensor([[True, True, False, True], [True] * 4])
    assert torch.autograd.gradcheck(lambda x, y: loss(attention(x, y, mask), labels), (logits, explanatory))


def test_autocast_does_not_reach_the_loss() -> None:
    some, labels = attention(torch.randn(2, 3), torch.rand(2, 3, 50)), torch.tensor([1, 2])
    loss = PersAMLoss(COUNTS)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(some, labels)
    assert torch.equal(found, loss(some, labels))
    assert found.dtype == torch.float32


def test_a_head_without_personalised_attention_has_the_cross_entropy_alone() -> None:
    some, labels = attention(torch.randn(2, 3), torch.empty(2, 0, 5)), torch.tensor([1, 2])
    expected = torch.nn.functional.cross_entropy(some.logits, labels)
    assert torch.equal(PersAMLoss(COUNTS)(some, labels), expected)
    assert PersAMLoss(COUNTS, reduction="none")(some, labels).shape == (2,)


def test_class_without_training_slides_is_named() -> None:
    with pytest.raises(UserError, match=r"none of class 1 \(counted from 0\)"):
        PersAMLoss([4, 0, 2])


def test_loss_without_class_counts_or_with_wrong_labels_is_an_error() -> None:
    some, labels = attention(torch.randn(2, 3), torch.rand(2, 3, 5)), torch.tensor([1, 2])
    loss = PersAMLoss()
    with pytest.raises(RuntimeError, match=r"fit\(class_counts\)"):
        loss(some, labels)
    loss.fit(COUNTS)
    assert torch.equal(loss(some, labels), PersAMLoss(COUNTS)(some, labels))
    with pytest.raises(ValueError, match="got labels \\[1\\]"):
        loss(some, labels[:1])
    with pytest.raises(ValueError, match="2 class counts"):
        PersAMLoss([3, 4])(some, labels)
    with pytest.raises(ValueError, match="reduction"):
        PersAMLoss(COUNTS, reduction="sum")
