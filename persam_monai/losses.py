# SPDX-License-Identifier: Apache-2.0
"""The loss: cross-entropy of the bag's classes and, for the attentions themselves, multiple-instance BCE."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from persam_monai.errors import UserError
from persam_monai.networks.head import Attention
from persam_monai.networks.precision import at_least_float32

BAG_SIZE = 100  # the paper's bags: a bag of any size counts as if it had so many patches
SMOOTHING = 0.05  # the paper's factor on one patch's attention, and how far targets keep from 0 and 1
SMALLEST_PROBABILITY = 1e-6  # of a bag and of its complement; far beyond the targets, it only keeps log finite


def bag_log_complement(explanatory: Tensor, mask: Tensor) -> Tensor:
    """log(1 − p_c), where p_c is the probability that the bag shows class c.

    The paper has p_c = 1 − Π_l (1 − 0.05 a′_lc) for bags of 100 patches. Here log(1 − p_c) = 100 · mean_l
    log(1 − 0.05 a′_lc) over the real patches: the same at 100, and independent of the bag's size.

    Args:
        explanatory: a′, ``[B, C, N]``, in [0, 1].
        mask: ``[B, N]`` bool, true where there is a patch.

    Returns:
        ``[B, C]``, at most 0, clamped so that p and 1 − p are at least 1e-6; a bag without patches shows nothing.
    """
    terms = torch.log1p(-SMOOTHING * explanatory).masked_fill(~mask[:, None], 0.0)  # [B, C, N]
    mean = terms.sum(dim=2) / mask.sum(dim=1, keepdim=True).clamp(min=1)  # [B, C]
    return (BAG_SIZE * mean).clamp(math.log(SMALLEST_PROBABILITY), math.log1p(-SMALLEST_PROBABILITY))


def mil_loss(explanatory: Tensor, mask: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Binary cross-entropy between each class's bag probability and the smoothed label, mean over classes.

    Args:
        explanatory: a′, ``[B, C, N]``, in [0, 1].
        mask: ``[B, N]`` bool, true where there is a patch.
        labels: ``[B]``, the true class of each bag.
        weights: ``[C, 2]``, for each true class the weight of its own term and of the others' terms.

    Returns:
        ``[B]``.
    """
    log_absent = bag_log_complement(explanatory, mask)  # [B, C]
    log_present = torch.log(-torch.expm1(log_absent))  # [B, C]
    true = functional.one_hot(labels, explanatory.shape[1]).bool()  # [B, C]
    weight = torch.where(true, weights[labels, :1], weights[labels, 1:])  # [B, C]
    target = torch.where(true, 1 - SMOOTHING, SMOOTHING)  # [B, C]
    return -(weight * (target * log_present + (1 - target) * log_absent)).mean(dim=1)  # [B]


class PersAMLoss(nn.Module):
    """Cross-entropy of the logits plus multiple-instance BCE of the explanatory attention.

    The BCE is weighted against the imbalance of classes: with N training slides of which N_i are of the true class i,
    N/(2 N_i) on class i's term and N/(2(N − N_i)) on the others'. The cross-entropy has hard labels and no weights.
    Everything is computed in float32 (float64 where the attention is), also under ``torch.autocast``. A head without
    personalised attention (``explanatory`` of no class, ``[B, 0, N]``) has the cross-entropy alone.

    Args:
        class_counts: N_i, the number of training slides of each class, in the classes' order; ``None`` if
            :meth:`fit` will say.
        ce_weight: factor of the cross-entropy.
        mil_weight: factor of the multiple-instance BCE.
        reduction: ``"mean"`` over bags, or ``"none"``.

    Raises:
        UserError: if a class has no training slide.
        ValueError: if ``reduction`` is unknown or there are fewer than two classes.

    Example:
        >>> loss = PersAMLoss(class_counts=[30, 20, 10])
        >>> loss.weights[0]  # N/(2 N_0) = 60/60, N/(2(N − N_0)) = 60/60
        tensor([1., 1.])
    """

    def __init__(
        self,
        class_counts: Sequence[int] | None = None,
        ce_weight: float = 1.0,
        mil_weight: float = 1.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if reduction not in ("mean", "none"):
            raise ValueError(f'reduction must be "mean" or "none", got "{reduction}".')
        self.ce_weight = ce_weight
        self.mil_weight = mil_weight
        self.reduction = reduction
        self.weights = nn.Buffer(torch.empty(0, 2), persistent=False)
        if class_counts is not None:
            self.fit(class_counts)

    def fit(self, class_counts: Sequence[int]) -> None:
        """Takes the class weights from the number of training slides of each class.

        Args:
            class_counts: one number per class, in the classes' order.

        Raises:
            UserError: if a class has no training slide.
            ValueError: if there are fewer than two classes.
        """
        counts = [int(count) for count in class_counts]
        if len(counts) < 2:
            raise ValueError(f"class_counts must name at least two classes, got {counts}.")
        empty = [index for index, count in enumerate(counts) if count < 1]
        if empty:
            raise UserError(
                f"Training slides per class are {counts}: there is none of class {', '.join(map(str, empty))} "
                "(counted from 0). Add slides of it, choose another fold, or take the class off the list."
            )
        total = sum(counts)
        weights = [[total / (2 * count), total / (2 * (total - count))] for count in counts]
        self.weights = nn.Buffer(torch.tensor(weights, device=self.weights.device), persistent=False)

    def forward(self, attention: Attention, labels: Tensor) -> Tensor:
        """The loss of a batch of bags.

        Args:
            attention: what a network's ``attend`` gives.
            labels: ``[B]`` integers from 0 to C − 1.

        Returns:
            A scalar, or ``[B]`` with ``reduction="none"``.

        Raises:
            RuntimeError: if the class counts were never given.
            ValueError: if logits, labels and class counts do not agree on B and C.
        """
        bags, classes = attention.logits.shape
        if len(self.weights) == 0:
            raise RuntimeError("PersAMLoss has no class weights: give class_counts, or call fit(class_counts).")
        if labels.shape != (bags,) or len(self.weights) != classes:
            raise ValueError(
                f"Logits are [{bags}, {classes}]: expected labels [{bags}] and {classes} class counts, got labels "
                f"{list(labels.shape)} and {len(self.weights)} class counts."
            )
        labels = labels.long()
        with torch.autocast(attention.logits.device.type, enabled=False):
            logits, explanatory = at_least_float32(attention.logits), at_least_float32(attention.explanatory)
            loss = self.ce_weight * functional.cross_entropy(logits, labels, reduction="none")  # [B]
            if explanatory.shape[1] > 0:
                mil = mil_loss(explanatory, attention.mask, labels, self.weights.to(explanatory))
                loss = loss + self.mil_weight * mil
        return loss.mean() if self.reduction == "mean" else loss
